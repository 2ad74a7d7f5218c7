"""A hostile peer with a raw client: it loses its stream or its connection, and nothing else
happens; an honest peer is served meanwhile."""

import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from node.network.base import NetworkError, Stream
from node.network.framing import FrameStream
from node.network.libp2p import Libp2pNetwork, open_network
from node.network.rpc import answering, ask
from protocol import codec
from protocol.identity import Seed
from protocol.ids import NodeId
from protocol.limits import (
    FAILED_CHECKS_MAX,
    FRAME_BYTES_MAX,
    FRAME_SECONDS_MAX,
    STREAM_OPENINGS_PER_MINUTE_MAX,
    STREAMS_PER_CONNECTION_MAX,
)

PROTOCOL = "/test/ping/1"
MULTISTREAM = b"\x13/multistream/1.0.0\n"
DATA, WINDOW_UPDATE, PING, SYN = 0, 1, 2, 1


class Ping(msgspec.Struct, frozen=True, tag="ping", array_like=True, forbid_unknown_fields=True):
    number: int


class Other(msgspec.Struct, frozen=True, tag="other", array_like=True, forbid_unknown_fields=True):
    text: str


async def pong(_peer: NodeId, request: bytes) -> bytes:
    return codec.encode(Ping(codec.decode(request, Ping).number + 1))


class Attacker:
    """A peer that says what it likes, below the protocols too."""

    def __init__(self, network: Libp2pNetwork, victim: Libp2pNetwork) -> None:
        self.network, self.victim = network, victim
        self.answers = 0  # To the honest peer.
        [connection] = network._connections[victim.node]
        self.muxed = connection.muxed_conn

    async def write(self, data: bytes) -> None:
        """Bytes below Yamux. Whatever is raised means that we were cut."""
        await self.muxed.secured_conn.write(data)

    async def honest_is_answered(self, after: str) -> None:
        before = self.answers
        for _ in range(1000):
            if self.answers > before + 1:  # One may have been under way before the attack.
                return
            await trio.sleep(0.01)
        raise AssertionError(f"the honest peer has no answer any more after {after}")

    async def open(self) -> Stream:
        return await self.network.open(self.victim.node, PROTOCOL)

    async def says(self, data: bytes, closes: bool = True) -> None:
        """Send this on a stream, which the victim then resets."""
        stream = await self.open()
        with suppress(NetworkError):
            await stream.send_all(data)
            if closes:
                await stream.close()
        with pytest.raises(NetworkError):
            await stream.receive_some(1)


def header(kind: int, flags: int, stream: int, length: int) -> bytes:
    return struct.pack("!BBHII", 0, kind, flags, stream, length)


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


async def until(condition: Callable[..., bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await trio.sleep(0.01)
    raise AssertionError("it did not come true in ten seconds")


def network(listens: bool) -> Any:
    return open_network(Seed(os.urandom(32)), ["/ip4/127.0.0.1/tcp/0"] if listens else [])


@asynccontextmanager
async def attacked() -> AsyncIterator[Attacker]:
    """A victim and its attacker; an honest peer asks all the while, and is always answered."""

    async def ask_on(honest: Libp2pNetwork, attacker: Attacker) -> None:
        while True:
            ping = Ping(attacker.answers)
            response = await ask(honest, attacker.victim.node, PROTOCOL, codec.encode(ping))
            assert codec.decode(response, Ping).number == ping.number + 1
            attacker.answers += 1
            await trio.sleep(0.05)

    async with (
        network(True) as victim,
        network(False) as honest,
        network(False) as bad,
        trio.open_nursery() as nursery,
    ):
        victim.serve(PROTOCOL, answering(pong))
        await honest.connect(victim.addresses[0])
        await bad.connect(victim.addresses[0])
        attacker = Attacker(bad, victim)
        nursery.start_soon(ask_on, honest, attacker)
        await attacker.honest_is_answered("nothing")
        yield attacker
        await attacker.honest_is_answered("the attack")
        async with network(False) as newcomer:  # And whoever comes later is let in.
            await newcomer.connect(victim.addresses[0])
            await ask(newcomer, victim.node, PROTOCOL, codec.encode(Ping(0)))
        nursery.cancel_scope.cancel()


BAD_BYTES = {
    "garbage": b"\xff" * 1000,
    "an endless frame": (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"x" * 10_000,
    "half a frame": framed(b"x" * 100)[:50],
    "half a length": b"\x00\x00",
    "no MessagePack": framed(b"\xc1\xc1"),
    "a message of the wrong type": framed(codec.encode(Other("hello"))),
    "a message with too many fields": framed(b"\x93\xa4ping\x01\x02"),
    "a message that is not canonical": framed(b"\x92\xa4ping\xcd\x00\x01"),
}


async def test_bad_bytes_cost_the_stream_and_then_the_connection() -> None:
    async with attacked() as first:
        victim = first.victim
        for name, data in BAD_BYTES.items():
            async with network(False) as bad:
                await bad.connect(victim.addresses[0])
                attacker = Attacker(bad, victim)
                for _ in range(FAILED_CHECKS_MAX):
                    await attacker.says(data)
                    assert bad.node in victim.peers, name
                await attacker.says(data)
                await until(lambda node=bad.node: node not in victim.peers)
                with suppress(NetworkError):  # It may dial, but it is not let in.
                    await bad.connect(victim.addresses[0])
                await until(lambda peers=bad: not peers.peers)
                assert bad.node not in victim.peers, name
                await first.honest_is_answered(name)


@pytest.fixture
def jumping_clock() -> trio.testing.MockClock:
    """Jumps when nothing has moved for 10 ms: loopback is quicker than that."""
    return trio.testing.MockClock(autojump_threshold=0.01)


async def test_a_frame_that_never_ends_costs_the_stream(
    jumping_clock: trio.testing.MockClock,
) -> None:
    async with network(True) as victim, network(False) as bad:
        victim.serve(PROTOCOL, answering(pong))
        await bad.connect(victim.addresses[0])
        stream = await bad.open(victim.node, PROTOCOL)
        began_at = trio.current_time()
        await stream.send_all(framed(b"x" * 1000)[:500])
        with pytest.raises(NetworkError):
            await stream.receive_some(1)
        assert trio.current_time() - began_at < 2 * FRAME_SECONDS_MAX
        await ask(bad, victim.node, PROTOCOL, codec.encode(Ping(1)))


async def cut_off(attacker: Attacker, attack: Callable[[], Awaitable[None]]) -> None:
    """Attack until we are cut: then the raw writes fail, in whatever way libp2p has for it."""
    with suppress(Exception):
        await attack()
    await until(lambda: attacker.network.node not in attacker.victim.peers)


async def test_ten_thousand_streams_cost_the_connection() -> None:
    async with attacked() as attacker:
        [theirs] = attacker.victim._connections[attacker.network.node]
        most = 0

        async def attack() -> None:
            nonlocal most
            for number in range(10_000):
                await attacker.write(header(WINDOW_UPDATE, SYN, 100_001 + 2 * number, 0))
                most = max(most, len(theirs.streams))

        await cut_off(attacker, attack)
        assert most <= STREAMS_PER_CONNECTION_MAX + 8  # Gossip's and identify's own are among them.


async def test_streams_opened_and_closed_without_end_cost_the_connection() -> None:
    async with attacked() as attacker:
        opened = 0

        async def attack() -> None:
            nonlocal opened
            for _ in range(2 * STREAM_OPENINGS_PER_MINUTE_MAX):
                await (await attacker.open()).reset()
                opened += 1

        await cut_off(attacker, attack)
        assert opened <= STREAM_OPENINGS_PER_MINUTE_MAX + 8


async def test_an_overrun_window_costs_the_connection() -> None:
    async with attacked() as attacker:
        held = trio.Event()

        async def hold(_stream: Stream) -> None:
            held.set()
            await trio.sleep_forever()

        attacker.victim.serve("/test/hold/1", hold)
        stream: Any = await attacker.network.open(attacker.victim.node, "/test/hold/1")
        await held.wait()
        number = stream._stream.muxed_stream.stream_id

        async def attack() -> None:
            for _ in range(100):
                await attacker.write(header(DATA, 0, number, 60_000) + b"z" * 60_000)

        await cut_off(attacker, attack)


RAW = {
    "an unknown version": b"\x07" * 1200,
    "a frame of 4 GiB": header(DATA, 0, 1, 0xFFFFFFFF),
    "a frame above the window": header(DATA, 0, 1, 300_000) + b"x" * 1000,
    "an unknown type": struct.pack("!BBHII", 0, 77, 0, 1, 0) * 100,
    "an unknown go-away": struct.pack("!BBHII", 0, 3, 0, 0, 99),
    "data for no stream": (header(DATA, 0, 999_999, 4) + b"data") * 100,
    "pings": header(PING, SYN, 0, 7) * 1000,
    "a window beyond all bounds": header(WINDOW_UPDATE, 0, 1, 0xFFFFFFFF) * 100,
    "a protocol that is no text": header(DATA, SYN, 100_001, 24) + MULTISTREAM + b"\x03\xff\xfe\n",
    "a protocol without end": (
        header(DATA, SYN, 100_001, 60_024) + MULTISTREAM + b"\xff\xff\xff\x0f" + b"x" * 60_000
    ),
    "random bytes": os.urandom(5000),
}


async def test_bad_frames_below_the_protocols_stop_nobody() -> None:
    async with attacked() as first:
        for name, data in RAW.items():
            async with network(False) as bad:
                await bad.connect(first.victim.addresses[0])
                with suppress(Exception):  # It may be cut while it still writes.
                    await Attacker(bad, first.victim).write(data)
                await first.honest_is_answered(name)


GOSSIP = {
    "garbage": b"\x04\xff\xff\xff\xff",
    "an endless length": b"\xff" * 10,
    "a length beyond all bounds": b"\xff\xff\xff\xff\x0f" + b"x" * 1000,
    "an empty message": b"\x02\x12\x00",
}


async def test_bad_gossip_stops_nobody() -> None:
    async with attacked() as attacker:
        heard: list[bytes] = []
        await attacker.victim.subscribe("/t", lambda _peer, _data: True, heard.append)
        for name, data in GOSSIP.items():
            stream = await attacker.network.open(attacker.victim.node, "/meshsub/1.1.0")
            with suppress(NetworkError):
                await stream.send_all(data)
            await attacker.honest_is_answered(name)
        assert not heard


async def test_a_port_scanner_stops_nobody() -> None:
    async with attacked() as attacker:
        port = int(attacker.victim.addresses[0].split("/")[4])
        plain = MULTISTREAM + b"\x11/plaintext/2.0.0\n"
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", plain, os.urandom(4000)):
            for _ in range(5):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(data)
                await stream.aclose()
            await attacker.honest_is_answered(repr(data[:20]))


async def test_a_peer_that_never_closes_its_side_keeps_nothing(
    jumping_clock: trio.testing.MockClock,
) -> None:
    async with network(True) as victim, network(False) as bad:
        victim.serve(PROTOCOL, answering(pong))
        await bad.connect(victim.addresses[0])
        await until(lambda: bad.node in victim.peers)
        [theirs] = victim._connections[bad.node]
        await trio.sleep(1)
        before = len(theirs.muxed_conn.streams)
        for number in range(10):
            frames = FrameStream(await bad.open(victim.node, PROTOCOL))
            await frames.send(codec.encode(Ping(number)))
            assert await frames.receive() is not None
        assert len(theirs.muxed_conn.streams) == before + 10
        await trio.sleep(10)
        assert len(theirs.muxed_conn.streams) == before
