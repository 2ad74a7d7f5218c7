"""What every network does, the one in memory and the real one on loopback alike."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise

import pytest
import trio

from node.network import libp2p
from node.network.base import Network, NetworkError, Opened, Stream
from node.network.framing import FrameStream
from node.network.memory import MemoryWorld
from node.network.quota import Limits, Quotas
from node.network.rpc import answering, ask
from protocol.errors import Code, LocalError, RemoteError
from protocol.identity import Identity, Seed
from protocol.ids import NodeId

ECHO = "/test/echo/1"


class Events:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, NodeId]] = []

    def connected(self, peer: NodeId) -> None:
        self.seen.append(("connected", peer))

    def disconnected(self, peer: NodeId) -> None:
        self.seen.append(("disconnected", peer))


@pytest.fixture(params=["memory", "libp2p"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(kind: str, world: MemoryWorld, number: int, quotas: Quotas | None = None) -> Opened:
    seed = Seed(bytes([number]) * 32)
    if kind == "memory":
        return world.open_network(Identity(seed).node, quotas)
    return libp2p.open_network(seed, ["/ip4/127.0.0.1/tcp/0"], quotas)


@asynccontextmanager
async def networks(
    kind: str, count: int, quotas: Quotas | None = None
) -> AsyncIterator[list[Network]]:
    """`count` networks that do not know each other yet; the quotas are those of the first."""
    world = MemoryWorld()
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(opened(kind, world, one, None if one > 1 else quotas))
            for one in range(1, count + 1)
        ]
        yield found


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another task brings about; a bound, so that a failure ends too."""
    for _ in range(1000):
        if condition():
            return
        await trio.sleep(0.01)
    raise AssertionError("it did not come true in ten seconds")


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some(1 << 16):
        await stream.send_all(data)


async def exchanged(network: Network, peer: NodeId, data: bytes) -> bytes:
    stream = await network.open(peer, ECHO)
    got = bytearray()

    async def send() -> None:
        await stream.send_all(data)
        await stream.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while piece := await stream.receive_some(1 << 16):
            got += piece
    return bytes(got)


async def test_bytes_come_back(kind: str) -> None:
    async with networks(kind, 2) as (left, right):
        right.serve(ECHO, echo)
        assert await left.connect(right.addresses[0]) == right.node
        assert await exchanged(left, right.node, b"hello") == b"hello"
        assert await exchanged(left, right.node, b"") == b""


async def test_both_ends_know_who_is_there(kind: str) -> None:
    async with networks(kind, 2) as (left, right):
        who: list[NodeId] = []

        async def handler(stream: Stream) -> None:
            who.append(stream.peer)

        left.serve(ECHO, handler)
        await left.connect(right.addresses[0])
        await until(lambda: left.node in right.peers)
        stream = await right.open(left.node, ECHO)  # The one that was dialled opens it.
        assert stream.peer == left.node
        assert await stream.receive_some(1) == b""
        assert who == [right.node]


async def test_much_comes_whole_through_small_windows(kind: str) -> None:
    data = bytes(range(256)) * 16_384  # 4 MiB: sixteen windows.
    async with networks(kind, 2) as (left, right):
        right.serve(ECHO, echo)
        await left.connect(right.addresses[0])
        assert await exchanged(left, right.node, data) == data


async def test_streams_do_not_hinder_each_other(kind: str) -> None:
    async with networks(kind, 2) as (left, right):
        right.serve(ECHO, echo)
        await left.connect(right.addresses[0])
        stuck = await left.open(right.node, ECHO)
        await stuck.send_all(b"nobody reads my echo")
        results: list[bytes] = []

        async def one(number: int) -> None:
            results.append(await exchanged(left, right.node, bytes([number]) * 50_000))

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(one, number)
        assert sorted(results) == [bytes([number]) * 50_000 for number in range(10)]
        await stuck.reset()


async def test_watchers_hear_of_a_peer_once(kind: str) -> None:
    async with networks(kind, 2) as (left, right):
        events, others = Events(), Events()
        left.watch(events)
        right.watch(others)
        async with trio.open_nursery() as nursery:  # Both dial at once, and one of them twice.
            nursery.start_soon(left.connect, right.addresses[0])
            nursery.start_soon(left.connect, right.addresses[0])
            nursery.start_soon(right.connect, left.addresses[0])
        await until(lambda: len(others.seen) == 1)
        assert events.seen == [("connected", right.node)]
        assert list(left.peers) == [right.node]
        await left.disconnect(right.node)
        await until(lambda: not left.peers and not right.peers)
        assert events.seen[1:] == [("disconnected", right.node)]
        assert others.seen == [("connected", left.node), ("disconnected", left.node)]
        await left.connect(right.addresses[0])
        await until(lambda: len(others.seen) == 3)


async def test_a_network_that_ends_is_gone_for_the_others(kind: str) -> None:
    world = MemoryWorld()
    async with opened(kind, world, 1) as left:
        events = Events()
        left.watch(events)
        async with opened(kind, world, 2) as right:
            right.serve(ECHO, echo)
            address = right.addresses[0]
            peer = await left.connect(address)
            stream = await left.open(peer, ECHO)
            await stream.send_all(b"x")
            assert await stream.receive_some(1) == b"x"
        with pytest.raises(NetworkError):
            await stream.receive_some(1)
        await until(lambda: not left.peers)
        assert events.seen == [("connected", peer), ("disconnected", peer)]
        with pytest.raises(NetworkError):
            await left.open(peer, ECHO)
        with pytest.raises(NetworkError):
            await left.connect(address)


async def test_what_cannot_be_dialled_is_said(kind: str) -> None:
    async with networks(kind, 2) as (left, right):
        for address in ("", "nonsense", "/ip4/1.2.3.4/tcp/1", left.addresses[0]):
            with pytest.raises(LocalError) as caught:
                await left.connect(address)
            assert caught.value.code is Code.BAD_REQUEST
        with pytest.raises(NetworkError):
            await left.open(right.node, ECHO)
        await left.connect(right.addresses[0])
        with pytest.raises(NetworkError):
            await left.open(right.node, "/not/spoken/1")


async def test_a_handler_that_raises_costs_its_stream_only(kind: str) -> None:
    async with networks(kind, 2) as (left, right):

        async def broken(stream: Stream) -> None:
            await stream.receive_some(1)
            raise RuntimeError("broken")

        right.serve("/test/broken/1", broken)
        right.serve(ECHO, echo)
        await left.connect(right.addresses[0])
        stream = await left.open(right.node, "/test/broken/1")
        await stream.send_all(b"x")
        with pytest.raises(NetworkError):
            await stream.receive_some(1)
        assert await exchanged(left, right.node, b"fine") == b"fine"


async def test_what_the_caller_raises_comes_out_as_it_is(kind: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with networks(kind, 1):
            raise ZeroDivisionError


async def test_a_cancelled_network_ends(kind: str) -> None:
    with trio.CancelScope() as scope:
        async with networks(kind, 2) as (left, right):
            await left.connect(right.addresses[0])
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


class StopAt(trio.abc.Instrument):
    """Cancels a scope the nth time that a task is about to run on."""

    def __init__(self, scope: trio.CancelScope, task: object, left: int) -> None:
        self.scope, self.task, self.left = scope, task, left

    def before_task_step(self, task: object) -> None:
        if task is self.task:
            self.left -= 1
            if not self.left:
                self.scope.cancel()


async def cancelled_at(step: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Run it, cancelled when it wakes for the nth time. Was it?"""
    with trio.CancelScope() as scope:
        stop = StopAt(scope, trio.lowlevel.current_task(), step)
        trio.lowlevel.add_instrument(stop)
        try:
            await work()
        finally:
            trio.lowlevel.remove_instrument(stop)
    return scope.cancelled_caught


async def test_cancelling_at_any_await_leaves_the_connection(kind: str) -> None:
    async with networks(kind, 2) as (left, right):
        right.serve(ECHO, echo)
        await left.connect(right.addresses[0])

        async def work() -> None:
            stream: Stream | None = None
            try:
                stream = await left.open(right.node, ECHO)
                await stream.send_all(b"x" * 100_000)
                await stream.close()
                while await stream.receive_some(30_000):
                    pass
            finally:
                if stream is not None:
                    await stream.reset()

        step = 1
        while await cancelled_at(step, work):
            step += 1
            assert await exchanged(left, right.node, b"still here") == b"still here"
            assert step < 200
        assert step > 3
        assert list(left.peers) == [right.node]


async def test_one_question_has_one_answer(kind: str) -> None:
    async def backwards(_peer: NodeId, request: bytes) -> bytes:
        if not request:
            raise RemoteError(Code.BAD_MESSAGE, "An empty question came.")
        return request[::-1]

    async with networks(kind, 2) as (left, right):
        right.serve(ECHO, answering(backwards, size_max=100))
        await left.connect(right.addresses[0])
        assert await ask(left, right.node, ECHO, b"abc") == b"cba"
        with pytest.raises(RemoteError) as caught:
            await ask(left, right.node, ECHO, b"x" * 50, size_max=49)
        assert caught.value.code is Code.TOO_LARGE
        for bad in (b"", b"x" * 101):
            with pytest.raises(NetworkError):
                await ask(left, right.node, ECHO, bad)
        assert await ask(left, right.node, ECHO, b"again") == b"niaga"


async def test_failed_checks_cut_the_peer_for_a_while(kind: str) -> None:
    quotas = Quotas(Limits(failed_per_minute=2))

    async def refusing(stream: Stream) -> None:
        await FrameStream(stream).receive()
        raise RemoteError(Code.BAD_SIGNATURE, "It does not hold.")

    async with networks(kind, 3, quotas) as (left, bad, good):
        left.serve("/test/refusing/1", refusing)
        left.serve(ECHO, echo)
        await bad.connect(left.addresses[0])
        await good.connect(left.addresses[0])
        for _ in range(3):
            with pytest.raises(NetworkError):
                await ask(bad, left.node, "/test/refusing/1", b"signed badly")
        await until(lambda: bad.node not in left.peers and left.node not in bad.peers)
        with pytest.raises(NetworkError):  # noqa: PT012 - the real one notices at one of the two.
            await bad.connect(left.addresses[0])
            await bad.open(left.node, ECHO)
        assert bad.node not in left.peers
        assert await exchanged(good, left.node, b"served") == b"served"


async def test_gossip_reaches_all_who_hear_but_not_its_origin(kind: str) -> None:
    async with networks(kind, 4) as nets:
        heard: dict[NodeId, list[bytes]] = {one.node: [] for one in nets}
        for one in nets:
            await one.subscribe("/t", lambda _peer, data: data != b"bad", heard[one.node].append)
        for near, far in pairwise(nets):  # A chain: most get it from others.
            await near.connect(far.addresses[0])
        number = 0
        with trio.fail_after(15):  # Until the mesh has formed; gossip promises no more.
            while not all(heard[one.node] for one in nets[1:]):
                await nets[0].publish("/t", b"%d" % number)
                number += 1
                await trio.sleep(0.1)
        await nets[0].publish("/t", b"bad")
        await nets[0].publish("/t", b"last")
        await until(lambda: all(b"last" in heard[one.node] for one in nets[1:]))
        assert not heard[nets[0].node]
        for one in nets[1:]:
            assert b"bad" not in heard[one.node]
            assert len(set(heard[one.node])) == len(heard[one.node])


async def test_a_judge_that_raises_has_said_no(kind: str) -> None:
    async with networks(kind, 2) as (left, right):
        heard: list[bytes] = []

        def judge(_peer: NodeId, data: bytes) -> bool:
            if data.startswith(b"bad"):
                raise RuntimeError("broken judge")
            return True

        await right.subscribe("/t", judge, heard.append)
        await left.subscribe("/t", judge, heard.append)
        await left.connect(right.addresses[0])
        with trio.fail_after(15):
            while not heard:
                await left.publish("/t", b"bad")
                await left.publish("/t", b"good")
                await trio.sleep(0.1)
        assert set(heard) == {b"good"}
