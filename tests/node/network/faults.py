"""Provoke each fault of libp2p, with its guard and without; a program of its own, for
test_hardening.py: a process chooses its guards once, and without them some faults end it.

For each case named on the command line it prints one line of JSON: what happened with the guard
and what without it. Where a second guard would catch the same fault later, that one is left out
of both runs, so that the two differ in one guard only. Each run is a fork, so that libp2p is
imported once only.
"""

import json
import logging
import multiprocessing
import os
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

import trio
import trio.testing

from node.network import hardening, placeholders
from node.network.base import NetworkError
from node.network.libp2p import Libp2pNetwork, open_network
from protocol.identity import Seed

HEALTHY = "healthy"
RUN_SECONDS_MAX = 25
CASES_AT_ONCE = 3  # They mostly wait.
DATA, WINDOW_UPDATE, SYN = 0, 1, 1
MULTISTREAM = b"\x13/multistream/1.0.0\n"
MESH = "/meshsub/1.1.0"

Case = Callable[[], Awaitable[str]]
CASES: dict[str, tuple[frozenset[str], bool, Case]] = {}


def case(*guards: str, jumping: bool = False) -> Callable[[Case], Case]:
    """The fault that comes back without the first guard, when the others are left out anyway;
    `jumping` runs it on trio's own clock."""

    def register(function: Case) -> Case:
        CASES[guards[0]] = (frozenset(guards[1:]), jumping, function)
        return function

    return register


def network(listens: bool = True, **options: Any) -> Any:
    where = ["/ip4/127.0.0.1/tcp/0"] if listens else []
    return open_network(Seed(os.urandom(32)), where, **options)


def muxed(one: Libp2pNetwork, other: Libp2pNetwork) -> Any:
    """The Yamux connection of one network with another."""
    [connection] = one._connections[other.node]
    return connection.muxed_conn


def frame(kind: int, flags: int, stream: int, length: int, data: bytes = b"") -> bytes:
    return struct.pack("!BBHII", 0, kind, flags, stream, length) + data


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Does it come true in time?"""
    for _ in range(round(seconds / 0.02)):
        if condition():
            return True
        await trio.sleep(0.02)
    return condition()


async def still_serves(victim: Libp2pNetwork) -> str:
    """An honest newcomer connects, and is answered."""

    async def echo(stream: Any) -> None:
        await stream.send_all(await stream.receive_some(10))

    victim.serve("/honest/1", echo)
    try:
        with trio.fail_after(4):
            async with network(listens=False) as honest:
                await honest.connect(victim.addresses[0])
                stream = await honest.open(victim.node, "/honest/1")
                await stream.send_all(b"hi")
                return HEALTHY if await stream.receive_some(10) == b"hi" else "wrong answer"
    except (NetworkError, trio.TooSlowError) as error:
        return f"an honest peer is refused: {type(error).__name__}"


@asynccontextmanager
async def two(**options: Any) -> AsyncIterator[tuple[Libp2pNetwork, Libp2pNetwork]]:
    """(victim, attacker), connected."""
    async with network(**options) as victim, network(listens=False) as attacker:
        await attacker.connect(victim.addresses[0])
        await until(lambda: attacker.node in victim.peers, 2)
        yield victim, attacker


@case("F1", "F10")
async def slots_leak() -> str:
    async with network(connections_max=8) as victim:
        for number in range(8):
            async with network(listens=False) as guest:
                try:
                    await guest.connect(victim.addresses[0])
                except NetworkError:
                    return f"guest {number} is refused, though nobody is connected"
            await until(lambda: not victim.peers, 3)
        return await still_serves(victim)


@case("F2")
async def handler_raises() -> str:
    async with two() as (victim, attacker):

        async def boom(_stream: Any) -> None:
            raise RuntimeError("boom")

        victim._host.set_stream_handler("/boom/1", boom)
        stream = await attacker.open(victim.node, "/boom/1")
        with suppress(NetworkError):
            await stream.receive_some(1)
        return await still_serves(victim)


@case("F3", "F2")
async def protocol_is_no_text() -> str:
    async with two() as (victim, attacker):
        stream = await muxed(attacker, victim).open_stream()
        await stream.write(MULTISTREAM + b"\x03\xff\xfe\n")
        await trio.sleep(0.2)
        return await still_serves(victim)


def _rpc() -> Any:
    from libp2p.pubsub.pb import rpc_pb2

    return rpc_pb2.RPC()


async def _gossip(attacker: Libp2pNetwork, victim: Libp2pNetwork, data: bytes) -> None:
    from libp2p.utils import encode_varint_prefixed

    stream = await attacker.open(victim.node, MESH)
    await stream.send_all(encode_varint_prefixed(data))
    await trio.sleep(0.2)


@case("F4", "F2")
async def gossip_is_garbage() -> str:
    async with two() as (victim, attacker):
        await _gossip(attacker, victim, b"\xff\xff\xff\xff")
        return await still_serves(victim)


def _message(attacker: Libp2pNetwork) -> tuple[Any, Any]:
    rpc = _rpc()
    message = rpc.publish.add()
    message.topicIDs.append("topic")
    message.data, message.seqno = b"x", b"1" * 8
    message.from_id, message.signature = attacker._host.get_id().to_bytes(), b"s"
    return rpc, message


@case("F5", "F6")
async def gossip_has_a_bad_key() -> str:
    async with two() as (victim, attacker):
        await victim.subscribe("topic", lambda _forwarder, _data: True, lambda _data: None)
        for key in (b"\xff\xff\xff", b"\x08\x02\x12\x03abc"):
            rpc, message = _message(attacker)
            message.from_id, message.key = b"\x12\x20" + b"a" * 32, key
            await _gossip(attacker, victim, rpc.SerializeToString())
        return await still_serves(victim)


@case("F6")
async def validator_raises() -> str:
    async with two() as (victim, attacker):

        def broken(_forwarder: Any, _message: Any) -> bool:
            raise RuntimeError("boom")

        await victim.subscribe("topic", lambda _forwarder, _data: True, lambda _data: None)
        victim._pubsub.set_topic_validator("topic", broken, False)
        rpc, message = _message(attacker)
        message.ClearField("signature")
        signed = b"libp2p-pubsub:" + message.SerializeToString()
        message.signature = attacker._host.get_private_key().sign(signed)
        await _gossip(attacker, victim, rpc.SerializeToString())
        return await still_serves(victim)


async def _sink(stream: Any) -> None:
    while await stream.receive_some(1 << 16):
        pass


@case("F7")
async def write_is_cancelled() -> str:
    async with two() as (victim, attacker):
        victim.serve("/sink/1", _sink)
        for number in range(30):
            try:
                with trio.fail_after(3):
                    stream = await attacker.open(victim.node, "/sink/1")
            except (NetworkError, trio.TooSlowError):
                return f"the connection is lost before stream {number}"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, nursery.cancel_scope, 2 + number)
                await stream.send_all(b"x" * 400_000)
            await stream.reset()
        return await still_serves(victim)


async def _cancel_after(scope: trio.CancelScope, turns: int) -> None:
    """Cancel when every task has had so many turns: the same place in each run, however busy
    the machine is."""
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    scope.cancel()


@case("F8")
async def read_is_cancelled() -> str:
    async with two() as (victim, attacker):
        size = 2000 * 256

        async def source(stream: Any) -> None:
            for number in range(2000):
                await stream.send_all(struct.pack(">I", number) * 64)

        victim.serve("/source/1", source)
        stream = await attacker.open(victim.node, "/source/1")
        got = bytearray()
        while True:
            data: bytes | None = None
            with trio.move_on_after(0.0003):
                try:
                    data = await stream.receive_some(256)
                except NetworkError:
                    return f"the stream broke at {len(got)} of {size} bytes"
            if data == b"":
                break
            got += data or b""
        whole = b"".join(struct.pack(">I", number) * 64 for number in range(2000))
        return HEALTHY if got == whole else f"{size - len(got)} bytes are lost"


async def _hold(_stream: Any) -> None:
    await trio.sleep_forever()


@case("F9")
async def window_is_overrun() -> str:
    async with two() as (victim, attacker):
        victim.serve("/hold/1", _hold)
        stream = await attacker.open(victim.node, "/hold/1")
        number = stream._stream.muxed_stream.stream_id
        write = muxed(attacker, victim).secured_conn.write
        theirs = muxed(victim, attacker)
        try:
            for _ in range(20):
                await write(frame(DATA, 0, number, 60_000, b"z" * 60_000))
        except Exception:
            pass  # It is cut while it still writes: that is what is wanted.
        if not await until(lambda: attacker.node not in victim.peers, 2):
            return f"{len(theirs.stream_buffers[number])} bytes are kept for one unread stream"
        return await still_serves(victim)


@case("F10")
async def handshakes_stay_half_open() -> str:
    async with network(connections_max=16) as victim:
        port = int(victim.addresses[0].split("/")[4])
        idle = []
        for _ in range(20):
            one = trio.socket.socket()
            await one.bind(("127.0.0.3", 0))
            await one.connect(("127.0.0.1", port))
            idle.append(one)
        await trio.sleep(0.2)
        result = await still_serves(victim)
        for one in idle:
            one.close()
        return result


@case("F11")
async def streams_are_many() -> str:
    async with two() as (victim, attacker):
        ours = muxed(attacker, victim)
        theirs = muxed(victim, attacker)
        most = 0
        try:
            for number in range(1, 1000):
                header = frame(WINDOW_UPDATE, SYN, 100_001 + 2 * number, 0)
                await ours.secured_conn.write(header)
                if number % 50 == 0:
                    await trio.sleep(0.02)
                most = max(most, len(theirs.streams))
        except Exception:
            pass  # It is cut while it still writes: that is what is wanted.
        await until(lambda: attacker.node not in victim.peers, 1)
        most = max(most, len(theirs.streams))
        # Those that wait for their reset are counted too, but never many at once.
        if most > 200 or attacker.node in victim.peers:
            return f"one peer has {most} streams open"
        return await still_serves(victim)


@case("F12")
async def opening_is_cancelled() -> str:
    async with two() as (victim, attacker):
        ours = muxed(attacker, victim)
        await trio.sleep(0.3)  # Identify and gossip have opened theirs.
        places, streams = ours.stream_backlog_semaphore.value, len(ours.streams)
        for lock in (ours._write_lock, ours.streams_lock):
            for _ in range(5):
                async with trio.open_nursery() as nursery, lock:
                    nursery.start_soon(attacker.open, victim.node, "/none/1")
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.2)
        lost = places - ours.stream_backlog_semaphore.value
        kept = len(ours.streams) - streams
        if lost > 0 or kept > 0:
            return f"{lost} places and {kept} streams are lost"
        return await still_serves(victim)


class Cable:
    """A relay of TCP that can be unplugged: then nothing passes, and nobody is told."""

    def __init__(self, port: int) -> None:
        self.port, self.is_plugged = port, True

    async def relay(self, ours: trio.SocketStream) -> None:
        theirs = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pump, ours, theirs)
            nursery.start_soon(self.pump, theirs, ours)

    async def pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            async for data in source:
                if self.is_plugged:
                    await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await sink.aclose()


@case("F13", jumping=True)
async def cable_is_cut() -> str:
    async with network() as victim, network(listens=False) as friend, trio.open_nursery() as tasks:
        parts = victim.addresses[0].split("/")
        cable = Cable(int(parts[4]))
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        tasks.start_soon(trio.serve_listeners, cable.relay, [listener])
        parts[4] = str(listener.socket.getsockname()[1])
        await friend.connect("/".join(parts))
        await trio.sleep(60)
        alive = friend.node in victim.peers and victim.node in friend.peers
        cable.is_plugged = False
        await trio.sleep(60)
        dead = friend.node not in victim.peers and victim.node not in friend.peers
        tasks.cancel_scope.cancel()
        if not alive:
            return "a live connection was dropped"
        return HEALTHY if dead else "a dead connection counts as open"


@case("F14", jumping=True)
async def addresses_are_dialled() -> str:
    from libp2p.peer.id import ID
    from multiaddr import Multiaddr

    dialled = 0

    async def trap(stream: trio.SocketStream) -> None:
        nonlocal dialled
        dialled += 1
        await stream.aclose()

    async with network() as victim, trio.open_nursery() as tasks:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        tasks.start_soon(trio.serve_listeners, trap, [listener])
        port = listener.socket.getsockname()[1]
        claimed = Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")
        somebody = ID(bytes.fromhex("002408011220") + os.urandom(32))
        victim._host.get_peerstore().add_addrs(somebody, [claimed], 3600)
        await trio.sleep(70)
        tasks.cancel_scope.cancel()
    return HEALTHY if not dialled else f"dialled an address that somebody claimed, {dialled} times"


@case("F15")
async def line_has_no_end() -> str:
    async with two() as (victim, attacker):
        stream = await muxed(attacker, victim).open_stream()
        sent = 0
        try:
            await stream.write(MULTISTREAM + b"\xff\xff\xff\x0f")  # A name of 32 MiB follows.
            for _ in range(60):
                await stream.write(b"x" * 65_536)
                sent += 65_536
        except Exception:
            pass  # A reset: that is what is wanted.
        if sent > 1 << 20:
            return f"{sent} bytes of a protocol's name are taken"
        return await still_serves(victim)


@case("F16")
async def records_are_verified_again() -> str:
    from libp2p.pubsub import utils

    original, calls = utils.consume_envelope, 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(*arguments)

    utils.consume_envelope = counted
    got: list[bytes] = []
    async with two() as (victim, friend):
        await victim.subscribe("topic", lambda _forwarder, _data: True, got.append)
        await until(lambda: "topic" in friend._pubsub.peer_topics, 3)
        for number in range(20):
            await friend.publish("topic", bytes([number]))
        if not await until(lambda: len(got) == 20, 5):
            return f"{len(got)} of 20 messages came"
    return HEALTHY if calls < 10 else f"{calls} verifications for 20 messages"


@case("F17")
async def signatures_are_bad() -> str:
    from libp2p.pubsub import pubsub

    original, calls = pubsub.signature_validator, 0

    def counted(message: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(message)

    pubsub.signature_validator = counted
    async with two() as (victim, attacker):
        await victim.subscribe("topic", lambda _forwarder, _data: True, lambda _data: None)
        rpc, message = _message(attacker)
        for number in range(200):
            copy = rpc.publish.add()
            copy.CopyFrom(message)
            copy.seqno = number.to_bytes(8, "big")
        for _ in range(10):
            try:
                await _gossip(attacker, victim, rpc.SerializeToString())
            except NetworkError:
                break
        if attacker.node in victim.peers:
            return f"{calls} messages with bad signatures were looked at"
        return await still_serves(victim)


def run(name: str, with_guard: bool) -> str:
    others, jumping, function = CASES[name]
    hardening.install(others if with_guard else others | {name})
    logging.disable(logging.CRITICAL)
    outcome: list[str] = []

    async def bounded() -> None:
        # The other faults can stop a network from closing: whatever is known by then counts.
        seconds = RUN_SECONDS_MAX if not jumping else 1000
        with trio.move_on_after(seconds):
            outcome.append(await function())

    clock = trio.testing.MockClock(autojump_threshold=0.01) if jumping else None
    try:
        trio.run(bounded, clock=clock)
    except BaseException as error:
        return f"died: {leaves(error)}"
    return outcome[0] if outcome else "stuck"


def leaves(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(sorted({leaves(part) for part in error.exceptions}))
    return f"{type(error).__name__}: {error}"


def child(name: str, with_guard: bool, pipe: Connection) -> None:
    # What libp2p and trio say about their own death is not what is asked here.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    pipe.send(run(name, with_guard))


def outcome(context: Any, name: str, with_guard: bool) -> Any:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(name, with_guard, theirs))
    process.start()
    theirs.close()
    return process, ours


def result(process: Any, pipe: Connection) -> str:
    try:
        text = str(pipe.recv()) if pipe.poll(RUN_SECONDS_MAX + 5) else "stuck"
    except EOFError:
        text = "died without a word"
    process.join(1)
    if process.is_alive():
        process.kill()
        process.join()
    return text


def main() -> None:
    placeholders.install()
    import libp2p.pubsub.gossipsub
    import libp2p.rcmgr  # noqa: F401

    context = multiprocessing.get_context("fork")
    names = sys.argv[1:] or sorted(CASES)
    for start in range(0, len(names), CASES_AT_ONCE):
        some = names[start : start + CASES_AT_ONCE]
        running = [
            [outcome(context, name, with_guard) for with_guard in (True, False)] for name in some
        ]
        for name, pair in zip(some, running, strict=True):
            good, bad = (result(*one) for one in pair)
            print(json.dumps({"case": name, "with": good, "without": bad}), flush=True)


if __name__ == "__main__":
    main()
