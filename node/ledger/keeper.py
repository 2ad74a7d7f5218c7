"""Takes certified entries and proofs in: each judged and stored, with all that follows, at once.

Judgement and storing are one change of the store, so that nothing can come between them. Changes
that wait at the same time share one wait for the disk, and one that stores nothing costs none.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import trio

from node.ledger.base import ChannelFacts, Income
from node.storage.ledger import Brought, LedgerStore, Records
from node.storage.ledger_chains import Chains
from node.storage.ledger_channels import ChannelRow
from node.storage.ledger_own import Figures, IncomeRow
from node.telemetry.logs import Log
from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.identity import digest
from protocol.ids import MessageId, NodeId, short
from protocol.ledger.certificate import Certified, certified_checked
from protocol.ledger.charter import Charter
from protocol.ledger.decoder import packed
from protocol.ledger.entry import PAY, Entry, Open, Pay, TopUp, entry_read
from protocol.ledger.proof import Breach, Contradiction, breach_checked, contradiction_checked
from protocol.ledger.statement import Settlement
from protocol.ledger.witness import (
    Applied,
    Final,
    Forgot,
    Halted,
    Known,
    Missing,
    Outcome,
    Stopped,
    VotesLost,
    Witness,
    halted_error,
)

BULK_ENTRIES = 64  # In one change: 20 ms of signatures, during which no other is written.

Steps = Callable[[str], Awaitable[None]]
"""Told after each step whose crash must be harmless, by its name; tests crash there."""

_log = Log("ledger")


async def no_steps(_name: str) -> None:
    """In a running node nobody waits at a step."""
    await trio.lowlevel.checkpoint()


@dataclass(frozen=True, slots=True)
class News:
    """What a change of the store has brought."""

    figures: Figures | None = None
    incomes: Sequence[Income] = ()
    proofs: Sequence[Contradiction | Breach] = ()
    stopped: Stopped | None = None
    entries: int = 0
    channels: Sequence[ChannelFacts] = ()  # Of ours, that may have changed.
    is_settlement: bool = False


class Keeper:
    """The one way by which entries and proofs of others get into the store."""

    def __init__(self, charter: Charter, node: NodeId, store: LedgerStore, steps: Steps) -> None:
        self.charter, self.node, self.store, self.steps = charter, node, store, steps
        self.witness = Witness(charter, node)
        self.watchers: list[Callable[[News], None]] = []
        self.signatures_checked = 0
        self.faults: Counter[Code] = Counter()

    def tell(self, news: News) -> None:
        """Tell the other parts of this ledger."""
        for watcher in self.watchers:
            watcher(news)

    async def take(self, certified: Certified) -> Outcome:
        """Take one certified entry, from whomever. When this returns Applied or Known it is on
        disk, and when it is a pay to us or funds a channel to us that is, whatever the outcome.

        Raises RemoteError: HALTED where this node has stopped at a breach, and what
        `certified_checked` raises. LocalError UNAVAILABLE when the disk fails.
        """
        outcome, signatures, news = await self.store.write(
            lambda records: self._taken(records, certified)
        )
        self.signatures_checked += signatures
        await self._told(news)
        return outcome

    async def take_all(self, entries: Sequence[Certified]) -> int:
        """Take many entries of one chain that follow each other, in few changes of the store.
        How many were new. Raises as `take`, after what came before the fault is stored."""
        taken = 0
        for start in range(0, len(entries), BULK_ENTRIES):
            part = entries[start : start + BULK_ENTRIES]
            # Signatures are checked beside the writer, so that votes and others' entries go on.
            held = await self.store.read(partial(self._held, part))
            new, signatures, news, error = await self.store.write(
                partial(self._stored_all, entries=part, held=held)
            )
            taken += new
            self.signatures_checked += signatures
            await self._told(news)
            if error is not None:
                raise error
        return taken

    async def take_settlement(
        self, settlement: Settlement, shown: Certified, teller: NodeId | None = None
    ) -> Final | Known | Halted:
        """Take how a channel was settled, from whomever; `shown` is the channel's open. When this
        returns it is on disk, and so is our share where the channel is ours. `teller` need not be
        told of it any more.

        Raises RemoteError as `Follower.on_settlement`; LocalError UNAVAILABLE when the disk fails.
        """
        outcome, news = await self.store.write(
            lambda records: self._settled(records, settlement, shown, teller)
        )
        await self._told(news)
        return outcome

    async def stopped(self, stopped: Stopped) -> None:
        """The store says since just now that this node goes no further."""
        await self._told(News(stopped=stopped))

    async def take_claimed(
        self, settlements: Sequence[Settlement], entries: Sequence[Certified]
    ) -> None:
        """Keep the settlements that came with a claim, whose opens came with it or are here, so
        that this node can show them. Raises LocalError UNAVAILABLE when the disk fails."""
        opens = {certified.entry.id: certified for certified in entries}
        news = await self.store.write(lambda it: self._claimed(it, settlements, opens))
        await self._told(news)

    async def keep_proof(self, proof: Contradiction | Breach) -> bool:
        """Check and keep what somebody shows as a proof; a breach halts this ledger. Whether it
        is new. Raises RemoteError where it proves nothing."""
        if isinstance(proof, Breach):
            breach_checked(proof, self.charter)
            news = await self.store.write(lambda records: self._halted(records, proof))
        else:
            contradiction_checked(proof, self.charter)
            news = await self.store.write(
                lambda records: News(proofs=[proof] if records.keep_proof(proof) else [])
            )
        await self._told(news)
        return bool(news.proofs)

    # Inside the store.

    def _held(self, entries: Iterable[Certified], chains: Chains) -> int:
        """How many of these, from the first on, are known or hold by all their signatures."""
        held = 0
        for certified in entries:
            try:
                if not chains.is_final(certified.entry.id):
                    certified_checked(certified, self.charter)
            except RemoteError:
                break
            held += 1
        return held

    def _taken(
        self, records: Records, certified: Certified, *, is_checked: bool = False
    ) -> tuple[Outcome, int, News]:
        """Judge and store one entry; the outcome, the signatures checked and what it brought."""
        outcome, signatures = self._outcome(records, certified, is_checked=is_checked)
        news = News()
        if isinstance(outcome, Forgot):
            # With this stored, nothing keeps the entry itself from being taken.
            news = self._stored(records, certified, outcome)
            outcome, _ = self._outcome(records, certified)
        return outcome, signatures, _both(news, self._stored(records, certified, outcome))

    def _outcome(
        self, chains: Chains, certified: Certified, *, is_checked: bool = False
    ) -> tuple[Outcome, int]:
        """The machine's word, and how many signatures it has checked for it."""
        opened = entry_read(certified.entry, self.charter.network)
        if chains.is_final(opened.id) and chains.stopped() is None:
            return Known(), 0  # Shown again with whatever seals: nothing is to be checked for it.
        outcome = self.witness.on_certificate(certified, chains, is_checked=is_checked)
        signatures = 1 + len(certified.certificate.seals)
        if isinstance(outcome, Halted) and self._is_old(chains, outcome.breach):
            outcome = Known()  # The owner has read this proof, and our own chain stands.
        return outcome, signatures

    def _is_old(self, chains: Chains, breach: Breach) -> bool:
        return chains.is_read(digest(packed(breach)))

    def _stored(self, records: Records, certified: Certified, outcome: Outcome) -> News:
        match outcome:
            case Halted(breach):
                return self._halted(records, breach)
            case Forgot():
                records.stop(certified)
                return News(stopped=certified)
            case Applied():
                brought = records.apply(outcome, self.node)
                is_ours = outcome.opened.value.account == self.node
                proofs = [] if outcome.contradiction is None else [outcome.contradiction]
                news = self._news(records, brought, is_ours=is_ours)
                return replace(news, proofs=proofs, entries=1)
            case _:
                opened = entry_read(certified.entry, self.charter.network)
                # What was pruned was taken long ago, and its certificate was not looked at now.
                is_pruned = records.is_final(opened.id) and not records.certified_by_id(opened.id)
                if is_pruned or not self._concerns_us(records, opened):
                    return News()
                records.show(certified, opened)
                return self._news(records, records.brought(opened, self.node), is_ours=False)

    def _concerns_us(self, chains: Chains, opened: Opened[Entry]) -> bool:
        """Whether a certified entry gives us something, or may, before its place has come."""
        if opened.value.fee and self.charter.fee_owner(opened.id) == self.node:
            return True
        if opened.value.account == self.node:  # From before a checkpoint: it may fund a channel.
            return chains.is_final(opened.id)
        match opened.value.body:
            case Pay(to):
                return to == self.node
            case Open(payee):
                return payee == self.node
            case TopUp(channel):
                shown = chains.certified_by_id(channel)
                body = shown and entry_read(shown.entry, self.charter.network).value.body
                return isinstance(body, Open) and body.payee == self.node
            case _:
                return False

    def _news(self, records: Records, brought: Brought, *, is_ours: bool) -> News:
        incomes = [row for row in brought.incomes if row is not None]
        rows = [records.channel(channel) for channel in brought.channels]
        has_news = incomes or rows or is_ours
        return News(
            figures=records.figures(self.node) if has_news else None,
            incomes=[income_told(row) for row in incomes if row.kind == PAY],
            channels=[channel_told(row) for row in rows if row is not None],
        )

    def _settled(
        self,
        records: Records,
        settlement: Settlement,
        shown: Certified,
        teller: NodeId | None,
    ) -> tuple[Final | Known | Halted, News]:
        outcome = self.witness.on_settlement(settlement, shown, records)
        if isinstance(outcome, Halted):
            if self._is_old(records, outcome.breach):
                return Known(), News()
            return outcome, self._halted(records, outcome.breach)
        opened = entry_read(shown.entry, self.charter.network)
        body, parties = opened.value.body, {opened.value.account}
        if isinstance(body, Open):
            parties.add(body.payee)
        news = News()
        if isinstance(outcome, Final):
            self.signatures_checked += 1 + 2 * self.charter.quorum
            records.settle(settlement, self.node)
            if outcome.is_forgotten:
                records.stop(VotesLost())
                news = News(stopped=VotesLost())
        if self.node in parties:
            if isinstance(outcome, Final):
                records.show(shown, opened)
                brought = records.brought(opened, self.node)
                news = _both(news, self._news(records, brought, is_ours=False))
            if teller in parties:
                records.told_settlement(settlement.channel)
        return outcome, replace(news, is_settlement=isinstance(outcome, Final))

    def _claimed(
        self,
        records: Records,
        settlements: Sequence[Settlement],
        opens: Mapping[MessageId, Certified],
    ) -> News:
        news = News()
        for settlement in settlements:
            shown = opens.get(settlement.channel) or records.certified_by_id(settlement.channel)
            if shown is None:
                continue
            try:
                _, brought = self._settled(records, settlement, shown, None)
            except RemoteError:
                continue  # What no source needs has not been checked, and may be anything.
            news = _both(news, brought)
        return news

    def _halted(self, records: Records, breach: Breach) -> News:
        if self._is_old(records, breach):
            return News()
        is_new = records.keep_proof(breach)
        records.stop(breach)
        return News(proofs=[breach] if is_new else [], stopped=breach)

    def _stored_all(
        self, records: Records, entries: Iterable[Certified], held: int
    ) -> tuple[int, int, News, RemoteError | None]:
        """A fault is returned and not raised: what came before it is good, and stays. The
        signatures of the first `held` were checked."""
        taken, signatures, news, error = 0, 0, News(), None
        for place, certified in enumerate(entries):
            try:
                outcome, checked, brought = self._taken(records, certified, is_checked=place < held)
            except RemoteError as fault:
                error = fault
                break
            signatures += checked
            news = _both(news, brought)
            taken += isinstance(outcome, Applied)
            if isinstance(outcome, Halted):
                error = halted_error()
            if isinstance(outcome, Halted | Missing):
                break
        return taken, signatures, news, error

    async def _told(self, news: News) -> None:
        for proof in news.proofs:
            kind = "breach" if isinstance(proof, Breach) else "contradiction"
            _log.warning("ledger.proof_found", kind=kind)
        self.tell(news)
        if news.stopped is not None:
            _log.error("ledger.stopped", node=short(self.node))
            await self.steps("stop.stored")
        if news.incomes:
            await self.steps("income.stored")
        if news.is_settlement:
            await self.steps("settlement.stored")
        elif news.channels:
            await self.steps("channel.stored")


def income_told(row: IncomeRow) -> Income:
    """An income as the rest of the node knows it."""
    return Income(row.id, row.payer, row.amount, row.reference)


def channel_told(row: ChannelRow) -> ChannelFacts:
    """A channel as the rest of the node knows it."""
    return ChannelFacts(
        id=row.id,
        payer=row.payer,
        payee=row.payee,
        funding=row.funding,
        topups=row.topups,
        expiry_ms=row.expiry_ms,
        settled=row.settled,
        is_claimed=row.is_done,
    )


def _both(one: News, other: News) -> News:
    return News(
        other.figures or one.figures,
        [*one.incomes, *other.incomes],
        [*one.proofs, *other.proofs],
        one.stopped or other.stopped,
        one.entries + other.entries,
        [*one.channels, *other.channels],
        one.is_settlement or other.is_settlement,
    )
