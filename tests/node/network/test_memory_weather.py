"""The network in memory in bad weather: late, lost, doubled, parted; and calm without any."""

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from node.network.base import NetworkError, Stream
from node.network.memory import MemoryNetwork, MemoryWorld
from protocol.ids import NodeId

ANNA, BERTA = NodeId(b"a" * 32), NodeId(b"b" * 32)
ECHO = "/test/echo/1"
Clock = trio.testing.MockClock


class Scripted:
    """Weather that says what it is told to."""

    def __init__(self, delays: Sequence[float] = (), copies: Sequence[float] = (0.0,)) -> None:
        self.delays, self.copies = list(delays), copies
        self.cuts_at = -1  # The number of the piece at which a stream breaks.
        self.is_split = False
        self._pieces = 0

    def delay_seconds(self, sender: NodeId, receiver: NodeId) -> float:
        return self.delays.pop(0) if self.delays else 0.0

    def is_cut(self, sender: NodeId, receiver: NodeId) -> bool:
        self._pieces += 1
        return self._pieces == self.cuts_at

    def is_parted(self, one: NodeId, other: NodeId) -> bool:
        return self.is_split

    def copies_seconds(self, sender: NodeId, receiver: NodeId) -> Sequence[float]:
        return self.copies


class Kept:
    """A handler that keeps its streams open for the test to read."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.streams: list[Stream] = []
        network.serve(ECHO, self.handle)

    async def handle(self, stream: Stream) -> None:
        self.streams.append(stream)
        await trio.sleep_forever()


async def opened(world: MemoryWorld, anna: MemoryNetwork, berta: MemoryNetwork):
    kept = Kept(berta)
    await anna.connect(berta.addresses[0])
    stream = await anna.open(BERTA, ECHO)
    await trio.testing.wait_all_tasks_blocked()
    return stream, kept.streams[0]


async def test_bytes_take_their_time_and_stay_in_order(autojump_clock: Clock) -> None:
    weather = Scripted()
    world = MemoryWorld(weather)
    async with world.open_network(ANNA) as anna, world.open_network(BERTA) as berta:
        ours, theirs = await opened(world, anna, berta)
        weather.delays = [5.0, 1.0, 0.0]
        before = trio.current_time()
        for data in (b"one", b"two"):
            await ours.send_all(data)
        await ours.close()
        assert trio.current_time() == before
        heard = b""
        while data := await theirs.receive_some(100):
            heard += data
        assert heard == b"onetwo"
        assert trio.current_time() == before + 5


async def test_what_is_on_its_way_takes_room(autojump_clock: Clock) -> None:
    weather = Scripted()
    world = MemoryWorld(weather)
    async with world.open_network(ANNA) as anna, world.open_network(BERTA) as berta:
        ours, theirs = await opened(world, anna, berta)
        weather.delays = [5.0]
        await ours.send_all(b"x" * (256 << 10))
        with trio.move_on_after(60) as waited:
            await ours.send_all(b"y")
        assert waited.cancelled_caught
        await theirs.receive_some(10)
        await ours.send_all(b"y")


async def test_a_stream_that_is_cut_loses_what_was_said(autojump_clock: Clock) -> None:
    weather = Scripted()
    world = MemoryWorld(weather)
    async with world.open_network(ANNA) as anna, world.open_network(BERTA) as berta:
        ours, theirs = await opened(world, anna, berta)
        weather.cuts_at = 1
        with pytest.raises(NetworkError):
            await ours.send_all(b"lost")
        with pytest.raises(NetworkError):
            await theirs.receive_some(1)
        assert anna.peers == (BERTA,)  # The connection stays.


async def test_parted_nodes_hear_each_other_when_it_heals(autojump_clock: Clock) -> None:
    weather = Scripted()
    world = MemoryWorld(weather)
    async with world.open_network(ANNA) as anna, world.open_network(BERTA) as berta:
        ours, theirs = await opened(world, anna, berta)
        weather.delays = [1.0]
        await ours.send_all(b"late")
        weather.is_split = True
        with trio.move_on_after(60) as waited:
            await theirs.receive_some(10)
        assert waited.cancelled_caught
        with pytest.raises(NetworkError):
            await anna.open(BERTA, ECHO)
        weather.is_split = False
        world.look()
        assert await theirs.receive_some(10) == b"late"


async def test_a_broken_connection_is_seen_by_both(autojump_clock: Clock) -> None:
    weather = Scripted()
    world = MemoryWorld(weather)
    async with world.open_network(ANNA) as anna, world.open_network(BERTA) as berta:
        _, theirs = await opened(world, anna, berta)
        weather.is_split = True
        world.part(ANNA, BERTA)
        assert (anna.peers, berta.peers) == ((), ())
        with pytest.raises(NetworkError):
            await theirs.receive_some(1)
        with pytest.raises(NetworkError):
            await anna.connect(berta.addresses[0])


@pytest.mark.parametrize(("copies", "heard"), [((), 0), ((0.0,), 1), ((3.0, 1.0), 1)])
async def test_gossip_is_lost_doubled_and_late(
    autojump_clock: Clock, copies: Sequence[float], heard: int
) -> None:
    world = MemoryWorld(Scripted(copies=copies))
    taken: list[bytes] = []
    async with world.open_network(ANNA) as anna, world.open_network(BERTA) as berta:
        await berta.subscribe("/t/x/1", lambda _, __: True, taken.append)
        await anna.connect(berta.addresses[0])
        await anna.publish("/t/x/1", b"news")
        await trio.sleep(10)
    assert len(taken) == heard


async def test_a_listener_hears_all_that_is_said(autojump_clock: Clock) -> None:
    said: list[tuple[NodeId, NodeId, str, bytes]] = []
    world = MemoryWorld(listener=lambda *what: said.append(what))
    async with world.open_network(ANNA) as anna, world.open_network(BERTA) as berta:
        ours, theirs = await opened(world, anna, berta)
        await ours.send_all(b"hello")
        await theirs.send_all(b"you")
    assert said == [(ANNA, BERTA, ECHO, b"hello"), (BERTA, ANNA, ECHO, b"you")]
