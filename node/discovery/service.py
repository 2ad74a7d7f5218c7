"""Discovery of one node: its parts put together, and what the rest of the node asks of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import trio

from node.discovery.addresses import AddressBook
from node.discovery.admission import Admission, Member
from node.discovery.advertise import Advertiser, Sequences
from node.discovery.clock import Clock
from node.discovery.dial_plan import NEIGHBOURS_TARGET, DialPlan
from node.discovery.dialer import Dialer
from node.discovery.directory import Directory, Listing
from node.discovery.exchange import Exchange
from node.discovery.own import OwnState
from node.network.base import Network, NetworkError
from node.network.quota import Quotas
from node.storage.peers import RememberedPeer
from node.telemetry.logs import Log
from protocol.capacity import Advert, capacity_topic
from protocol.errors import Code, LocalError, RemoteError
from protocol.ids import NodeId, short
from protocol.limits import ADVERT_ADDRESSES_MAX, ADVERT_LIFE_MS, ADVERT_SPACING_MS
from protocol.messages import ADVERTS_PROTOCOL

_REMEMBERED_DIALLED_MAX = 64  # Of the peers on disk; the first that answers knows the others.
# A peer that has just started may not serve the exchange yet.
_ASK_AGAIN_SECONDS = (0, 1, 5)

_log = Log("discovery")


class Store(Sequences, Protocol):
    """What discovery keeps on disk: `node.storage.peers.PeerStore`."""

    async def remember(
        self, node: NodeId, addresses: Sequence[str], advert: bytes, now_ms: int
    ) -> None: ...

    async def failed(self, node: NodeId) -> None: ...

    async def best(self, limit: int) -> Sequence[RememberedPeer]: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """`bootstrap` are addresses that end in /p2p/<node id>; times are milliseconds."""

    bootstrap: Sequence[str] = ()
    life_ms: int = ADVERT_LIFE_MS
    spacing_ms: int = ADVERT_SPACING_MS
    neighbours: int = NEIGHBOURS_TARGET


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What discovery shares with the rest of the node. The quotas are those that the network was
    opened with, so that a peer that is cut here stays out there."""

    quotas: Quotas
    clock: Clock
    chance: Random
    dated: Callable[[NodeId, int], None] = lambda _node, _ms: None
    """Told what nodes sign of their clocks, in milliseconds since 1970; it must not wait."""


class Discovery:
    """Finds the other nodes and tells them of this one, while `run` runs.

    Raises LocalError BAD_CONFIG for a bootstrap address that names no node.
    """

    def __init__(
        self,
        network: Network,
        member: Member,
        store: Store,
        state: Callable[[], OwnState],
        surroundings: Surroundings,
        *,
        settings: Settings,
    ) -> None:
        assert network.node == member.node
        clock = surroundings.clock
        self._network, self._member, self._store = network, member, store
        self._quotas, self._clock = surroundings.quotas, clock
        self._directory = Directory(clock.steady_ms)
        self._admission = Admission(
            member, self._directory, self._quotas, clock, self._cut, dated=surroundings.dated
        )
        self._advertiser = Advertiser(
            network,
            member,
            store,
            state,
            clock,
            life_ms=settings.life_ms,
            spacing_ms=settings.spacing_ms,
        )
        self._exchange = Exchange(self._directory, self._admission, self._advertiser, clock)
        self._addresses = AddressBook(member.node, settings.bootstrap, self._directory)
        plan = DialPlan(surroundings.chance, settings.neighbours)
        self._dialer = Dialer(
            network, self._addresses, self._directory, plan, clock, on_failure=self._dial_failed
        )
        self._joined = False
        # What the network and the judge tell us, which must not wait, for `run` to carry out.
        self._came: dict[NodeId, None] = {}
        self._went: dict[NodeId, None] = {}
        self._to_cut: dict[NodeId, None] = {}
        self._news = trio.Event()

    # What the rest of the node asks.

    def adverts(self) -> Mapping[NodeId, Advert]:
        """The nodes that may be chosen for a job, by their adverts of now; never ourselves."""
        return self._directory.adverts()

    def listings(self) -> list[Listing]:
        """All nodes with an advert, for a person to see."""
        return self._directory.listings(frozenset(self._network.peers))

    def name_of(self, node: NodeId) -> str:
        """What a node calls itself, printable, on one line; "" where nothing is known."""
        return self._directory.name_of(node)

    async def connect_to(self, node: NodeId) -> None:
        """Be connected to this node when this returns. Raises NetworkError when it cannot be
        reached; then it is not among `adverts` until it is heard again."""
        await self._dialer.connect_to(node)

    def changed(self, *, urgent: bool = False) -> None:
        """What OwnState says has changed: tell the others, soon; `urgent` is an owner's word."""
        self._advertiser.changed(urgent=urgent)

    @property
    def clock_suspect(self) -> bool:
        """Is the clock of this machine probably more than three minutes wrong?"""
        return self._admission.clock_suspect

    @property
    def adverts_refused(self) -> Mapping[Code, int]:
        """How many adverts were refused since the start, by code."""
        return self._admission.refused

    # The task.

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Find and be found until cancelled; started when peers can ask us. It may be run again
        after it has failed."""
        await self._advertiser.renew()
        await self._join()
        remembered = await self._store.best(_REMEMBERED_DIALLED_MAX)
        for peer in reversed(remembered):  # The best last, so that it is kept longest.
            self._addresses.remember(peer.node, peer.addresses)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._advertiser.run)
            nursery.start_soon(self._dialer.run)
            nursery.start_soon(self._attend)
            task_status.started()

    async def _join(self) -> None:
        """Serve, listen and watch: once, also when `run` is run again."""
        if not self._joined:
            self._joined = True
            self._network.serve(ADVERTS_PROTOCOL, self._exchange.handler)
            self._network.watch(self)
            topic = capacity_topic(self._member.network)
            await self._network.subscribe(topic, self._admission.judge, self._heard)
        for peer in self._network.peers:
            self.connected(peer)

    async def _attend(self) -> None:
        """Carry out what connections, losses and judgements ask for."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                came, went, to_cut = tuple(self._came), tuple(self._went), tuple(self._to_cut)
                for noted in (self._came, self._went, self._to_cut):
                    noted.clear()
                for peer in to_cut:
                    nursery.start_soon(self._network.disconnect, peer)
                for peer in came:
                    nursery.start_soon(self._greet, peer)
                for peer in went:
                    nursery.start_soon(self._mourn, peer)

    async def _greet(self, peer: NodeId) -> None:
        """Ask a new peer for what it knows, and remember where it is."""
        for seconds in _ASK_AGAIN_SECONDS:
            await trio.sleep(seconds)
            if peer not in self._network.peers:
                return
            try:
                news = await self._exchange.ask(self._network, peer)
            except NetworkError:
                continue
            except RemoteError as error:
                self._admission.blame(peer, error)
                break
            _log.debug("peer.exchanged", peer=short(peer), news=news)
            break
        self._advertiser.outrun(self._admission.own_sequence_heard)
        self._dialer.wake()
        await self._remember(peer)

    async def _remember(self, peer: NodeId) -> None:
        addresses = self._addresses.of(peer)[:ADVERT_ADDRESSES_MAX]
        if not addresses:
            return
        self._addresses.remember(peer, addresses)
        try:
            await self._store.remember(peer, addresses, b"", self._clock.wall_ms())
        except LocalError as error:
            _log.warning("peer.not_remembered", peer=short(peer), code=error.code)

    async def _mourn(self, peer: NodeId) -> None:
        """A connection is gone: redial its peer, unless it was us who cut it."""
        if self._quotas.refused(peer, self._clock.steady_ms() / 1000):
            self._directory.lost(peer)
        elif peer not in self._network.peers:
            await self._dialer.redial(peer)
        self._dialer.wake()

    async def _dial_failed(self, node: NodeId) -> None:
        if not self._addresses.is_remembered(node):
            return
        try:
            await self._store.failed(node)
        except LocalError as error:
            _log.warning("peer.failure_not_kept", peer=short(node), code=error.code)

    # What the network tells; none of these may wait.

    def connected(self, peer: NodeId) -> None:
        """As Watcher.connected."""
        self._directory.found(peer)
        self._advertiser.connected()
        self._went.pop(peer, None)
        self._came[peer] = None
        self._news.set()

    def disconnected(self, peer: NodeId) -> None:
        """As Watcher.disconnected."""
        self._came.pop(peer, None)
        self._went[peer] = None
        self._news.set()

    def _heard(self, data: bytes) -> None:
        # The judge has put it into the directory; perhaps it is of somebody to connect to.
        self._advertiser.outrun(self._admission.own_sequence_heard)
        self._dialer.wake()

    def _cut(self, peer: NodeId) -> None:
        _log.info("peer.cut", peer=short(peer))
        self._to_cut[peer] = None
        self._news.set()
