"""The ledger of a running node: its parts put together, and what the node asks of it."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

import trio

from node.ledger.audit import Audit
from node.ledger.audit import Figures as AuditFigures
from node.ledger.audit import Settings as AuditSettings
from node.ledger.base import Income, Ledger, Proven, Standing, Waiting
from node.ledger.client import Callbacks, Client
from node.ledger.counter import LedgerCounter
from node.ledger.gossip import Gossip
from node.ledger.journal import Journal
from node.ledger.journal import Settings as JournalSettings
from node.ledger.keeper import Keeper, News, Steps, income_told, no_steps
from node.ledger.lines import Connect, Lines
from node.ledger.payees import Payees
from node.ledger.purse import Purse
from node.ledger.sync import Sync
from node.ledger.views import Views
from node.ledger.witness import Desk
from node.network.base import Network, NetworkError
from node.network.quota import Quotas
from node.storage.database import Database
from node.storage.ledger import LedgerStore, Records
from node.storage.ledger_own import NO_REFERENCE, Figures, OwnChains
from protocol.envelope import Signed
from protocol.errors import AyniError, Code, LocalError
from protocol.identity import Identity
from protocol.ids import NodeId
from protocol.ledger.certificate import Certified, certified_checked
from protocol.ledger.charter import Charter
from protocol.ledger.entry import Pay, entry_read, sources_of
from protocol.ledger.proof import Breach, Contradiction
from protocol.ledger.sync import LEDGER_PROTOCOL, AskHeads, Entries
from protocol.limits import INSTANCE_BYTES
from protocol.units import Microcredits, credits_text

INCOMES_TOLD_MAX: Final = 4096  # Of those claimed long ago; whoever watches has booked the rest.
PROVEN_MAX: Final = 4096
PROVEN_SECONDS: Final = 60.0
PROVEN_SECONDS_MAX: Final = 5.0  # A peer that does not answer holds nobody up for longer.


@dataclass(frozen=True, slots=True)
class Settings:
    """The pace of the parts."""

    journal: JournalSettings = field(default_factory=JournalSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the ledger shares with the rest of the node. `quotas` are those that the network was
    opened with; `connect` makes a connection to a node or raises NetworkError."""

    network: Network
    quotas: Quotas
    database: Database
    connect: Connect
    random_bytes: Callable[[int], bytes]
    steps: Steps = no_steps


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

    def work(chains: OwnChains) -> tuple[Figures, list[Income], Certified | Breach | None]:
        incomes = [income_told(row) for row in chains.incomes_last(INCOMES_TOLD_MAX)]
        return chains.figures(identity.node), incomes, chains.stopped()

    figures, incomes, stopped = await store.read(work)
    contradicted = await store.read(lambda chains: chains.contradicted())
    ledger = NodeLedger(
        charter, identity, store, around, Purse(figures, incomes), settings=settings or Settings()
    )
    await ledger.journal.load()
    ledger.noticed(stopped, contradicted)
    return ledger


class NodeLedger:
    """Implements `node.ledger.base.Ledger`; made by open_ledger. `views` is for people."""

    def __init__(
        self,
        charter: Charter,
        identity: Identity,
        store: LedgerStore,
        around: Surroundings,
        purse: Purse,
        *,
        settings: Settings,
    ) -> None:
        assert around.network.node == identity.node
        self._charter, self._node, self._network = charter, identity.node, around.network
        self._store, self._purse, self._steps = store, purse, around.steps
        self.views = Views(store, charter, identity.node)
        self._keeper = Keeper(charter, identity.node, store, around.steps)
        desk = Desk(identity, self._keeper, lambda: round(trio.current_time() * 1000))
        # What takes long, such as pulling a chain, must not hold up a vote: a stream for each.
        hurried = Lines(around.network, around.connect)
        self._slow = Lines(around.network, around.connect)
        self._client = Client(
            identity.node,
            desk,
            store,
            charter,
            hurried,
            instance=around.random_bytes(INSTANCE_BYTES),
            callbacks=Callbacks(self._found, self._found),
        )
        sync = Sync(around.network, around.quotas, self._keeper, self._slow)
        self.journal = Journal(
            identity, self._keeper, self._client, sync, purse, settings=settings.journal
        )
        self._payees = Payees(self._keeper, hurried)
        self._audit = Audit(around.network, self._keeper, sync, settings.audit)
        self._gossip = Gossip(around.network, around.quotas, self._keeper)
        self.counter = LedgerCounter(around.network, around.quotas, desk)
        self._stopped: Certified | Breach | None = None
        self._heads: OrderedDict[NodeId, tuple[Proven, float]] = OrderedDict()
        self._joined = False
        self._contradicted: set[NodeId] = set()
        self._keeper.watchers += [self._heard]
        purse.when_short = self.claim_now

    # As `node.ledger.base.Ledger`.

    @property
    def ready(self) -> bool:
        """As `Ledger.ready`."""
        return self.journal.may_sign

    @property
    def trouble(self) -> str:
        """As `Ledger.trouble`."""
        if isinstance(self._stopped, Breach) or self.journal.halted:
            return (
                "This ledger has halted: more witnesses were dishonest than it can bear. Nothing "
                "is signed or accepted; `ayni ledger proofs` shows the proof."
            )
        if self.journal.rival:
            return (
                "Another daemon signs with this node's key, so nothing new is signed here. Stop "
                "the other one, then say `ayni ledger resume --override`."
            )
        if self.journal.restored:
            answered, witnesses = len(self._client.views), len(self._charter.witnesses)
            return (
                "This node's ledger is older than what its witnesses have seen, as after a backup "
                "was restored, or when another daemon uses the same key. It signs nothing until "
                f"all have answered; {answered} of {witnesses} have. "
                "`ayni ledger resume --override` goes on without them: should one of them know of "
                "an entry that the others do not, this account can lock itself for ever."
            )
        if self._stopped is not None:
            return (
                "This witness has found a vote of its own that it does not remember, as after an "
                "old copy of its data was restored. It casts no votes until you say `ayni ledger "
                "resume`."
            )
        if not self._charter.witnesses:
            return "This network has no witnesses, so no payment in it can become final."
        return ""

    def standing(self) -> Standing:
        """As `Ledger.standing`."""
        return self._purse.standing()

    def waiting(self) -> Sequence[Waiting]:
        """As `Ledger.waiting`: the entry on its way, then what is owed and not yet signed, with
        seq 0."""
        quorum = self._charter.quorum
        queued = [
            Waiting(0, "pay", one.amount, one.payee, one.reference, 0, quorum, ())
            for one in self._purse.figures.queue
        ]
        signed = self._purse.figures.signed
        return queued if signed is None else [self._on_its_way(signed), *queued]

    def reserve(self, amount: int) -> AbstractContextManager[None]:
        """As `Ledger.reserve`."""
        return self._purse.reserve(amount)

    async def pay(self, to: NodeId, amount: int, reference: bytes) -> None:
        """As `Ledger.pay`."""
        charter = self._charter
        if to == self._node or not charter.pay_min <= amount <= charter.supply:
            raise LocalError(
                Code.BAD_REQUEST,
                f"A payment goes to another node and is of {credits_text(charter.pay_min)} credits "
                f"or more, of {credits_text(charter.supply)} that there are; asked for was one of "
                f"{credits_text(amount)}.",
            )
        is_free = reference == NO_REFERENCE

        def work(records: Records) -> Figures:
            records.owe(to, amount, reference)
            return records.figures(self._node)

        with self.reserve(amount + charter.entry_fee) if is_free else nullcontext():
            self._purse.renew(await self._store.write(work))
        await self._steps("pay.queued")
        self.journal.wake()

    def watch_income(self, watcher: Callable[[Income], None]) -> None:
        """As `Ledger.watch_income`."""
        self._purse.watch(watcher)

    def contradicted(self, account: NodeId) -> bool:
        """As `Ledger.contradicted`."""
        return account in self._contradicted

    async def proven(self, account: NodeId) -> Proven:
        """As `Ledger.proven`."""
        known, asked_at = self._heads.get(account, (None, float("-inf")))
        try:
            stored = await self._store.read(lambda chains: chains.account(account))
            best = Proven(account, stored.seq, Microcredits(stored.balance))
            if known is not None and known.seq > best.seq:
                best = known
            is_old = trio.current_time() - asked_at >= PROVEN_SECONDS
            if is_old and account in self._network.peers:
                asked_at = trio.current_time()
                best = await self._asked(account, best)
        except AyniError:
            best = known or Proven(
                account, 0, Microcredits(self._charter.allocations.get(account, 0))
            )
        self._heads[account] = best, asked_at
        self._heads.move_to_end(account)
        if len(self._heads) > PROVEN_MAX:
            self._heads.popitem(last=False)
        return best

    # For people.

    @property
    def audited(self) -> AuditFigures:
        """What the continuous audit has done since the start."""
        return self._audit.figures

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
                self._payees.run,
                self._audit.run,
                self._gossip.run,
            ):
                nursery.start_soon(part)
            task_status.started()

    def connected(self, peer: NodeId) -> None:
        """As Watcher.connected."""
        self._client.wake(peer)
        self._payees.wake(peer)
        self._audit.connected(peer)

    def disconnected(self, peer: NodeId) -> None:
        """As Watcher.disconnected."""

    # Within.

    def noticed(self, stopped: Certified | Breach | None, contradicted: Iterable[NodeId]) -> None:
        """Why this node has stopped, and who contradicted itself, as the store says."""
        self._stopped = stopped
        self._contradicted.update(contradicted)

    def _found(self, what: Signed | Breach) -> None:
        self.journal.found(what)

    def _heard(self, news: News) -> None:
        self._purse.heard(news)
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

    def _on_its_way(self, signed: Signed) -> Waiting:
        at_hand = self._client.round
        seals = {} if at_hand is None or at_hand.entry.id != signed.id else at_hand.seals
        entry = entry_read(signed, self._charter.network).value
        pay = entry.body if isinstance(entry.body, Pay) else None
        claimed = sum(source.amount for source in sources_of(entry))
        return Waiting(
            seq=entry.seq,
            kind="claim" if pay is None else "pay",
            amount=Microcredits(claimed if pay is None else pay.amount),
            to=None if pay is None else pay.to,
            reference=NO_REFERENCE if pay is None else pay.reference,
            seals=len(seals),
            quorum=self._charter.quorum,
            silent=tuple(
                witness
                for number, witness in enumerate(self._charter.witnesses)
                if number not in seals
            ),
        )

    async def _asked(self, account: NodeId, best: Proven) -> Proven:
        """What an account shows of itself, if it is newer. Raises RemoteError."""
        try:
            with trio.move_on_after(PROVEN_SECONDS_MAX):
                answer = await self._slow.ask(account, AskHeads((account,)))
                for certified in answer.entries if isinstance(answer, Entries) else ():
                    entry = certified_checked(certified, self._charter).value
                    if entry.account == account and entry.seq > best.seq:
                        best = Proven(account, entry.seq, Microcredits(entry.balance))
        except NetworkError:
            pass  # What is known stands.
        return best


def _is_a_ledger(ledger: NodeLedger) -> Ledger:
    return ledger  # The type checker compares the two here.
