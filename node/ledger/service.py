"""The ledger of a running node: its parts put together, and what the node asks of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import trio

from node.ledger.audit import Audit, Keeps
from node.ledger.audit import Figures as AuditFigures
from node.ledger.audit import Settings as AuditSettings
from node.ledger.base import Ledger
from node.ledger.checkpoint_desk import CheckpointDesk
from node.ledger.client import Callbacks, Client
from node.ledger.compaction import Compaction
from node.ledger.compaction import Settings as CompactionSettings
from node.ledger.counter import LedgerCounter
from node.ledger.counterparty import Counterparty
from node.ledger.dealings import Dealings
from node.ledger.gossip import Gossip
from node.ledger.journal import Journal
from node.ledger.journal import Settings as JournalSettings
from node.ledger.keeper import Keeper, News, Steps, channel_told, income_told, no_steps
from node.ledger.lines import Connect, Lines
from node.ledger.payees import Payees
from node.ledger.purse import Purse
from node.ledger.queue import Queue
from node.ledger.registry import DONE_KEPT_MAX, Registry
from node.ledger.settle import Settler
from node.ledger.spotcheck import Around as AuditAround
from node.ledger.sync import Sync
from node.ledger.troubles import Troubles
from node.ledger.twin import Twin
from node.ledger.views import Views
from node.ledger.witness import Desk
from node.network.base import Network
from node.network.quota import Quotas
from node.storage.audits import AuditStore, Coverage
from node.storage.checkpoints import CheckpointStore, Pruned
from node.storage.database import Database
from node.storage.ledger import LedgerStore, Records
from node.storage.ledger_own import OwnChains
from protocol.envelope import Signed
from protocol.identity import Identity
from protocol.ids import NodeId
from protocol.ledger.charter import Charter
from protocol.ledger.proof import Breach, Contradiction
from protocol.ledger.settlement import Clock
from protocol.ledger.sync import LEDGER_PROTOCOL
from protocol.ledger.witness import Stopped, Witness
from protocol.limits import INSTANCE_BYTES

INCOMES_TOLD_MAX: Final = 4096  # Of those claimed long ago; whoever watches has booked the rest.


@dataclass(frozen=True, slots=True)
class Settings:
    """The pace of the parts."""

    journal: JournalSettings = field(default_factory=JournalSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    compaction: CompactionSettings = field(default_factory=CompactionSettings)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the ledger shares with the rest of the node. `quotas` are those that the network was
    opened with; `connect` makes a connection to a node or raises NetworkError. `wall_ms` is since
    1970; `clock_trusted` says whether it agrees with the other witnesses' to a minute."""

    network: Network
    quotas: Quotas
    database: Database
    connect: Connect
    random_bytes: Callable[[int], bytes]
    wall_ms: Callable[[], int]
    clock_trusted: Callable[[], bool] = lambda: True
    steps: Steps = no_steps
    witness: Callable[[Charter, NodeId], Witness] = Witness  # The simulator builds a wrong one.


async def open_ledger(
    charter: Charter,
    identity: Identity,
    around: Surroundings,
    settings: Settings | None = None,
) -> "NodeLedger":
    """The ledger of this node as its database has it; it signs and serves while `run` runs.

    Raises LocalError UNAVAILABLE when the disk fails.
    """
    store = LedgerStore(around.database, charter)

    def work(chains: OwnChains) -> tuple[Purse, Registry, Stopped | None]:
        incomes = [income_told(row) for row in chains.pays_last(INCOMES_TOLD_MAX)]
        channels = [channel_told(row) for row in chains.channels_last(DONE_KEPT_MAX)]
        purse = Purse(chains.figures(identity.node), incomes)
        return purse, Registry(channels), chains.stopped()

    if charter.number(identity.node) is None:  # Who never votes has no votes to have lost.
        await store.write(lambda records: records.keeps_no_votes())
    purse, registry, stopped = await store.read(work)
    contradicted = await store.read(lambda chains: chains.contradicted())
    ledger = NodeLedger(
        charter, identity, store, around, (purse, registry), settings=settings or Settings()
    )
    await ledger.journal.load()
    await ledger.settler.load()
    ledger.noticed(stopped, contradicted)
    return ledger


class NodeLedger(Dealings):
    """Implements `node.ledger.base.Ledger`; made by open_ledger. `views` is for people."""

    def __init__(
        self,
        charter: Charter,
        identity: Identity,
        store: LedgerStore,
        around: Surroundings,
        known: tuple[Purse, Registry],
        *,
        settings: Settings,
    ) -> None:
        assert around.network.node == identity.node
        self._charter, self._node, self._network = charter, identity.node, around.network
        self._store, (self._purse, self._registry) = store, known
        self._settings = settings
        self.views = Views(store, charter, identity.node)
        self._keeper = Keeper(charter, identity.node, store, around.steps)
        self._keeper.witness = around.witness(charter, identity.node)
        desk = Desk(
            identity,
            self._keeper,
            lambda: round(trio.current_time() * 1000),
            lambda: Clock(around.wall_ms(), around.clock_trusted()),
        )
        self._settle_desk = desk.settling
        # What takes long, such as pulling a chain, must not hold up a vote: a stream for each.
        hurried = Lines(around.network, around.connect)
        self._slow = Lines(around.network, around.connect)
        instance = around.random_bytes(INSTANCE_BYTES)
        pace = settings.audit.round_seconds
        self.twin = Twin(identity.node, charter, instance, self._slow.ask, seconds=pace)
        self._client = Client(
            identity.node,
            desk,
            store,
            charter,
            hurried,
            instance=instance,
            callbacks=Callbacks(self._found, self._found),
        )
        sync = Sync(around.network, around.quotas, self._keeper, self._slow)
        self.journal = Journal(
            identity, self._keeper, self._client, sync, self._purse, settings=settings.journal
        )
        self.settler = Settler(
            identity, self._keeper, self._registry, self._client, hurried, wall_ms=around.wall_ms
        )
        self._counterparty = Counterparty(self._keeper, self._registry, hurried)
        self._queue = Queue(
            self._keeper, self._client, self._purse, self._registry, self.journal.wake
        )
        self._payees = Payees(self._keeper, hurried)
        self._checkpoints = desk.checkpoints = CheckpointDesk(
            identity, charter, CheckpointStore(around.database, charter, identity.node)
        )
        self.compaction = Compaction(self._checkpoints, charter, sync, settings.compaction)
        self._audit = self._audit_made(around, sync)
        self._gossip = Gossip(around.network, around.quotas, self._keeper)
        self.counter = LedgerCounter(around.network, around.quotas, desk)
        self._stopped: Stopped | None = None
        self._joined = False
        self._contradicted: set[NodeId] = set()
        self._keeper.watchers += [self._heard]
        self._purse.when_short = self.claim_now
        self.settler.may_sign = lambda: self.journal.may_sign
        self.settler.is_halted = lambda: self.journal.halted
        self.journal.when_agreed = self.settler.wake

    def _audit_made(self, around: Surroundings, sync: Sync) -> Audit:
        findings = AuditStore(around.database, self._node)
        return Audit(
            around.network,
            self._keeper,
            sync,
            AuditAround(findings, around.random_bytes, around.wall_ms),
            adopt=self.compaction.adopt,
            settings=self._settings.audit,
        )

    # As `node.ledger.base.Ledger`; how credits are moved is in `Dealings`.

    @property
    def ready(self) -> bool:
        """As `Ledger.ready`."""
        return self.journal.may_sign

    @property
    def trouble(self) -> str:
        """As `Ledger.trouble`."""
        return Troubles(
            is_halted=isinstance(self._stopped, Breach) or self.journal.halted,
            has_rival=self.journal.rival,
            is_restored=self.journal.restored,
            has_forgotten=self._stopped is not None
            and self._charter.number(self._node) is not None,
            answered=self.answered,
            witnesses=len(self._charter.witnesses),
            twin=self.twin.seen,
        ).sentence

    @property
    def answered(self) -> int:
        """How many witnesses have told what they know of our account since they were asked."""
        return len(self._client.views)

    def contradicted(self, account: NodeId) -> bool:
        """As `Ledger.contradicted`."""
        return account in self._contradicted

    # For people.

    @property
    def audited(self) -> AuditFigures:
        """What the continuous audit has done since the start."""
        return self._audit.figures

    @property
    def keeps(self) -> Keeps:
        """How much history this node keeps."""
        if self._settings.audit.only_own:
            return "own"
        return "recent" if self._settings.compaction.is_on else "all"

    async def coverage(self) -> Coverage:
        """How much of the others' chains was audited, and what was found."""
        return await self._audit.coverage()

    async def pruned(self) -> Pruned:
        """How much history is gone."""
        return await self._checkpoints.store.figures()

    def claim_now(self) -> None:
        """Claim what is there at once, without waiting for more of it."""
        self.journal.claim_now()

    async def override(self) -> None:
        """The owner has been told the risk: sign again, in spite of a restore or a rival."""
        await self.journal.override()

    async def resume(self) -> None:
        """The owner has read why: vote again; after a breach, go on with the chains that are here
        and never halt for the same proof again. A repeat changes nothing."""

        def work(records: Records) -> None:
            records.mark_read()
            records.clear_state("breach", "forgot")

        await self._store.write(work)
        self._stopped = None
        await self.journal.resumed()

    # The task.

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve, sign, tell and audit until cancelled; started when peers can ask us. It may be
        run again after it has failed."""
        if not self._joined:
            self._joined = True
            self._network.serve(LEDGER_PROTOCOL, self.counter.handle)
            self._network.watch(self)
            await self._gossip.subscribe()
        self._client.spread(self._purse.figures.account.seq)
        async with trio.open_nursery() as nursery:
            for part in (
                self._client.run,
                self.journal.run,
                self.settler.run,
                self._payees.run,
                self._audit.run,
                self.compaction.run,
                self._gossip.run,
                self.twin.run,
            ):
                nursery.start_soon(part)
            task_status.started()

    def connected(self, peer: NodeId) -> None:
        """As Watcher.connected."""
        self._client.wake(peer)
        self._payees.wake(peer)
        self.settler.connected(peer)
        self._audit.connected(peer)

    def disconnected(self, peer: NodeId) -> None:
        """As Watcher.disconnected."""

    # Within.

    def noticed(self, stopped: Stopped | None, contradicted: Iterable[NodeId]) -> None:
        """Why this node has stopped, and who contradicted itself, as the store says."""
        self._stopped = stopped
        self._contradicted.update(contradicted)

    def _found(self, what: Signed | Breach) -> None:
        self.journal.found(what)

    def _heard(self, news: News) -> None:
        self._purse.heard(news)
        self._registry.heard(news)
        self.settler.heard(news)
        self._gossip.found(news)
        self._contradicted.update(
            proof.first.signer for proof in news.proofs if isinstance(proof, Contradiction)
        )
        if news.stopped is not None:
            self._stopped = news.stopped
            self.journal.halted = self.journal.halted or isinstance(news.stopped, Breach)
        if news.figures is not None:
            self.journal.heard(is_restored=news.figures.is_restored)
            self._payees.wake()
            self._client.spread(self._purse.figures.account.seq)


def _is_a_ledger(ledger: NodeLedger) -> Ledger:
    return ledger  # The type checker compares the two here.
