"""A network of nodes in one process: the same verbs, no sockets, any clock of trio's."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import trio

from node.network import hardening
from node.network.base import Handler, Judge, Network, NetworkError, Topic, Watcher
from node.network.memory_stream import MemoryStream
from node.network.memory_weather import CALM, Calm, Weather
from node.network.quota import Quotas, Verdict, is_blamed
from protocol.errors import Code, LocalError, RemoteError
from protocol.ids import NodeId, node_parsed, node_text, short
from protocol.limits import GOSSIP_BYTES_MAX

_GOSSIP_WAITING_MAX = 256  # Messages not judged yet; what comes on top is lost, as in gossip.
_GOSSIP_SEEN_MAX = 4096
_UNREACHED_SECONDS = 3.0  # After which a dial into nowhere is given up.

Listener = Callable[[NodeId, NodeId, str, bytes], None]
"""(sender, receiver, protocol or topic, bytes) of all that is said; it may neither wait nor
raise."""


def _unheard(_sender: NodeId, _receiver: NodeId, _protocol: str, _data: bytes) -> None:
    """Nobody listens."""


class MemoryWorld:
    """The nodes of one process that can reach each other, in the weather that there is."""

    def __init__(self, weather: Weather = CALM, listener: Listener = _unheard) -> None:
        self.networks: dict[NodeId, MemoryNetwork] = {}
        self.weather, self.listener = weather, listener

    @property
    def is_calm(self) -> bool:
        """Whether everything always arrives at once."""
        return isinstance(self.weather, Calm)

    def look(self) -> None:
        """The weather has changed: whoever waits for bytes looks again."""
        for network in tuple(self.networks.values()):
            network.look()

    def part(self, one: NodeId, other: NodeId) -> None:
        """Break the connection of two nodes, as when a router between them restarts."""
        network = self.networks.get(one)
        if network is not None:
            network.break_off(other)

    @asynccontextmanager
    async def open_network(
        self, node: NodeId, quotas: Quotas | None = None
    ) -> AsyncIterator["MemoryNetwork"]:
        """A network for this node, for as long as the context lasts; then every connection is
        closed and every handler over. Raises LocalError IN_USE when the node is here already."""
        if node in self.networks:
            raise LocalError(Code.IN_USE, f"The node {short(node)} is in this world already.")
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            # The handlers have a nursery of their own, so that `kill` ends them, not our caller.
            tasks: trio.Nursery = await nursery.start(_hold_nursery)
            network = MemoryNetwork(self, node, Quotas() if quotas is None else quotas, tasks)
            self.networks[node] = network
            tasks.start_soon(network.pump_gossip)
            try:
                yield network
            except BaseException as error:
                failure = error  # It goes on as it is, below, and not inside the nursery's group.
            network.stop()
        if failure is not None:
            raise failure


class MemoryNetwork:
    """One node's way to the others of its world."""

    def __init__(
        self, world: MemoryWorld, node: NodeId, quotas: Quotas, nursery: trio.Nursery
    ) -> None:
        self._world, self._node, self._quotas, self._nursery = world, node, quotas, nursery
        self._handlers: dict[str, Handler] = {}
        self._watchers: list[Watcher] = []
        self._links: dict[NodeId, dict[MemoryStream, None]] = {}  # In order, unlike a set.
        self._topics: dict[str, tuple[Judge, Topic]] = {}
        self._seen: OrderedDict[tuple[NodeId, int], None] = OrderedDict()
        self._published = 0
        self._gossip_in, self._gossip_out = trio.open_memory_channel[
            tuple[str, NodeId, tuple[NodeId, int], bytes]
        ](_GOSSIP_WAITING_MAX)

    @property
    def node(self) -> NodeId:
        """Our own id."""
        return self._node

    @property
    def addresses(self) -> Sequence[str]:
        """Where the others of this world can dial us."""
        return (f"/memory/{short(self._node)}/p2p/{node_text(self._node)}",)

    @property
    def peers(self) -> Sequence[NodeId]:
        """Who is connected now."""
        return tuple(self._links)

    async def connect(self, address: str) -> NodeId:
        """As `Network.connect`; the addresses are those of MemoryNetwork."""
        peer = _dialled(address)
        if peer == self._node:
            raise LocalError(Code.BAD_REQUEST, f"{address} is our own address.")
        await trio.lowlevel.checkpoint()
        if peer in self._links:
            return peer
        await self._reach(peer)
        if peer in self._links:
            return peer  # It was faster.
        other = self._world.networks.get(peer)
        now = trio.current_time()
        if other is None or not self._is_up:
            raise NetworkError(f"Nobody answers at {address}.")
        if other._quotas.refused(self._node, now) or self._quotas.refused(peer, now):
            raise NetworkError(f"The connection with {short(peer)} is refused for now.")
        self._links[peer], other._links[self._node] = {}, {}
        self._tell(_connected, peer)
        other._tell(_connected, self._node)
        return peer

    async def disconnect(self, peer: NodeId) -> None:
        """Close the connection with a peer; never raises."""
        await trio.lowlevel.checkpoint()
        self._unlink(peer)

    async def open(self, peer: NodeId, protocol: str) -> MemoryStream:
        """A new stream to a connected peer. Raises NetworkError."""
        await trio.lowlevel.checkpoint()
        if peer in self._links:
            await self._reach(peer)
        other = self._world.networks.get(peer)
        if peer not in self._links or other is None:
            raise NetworkError(f"{short(peer)} is not connected.")
        handler = other._handlers.get(protocol)
        if handler is None:
            raise NetworkError(f"{short(peer)} does not speak {protocol}.")
        verdict = other._quotas.opened(self._node, trio.current_time())
        if verdict is Verdict.CUT:
            self._unlink(peer)
        if verdict is not Verdict.ALLOW:
            raise NetworkError(f"{short(peer)} takes no more streams of ours.")
        listener = self._world.listener
        ours, theirs = MemoryStream.pair(
            self._node, peer, self._world.weather, lambda a, b, data: listener(a, b, protocol, data)
        )
        for network, stream, end in ((self, ours, peer), (other, theirs, self._node)):
            network._links[end][stream] = None
            stream.when_over(partial(network._links[end].pop, stream, None))
        other._nursery.start_soon(other._serve, handler, theirs)
        return ours

    def serve(self, protocol: str, handler: Handler) -> None:
        """Answer streams of this protocol from now on."""
        self._handlers[protocol] = handler

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip to all who subscribe. Raises NetworkError when we are no longer there."""
        assert len(data) <= GOSSIP_BYTES_MAX, len(data)
        await trio.lowlevel.checkpoint()
        if not self._is_up:
            raise NetworkError("This network is closed.")
        self._published += 1
        message = (self._node, self._published)
        self._seen[message] = None
        self._pass_on(topic, self._node, message, data)

    async def subscribe(self, topic: str, judge: Judge, take: Topic) -> None:
        """Hear a topic from now on."""
        await trio.lowlevel.checkpoint()
        self._topics[topic] = (judge, take)

    def watch(self, watcher: Watcher) -> None:
        """Tell this watcher of connections from now on."""
        self._watchers.append(watcher)

    def kill(self) -> None:
        """Be gone from one moment to the next, as after `kill -9`: our handlers are cancelled,
        the others see resets, and whatever we still try raises NetworkError."""
        self._watchers.clear()
        self.stop()

    def stop(self) -> None:
        """Leave the world: every connection and handler is over. A second call does nothing."""
        if self._is_up:
            del self._world.networks[self._node]
        for peer in tuple(self._links):
            self._unlink(peer)
        self._nursery.cancel_scope.cancel()

    @property
    def _is_up(self) -> bool:
        return self._world.networks.get(self._node) is self

    def look(self) -> None:
        """The weather has changed."""
        for streams in tuple(self._links.values()):
            for stream in tuple(streams):
                stream.look()

    def break_off(self, peer: NodeId) -> None:
        """Lose the connection with a peer, and all streams on it."""
        self._unlink(peer)

    async def _reach(self, peer: NodeId) -> None:
        """There and back. Raises NetworkError where nothing passes."""
        weather = self._world.weather
        if self._world.is_calm:
            return
        if weather.is_parted(self._node, peer):
            await trio.sleep(_UNREACHED_SECONDS)
            raise NetworkError(f"{short(peer)} cannot be reached.")
        there = weather.delay_seconds(self._node, peer)
        await trio.sleep(there + weather.delay_seconds(peer, self._node))

    def _unlink(self, peer: NodeId) -> None:
        streams = self._links.pop(peer, None)
        if streams is None:
            return
        for stream in tuple(streams):
            stream.break_off()
        self._tell(_disconnected, peer)
        other = self._world.networks.get(peer)
        if other is not None:
            other._unlink(self._node)

    def _tell(self, event: Callable[[Watcher, NodeId], None], peer: NodeId) -> None:
        for watcher in self._watchers:
            hardening.told(partial(event, watcher), peer)

    async def _serve(self, handler: Handler, stream: MemoryStream) -> None:
        peer = stream.peer
        with self._counted(peer):
            await hardening.serve(handler, stream, partial(self._blame, peer))
            await stream.ended()

    @contextmanager
    def _counted(self, peer: NodeId) -> Iterator[None]:
        try:
            yield
        finally:
            self._quotas.closed(peer)

    def _blame(self, peer: NodeId, error: RemoteError) -> None:
        if is_blamed(error) and self._quotas.failed(peer, trio.current_time()):
            self._unlink(peer)

    def _pass_on(
        self, topic: str, forwarder: NodeId, message: tuple[NodeId, int], data: bytes
    ) -> None:
        for peer in tuple(self._links):
            other = self._world.networks.get(peer)
            if other is None or peer == forwarder or topic not in other._topics:
                continue
            self._world.listener(self._node, peer, topic, data)
            for seconds in self._world.weather.copies_seconds(self._node, peer):
                hear = partial(other._hear, topic, self._node, message, data)
                if seconds > 0:
                    other._nursery.start_soon(_later, seconds, hear)
                else:
                    hear()

    def _hear(
        self, topic: str, forwarder: NodeId, message: tuple[NodeId, int], data: bytes
    ) -> None:
        try:
            self._gossip_in.send_nowait((topic, forwarder, message, data))
        except trio.WouldBlock:
            return  # Gossip is best effort: too busy is the same as lost on the way.

    async def pump_gossip(self) -> None:
        """Judge what comes, once each; keep it and pass it on, or drop it."""
        async for topic, forwarder, message, data in self._gossip_out:
            if message in self._seen:
                continue
            self._seen[message] = None
            if len(self._seen) > _GOSSIP_SEEN_MAX:
                self._seen.popitem(last=False)
            judge, take = self._topics[topic]
            if hardening.judged(judge, forwarder, data):
                hardening.told(take, data)
                self._pass_on(topic, forwarder, message, data)


async def _later(seconds: float, call: Callable[[], None]) -> None:
    await trio.sleep(seconds)
    call()


async def _hold_nursery(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


def _dialled(address: str) -> NodeId:
    parts = address.split("/")
    try:
        if len(parts) != 5 or parts[:2] != ["", "memory"] or parts[3] != "p2p":
            raise ValueError("it has other parts")
        return node_parsed(parts[4])
    except ValueError as error:
        raise LocalError(
            Code.BAD_REQUEST,
            f"{address[:256]!r} is no address here: {error}. In one process they look like "
            "/memory/name/p2p/12D3KooW...",
        ) from None


def _connected(watcher: Watcher, peer: NodeId) -> None:
    watcher.connected(peer)


def _disconnected(watcher: Watcher, peer: NodeId) -> None:
    watcher.disconnected(peer)


def _is_a_network(network: MemoryNetwork) -> Network:
    return network  # The type checker compares the two here.
