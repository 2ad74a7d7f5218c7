"""The real network: libp2p over TCP, Noise and Yamux, with gossipsub. The one door to libp2p.

libp2p is imported when a network is opened, not with this module: it takes most of a second.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from hashlib import sha256
from typing import Any

import trio

from node.network import address as addresses
from node.network import hardening, interfaces
from node.network.base import Handler, Judge, Network, NetworkError, Topic, Watcher
from node.network.libp2p_events import Notifee, StreamGate
from node.network.libp2p_stream import Libp2pStream
from node.network.peer_id import node_of, peer_bytes
from node.network.quota import Quotas, Verdict, is_blamed
from protocol.errors import Code, LocalError, RemoteError
from protocol.identity import Seed
from protocol.ids import NodeId, short
from protocol.limits import (
    CONNECTIONS_MAX,
    DIAL_SECONDS_MAX,
    GOSSIP_BYTES_MAX,
    HALF_OPEN_SECONDS_MAX,
    OPEN_SECONDS_MAX,
)

CLOSE_SECONDS_MAX = 1.5
_GOSSIP_PROTOCOLS = ("/meshsub/1.1.0",)
_CONNECTIONS_PER_PEER_MAX = 3  # Both ends may dial at once; more than that is of no use.


@asynccontextmanager
async def open_network(
    seed: Seed,
    listen: Sequence[str],
    quotas: Quotas | None = None,
    connections_max: int = CONNECTIONS_MAX,
) -> AsyncIterator["Libp2pNetwork"]:
    """A network of the node with this seed, for as long as the context lasts.

    `listen` are addresses such as /ip4/0.0.0.0/tcp/0, or none for a node that only dials. On
    leaving, every connection is closed, in at most CLOSE_SECONDS_MAX seconds.

    Raises LocalError: BAD_REQUEST for what is no address to listen at, IN_USE when another
    program has the port, UNAVAILABLE when libp2p is not the version that the guards are made for.
    """
    hardening.install()
    wanted = [addresses.to_listen(text) for text in listen]
    for one in wanted:
        interfaces.check_free(one)
    host, pubsub = _host(seed, connections_max)
    failure: BaseException | None = None
    async with AsyncExitStack() as stack:
        await _start(stack, host, pubsub, wanted)
        nursery = await stack.enter_async_context(trio.open_nursery())
        network = Libp2pNetwork(host, pubsub, Quotas() if quotas is None else quotas, nursery)
        try:
            interfaces.check_all(wanted, network.listening)
            yield network
        except BaseException as error:
            failure = error  # It goes on as it is, below, and not inside libp2p's groups.
        await _close(host)
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _host(seed: Seed, connections_max: int) -> tuple[Any, Any]:
    """(host, pubsub) of libp2p, not running yet."""
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
    from libp2p.network.config import ConnectionConfig
    from libp2p.rcmgr import ResourceLimits, ResourceManager
    from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
    from libp2p.security.noise.transport import Transport as Noise
    from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
    from libp2p.stream_muxer.yamux.yamux import Yamux

    keys = create_new_key_pair(seed)
    reserved = min(16, connections_max // 4)  # Slots for those that we dial.
    host = new_host(
        key_pair=keys,
        # By default libp2p also offers TLS, SECIO and plain text.
        sec_opt={NOISE: Noise(keys, noise_privkey=create_x25519_key_pair().private_key)},
        muxer_opt={YAMUX: Yamux},
        connection_config=ConnectionConfig(
            max_connections=connections_max,
            min_connections=reserved,
            low_watermark=reserved,
            high_watermark=connections_max - connections_max // 8,
            max_connections_per_peer=_CONNECTIONS_PER_PEER_MAX,
            inbound_upgrade_timeout=HALF_OPEN_SECONDS_MAX,
            outbound_upgrade_timeout=DIAL_SECONDS_MAX,
            dial_timeout=DIAL_SECONDS_MAX,
            inbound_stream_protocol_negotiation_timeout=HALF_OPEN_SECONDS_MAX,
            outbound_stream_protocol_negotiation_timeout=OPEN_SECONDS_MAX,
        ),
        # Its circuit breaker and its "degradation" would let one peer close the door to all; the
        # bounds that matter are ours, for each peer.
        resource_manager=ResourceManager(
            limits=ResourceLimits(max_connections=4 * connections_max),
            enable_circuit_breaker=False,
            enable_graceful_degradation=False,
        ),
        enable_mDNS=False,
        enable_quic=False,
    )
    host.get_network().retry_config.max_retries = 0  # Discovery decides when to try again.
    return host, _pubsub(host)


def _pubsub(host: Any) -> Any:
    from libp2p.pubsub.gossipsub import GossipSub
    from libp2p.pubsub.pubsub import Pubsub
    from libp2p.pubsub.score import ScoreParams, TopicScoreParams

    router = GossipSub(
        protocols=list(_GOSSIP_PROTOCOLS),
        degree=6,
        degree_low=4,
        degree_high=12,
        heartbeat_interval=1,
        # It counts what an honest relay passes on as the relay's own; our judges count origins.
        spam_protection_enabled=False,
        adaptive_gossip_enabled=False,
        eclipse_protection_enabled=False,
        score_params=ScoreParams(
            # A penalty's weight is positive here, unlike in go-libp2p: with -1 a peer is
            # rewarded for every bad message.
            p4_invalid_messages=TopicScoreParams(weight=1.0, cap=100.0, decay=0.9),
            publish_threshold=-3.0,
            graylist_threshold=-80.0,
        ),
    )
    return Pubsub(
        host,
        router,
        strict_signing=True,
        msg_id_constructor=_message_id,
        max_inbound_rpc_size=1 << 16,
        seen_ttl=120,
    )


def _message_id(message: Any) -> bytes:
    parts = (message.from_id, message.seqno, *(t.encode() for t in message.topicIDs), message.data)
    return sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()[:20]


async def _start(
    stack: AsyncExitStack, host: Any, pubsub: Any, wanted: Sequence[addresses.Address]
) -> None:
    from libp2p.tools.anyio_service import background_trio_service
    from multiaddr import Multiaddr

    listen_addrs = [Multiaddr(str(one)) for one in wanted]
    await stack.enter_async_context(host.run(listen_addrs=listen_addrs))
    await stack.enter_async_context(background_trio_service(pubsub))
    await stack.enter_async_context(background_trio_service(pubsub.router))
    await pubsub.wait_until_ready()


async def _close(host: Any) -> None:
    """libp2p closes connections one after another, 0.2 s each; here all at once."""
    deadline = trio.current_time() + CLOSE_SECONDS_MAX
    with trio.CancelScope(shield=True, deadline=deadline):
        async with trio.open_nursery() as nursery:
            for connection in list(host.get_network().get_connections()):
                nursery.start_soon(hardening.quietly, connection.close)
        await hardening.quietly(host.close)


class Libp2pNetwork:
    """One node's way to the others, over libp2p; made by `open_network`."""

    def __init__(self, host: Any, pubsub: Any, quotas: Quotas, nursery: trio.Nursery) -> None:
        self._host, self._pubsub, self._quotas, self._nursery = host, pubsub, quotas, nursery
        node = node_of(host.get_id())
        assert node is not None
        self._node = node
        self._watchers: list[Watcher] = []
        self._connections: dict[NodeId, set[Any]] = {}
        self._dialling: dict[NodeId, trio.Lock] = {}
        self._topics: set[str] = set()
        host.get_network().register_notifee(Notifee(self))
        hardening.guard_swarm(host.get_network(), StreamGate(self))

    @property
    def node(self) -> NodeId:
        """Our own id."""
        return self._node

    @property
    def listening(self) -> Sequence[addresses.Address]:
        """What the sockets are bound to: wildcards are wildcards, ports are real."""
        listeners = self._host.get_network().listeners.values()
        bound = [str(one) for listener in listeners for one in listener.get_addrs()]
        return tuple(addresses.parsed(text.partition("/p2p/")[0]) for text in bound)

    @property
    def addresses(self) -> Sequence[str]:
        """Where others can dial us, of interfaces; loopback only where there is nothing else."""
        return tuple(interfaces.reachable(self.listening, self._node))

    @property
    def peers(self) -> Sequence[NodeId]:
        """Who is connected now."""
        return tuple(self._connections)

    async def connect(self, address: str) -> NodeId:
        """As `Network.connect`: dials this one address, within DIAL_SECONDS_MAX."""
        from multiaddr import Multiaddr

        target, peer = addresses.to_dial(address)
        if peer == self._node:
            raise LocalError(Code.BAD_REQUEST, f"{address} is our own address.")
        if self._quotas.refused(peer, trio.current_time()):
            raise NetworkError(f"{short(peer)} is refused for now: it was over its quota.")
        turn = self._dialling.setdefault(peer, trio.Lock())
        swarm, where = self._host.get_network(), Multiaddr(str(target))
        try:
            with trio.move_on_after(DIAL_SECONDS_MAX) as scope:
                async with turn:
                    if peer not in self._connections:
                        with hardening.translated(f"{target} does not answer as {short(peer)}"):
                            await swarm.dial_addr(where, _peer_id(peer))
        finally:
            if not turn.locked():  # Nobody else waits to dial this peer.
                self._dialling.pop(peer, None)
        if scope.cancelled_caught:
            raise NetworkError(f"{target} did not answer within {DIAL_SECONDS_MAX} seconds.")
        if peer not in self._connections:
            raise NetworkError(f"{short(peer)} hung up at once.")
        return peer

    async def disconnect(self, peer: NodeId) -> None:
        """Close every connection with a peer; never raises."""
        connections = list(self._host.get_network().get_connections(_peer_id(peer)))
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(hardening.quietly, connection.close)

    async def open(self, peer: NodeId, protocol: str) -> Libp2pStream:
        """As `Network.open`, within OPEN_SECONDS_MAX."""
        if peer not in self._connections:
            raise NetworkError(f"{short(peer)} is not connected.")
        with trio.move_on_after(OPEN_SECONDS_MAX):
            with hardening.translated(f"{short(peer)} opens no stream of {protocol}"):
                stream = await self._host.new_stream(_peer_id(peer), [protocol])
            return Libp2pStream(stream, peer)
        raise NetworkError(f"{short(peer)} did not take a stream in {OPEN_SECONDS_MAX} seconds.")

    def serve(self, protocol: str, handler: Handler) -> None:
        """Answer streams of this protocol from now on."""

        async def served(stream: Any) -> None:
            peer = node_of(stream.muxed_conn.peer_id)
            assert peer is not None  # The gate has turned the others away.
            ours = Libp2pStream(stream, peer)
            await hardening.serve(handler, ours, partial(self._blame, peer))
            await ours.ended()

        self._host.set_stream_handler(protocol, served)

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip to all who subscribe. Raises NetworkError when it cannot be handed on."""
        assert len(data) <= GOSSIP_BYTES_MAX, len(data)
        with hardening.translated(f"the message could not be published on {topic}"):
            await self._pubsub.publish(topic, data)

    async def subscribe(self, topic: str, judge: Judge, take: Topic) -> None:
        """Hear a topic from now on; once for each topic."""
        assert topic not in self._topics, topic
        self._topics.add(topic)
        own = self._host.get_id().to_bytes()

        async def is_kept(forwarder: Any, message: Any) -> bool:
            if message.from_id == own:  # Ours; from anybody else it is an echo or a lie.
                return bool(forwarder.to_bytes() == own)
            peer = node_of(forwarder)
            if peer is None or len(message.topicIDs) != 1 or len(message.data) > GOSSIP_BYTES_MAX:
                return False
            return hardening.judged(judge, peer, bytes(message.data))

        async def take_all() -> None:
            while True:
                message = await subscription.get()
                if message.from_id != own:
                    hardening.told(take, bytes(message.data))

        self._pubsub.set_topic_validator(topic, is_kept, True)
        subscription = await self._pubsub.subscribe(topic)
        self._nursery.start_soon(take_all)

    def watch(self, watcher: Watcher) -> None:
        """Tell this watcher of connections from now on."""
        self._watchers.append(watcher)

    def cut(self, peer: NodeId) -> None:
        """Close every connection with a peer, soon, and without waiting for it."""
        self._nursery.start_soon(self.disconnect, peer)

    def _blame(self, peer: NodeId, error: RemoteError) -> None:
        if is_blamed(error) and self._quotas.failed(peer, trio.current_time()):
            self.cut(peer)

    def stream_opened(self, peer: NodeId) -> bool:
        """May the peer open one more stream? It is cut when it opens far too many."""
        verdict = self._quotas.opened(peer, trio.current_time())
        if verdict is Verdict.CUT:
            self.cut(peer)
        return verdict is Verdict.ALLOW

    def stream_closed(self, peer: NodeId) -> None:
        """A stream that was allowed is over."""
        self._quotas.closed(peer)

    def gossip_came(self, peer: NodeId) -> bool:
        """May one more message of gossip be checked? The peer is cut when it sends too many."""
        now = trio.current_time()
        if self._quotas.refused(peer, now):
            return False
        if self._quotas.gossiped(peer, now):
            self.cut(peer)
            return False
        return True

    def connected(self, connection: Any) -> None:
        """libp2p has a new connection."""
        peer = node_of(connection.muxed_conn.peer_id)
        if peer is None or self._quotas.refused(peer, trio.current_time()):
            # A key that is not Ed25519 is no node, and whoever was cut stays out for a while.
            self._nursery.start_soon(hardening.quietly, connection.close)
            return
        if connection.is_closed:
            return
        known = self._connections.setdefault(peer, set())
        known.add(connection)
        if len(known) == 1:
            for watcher in self._watchers:
                hardening.told(watcher.connected, peer)

    def disconnected(self, connection: Any) -> None:
        """libp2p has lost or closed a connection."""
        peer = node_of(connection.muxed_conn.peer_id)
        known = self._connections.get(peer, set()) if peer is not None else set()
        if peer is None or connection not in known:
            return
        known.discard(connection)
        if not known:
            del self._connections[peer]
            for watcher in self._watchers:
                hardening.told(watcher.disconnected, peer)


def _peer_id(node: NodeId) -> Any:
    from libp2p.peer.id import ID

    return ID(peer_bytes(node))


def _is_a_network(network: Libp2pNetwork) -> Network:
    return network  # The type checker compares the two here.
