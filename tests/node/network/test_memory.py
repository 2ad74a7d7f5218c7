"""What only the network in memory has: virtual time, `kill`, bounds that can be seen."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from node.network.base import NetworkError, Stream
from node.network.memory import MemoryNetwork, MemoryWorld
from node.network.memory_stream import WINDOW_BYTES
from node.network.quota import Limits, Quotas
from protocol.errors import Code, LocalError
from protocol.ids import NodeId

ANNA, BERTA, CARLA = (NodeId(name * 32) for name in (b"a", b"b", b"c"))
HOLD = "/test/hold/1"


class Held:
    """A handler that holds its streams, and counts how they end."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.ended = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.ended += 1

    async def handle(self, stream: Stream) -> None:
        self.streams.append(stream)
        with self.counted():
            await trio.sleep_forever()


async def hold(network: MemoryNetwork) -> Held:
    held = Held()
    network.serve(HOLD, held.handle)
    return held


async def test_a_sender_waits_for_a_reader(autojump_clock: trio.testing.MockClock) -> None:
    world = MemoryWorld()
    async with world.open_network(ANNA) as anna, world.open_network(BERTA) as berta:
        held = await hold(berta)
        await anna.connect(berta.addresses[0])
        stream = await anna.open(BERTA, HOLD)
        await stream.send_all(b"x" * WINDOW_BYTES)
        with trio.move_on_after(60) as scope:
            await stream.send_all(b"y")
        assert scope.cancelled_caught
        assert len(await held.streams[0].receive_some(10)) == 10
        await stream.send_all(b"z" * 10)


async def test_kill_is_seen_by_all_and_ends_all(autojump_clock: trio.testing.MockClock) -> None:
    world = MemoryWorld()
    async with world.open_network(ANNA) as anna, world.open_network(BERTA) as berta:
        held = await hold(berta)
        await anna.connect(berta.addresses[0])
        stream = await anna.open(BERTA, HOLD)
        berta.kill()
        await trio.testing.wait_all_tasks_blocked()
        assert held.ended == 1
        assert not anna.peers
        for attempt in (lambda: stream.receive_some(1), lambda: stream.send_all(b"x")):
            with pytest.raises(NetworkError):
                await attempt()
        with pytest.raises(NetworkError):
            await anna.connect(berta.addresses[0])
        with pytest.raises(NetworkError):
            await berta.connect(anna.addresses[0])
        with pytest.raises(NetworkError):
            await berta.publish("/t", b"x")
        async with world.open_network(BERTA) as again:  # Its machine is started anew.
            assert await anna.connect(again.addresses[0]) == BERTA


async def test_a_node_is_in_a_world_once() -> None:
    world = MemoryWorld()
    async with world.open_network(ANNA):
        with pytest.raises(LocalError) as caught:
            async with world.open_network(ANNA):
                pass
        assert caught.value.code is Code.IN_USE
    assert not world.networks


async def test_streams_are_counted_and_given_back(autojump_clock: trio.testing.MockClock) -> None:
    world, quotas = MemoryWorld(), Quotas(Limits(streams_at_once=2, openings_per_minute=5))
    async with world.open_network(ANNA) as anna, world.open_network(BERTA, quotas) as berta:
        await hold(berta)
        await anna.connect(berta.addresses[0])
        streams = [await anna.open(BERTA, HOLD) for _ in range(2)]
        with pytest.raises(NetworkError, match="no more streams"):
            await anna.open(BERTA, HOLD)
        assert list(anna.peers) == [BERTA]
        assert len(berta._links[ANNA]) == 2
        for stream in streams:
            await stream.reset()
        assert not berta._links[ANNA]
        assert not anna._links[BERTA]


async def test_a_flood_of_openings_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    world, quotas = MemoryWorld(), Quotas(Limits(openings_per_minute=5, refused_seconds=60))

    async def done(_stream: Stream) -> None:
        return

    async with world.open_network(ANNA) as anna, world.open_network(BERTA, quotas) as berta:
        berta.serve(HOLD, done)
        await anna.connect(berta.addresses[0])
        for _ in range(5):
            await (await anna.open(BERTA, HOLD)).close()
        with pytest.raises(NetworkError):
            await anna.open(BERTA, HOLD)
        assert not anna.peers
        assert not berta.peers
        with pytest.raises(NetworkError, match="refused"):
            await anna.connect(berta.addresses[0])
        await trio.sleep(60)
        await anna.connect(berta.addresses[0])


async def test_gossip_that_nobody_takes_is_lost_and_not_kept() -> None:
    world = MemoryWorld()
    async with world.open_network(ANNA) as anna, world.open_network(BERTA) as berta:
        heard: list[bytes] = []
        await berta.subscribe("/t", lambda _peer, _data: True, heard.append)
        await anna.connect(berta.addresses[0])
        for _ in range(1000):
            anna._pass_on("/t", ANNA, (ANNA, 10_000 + _), b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < len(heard) <= 257


async def test_a_message_comes_once_on_however_many_ways() -> None:
    world = MemoryWorld()
    async with (
        world.open_network(ANNA) as anna,
        world.open_network(BERTA) as berta,
        world.open_network(CARLA) as carla,
    ):
        heard: list[bytes] = []
        nets = (anna, berta, carla)
        for one in nets:
            await one.subscribe("/t", lambda _peer, _data: True, heard.append)
        for near, far in ((anna, berta), (berta, carla), (carla, anna)):
            await near.connect(far.addresses[0])
        await anna.publish("/t", b"once")
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [b"once", b"once"]
