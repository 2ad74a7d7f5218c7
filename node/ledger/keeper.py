"""Takes certified entries and proofs in: each judged and stored, with all that follows, at once.

Judgement and storing are one change of the store, so that nothing can come between them. Changes
that wait at the same time share one wait for the disk, and one that stores nothing costs none.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from node.ledger.base import Income
from node.storage.ledger import LedgerStore, Records
from node.storage.ledger_chains import Chains
from node.storage.ledger_own import Figures, IncomeRow
from node.telemetry.logs import Log
from protocol.errors import Code, RemoteError
from protocol.identity import digest
from protocol.ids import NodeId, short
from protocol.ledger.certificate import Certified
from protocol.ledger.charter import Charter
from protocol.ledger.decoder import packed
from protocol.ledger.entry import Pay, entry_read
from protocol.ledger.proof import Breach, Contradiction, breach_checked, contradiction_checked
from protocol.ledger.witness import (
    Applied,
    Forgot,
    Halted,
    Known,
    Missing,
    Outcome,
    Witness,
    halted_error,
)

BULK_ENTRIES: Final = 64  # In one change: 20 ms of signatures, during which no other is written.

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
    stopped: Breach | Certified | None = None
    entries: int = 0


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
        disk, and when it is a pay to us that income is, whatever the outcome.

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
            new, signatures, news, error = await self.store.write(
                partial(self._stored_all, entries=part)
            )
            taken += new
            self.signatures_checked += signatures
            await self._told(news)
            if error is not None:
                raise error
        return taken

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

    def _taken(self, records: Records, certified: Certified) -> tuple[Outcome, int, News]:
        """Judge and store one entry; the outcome, the signatures checked and what it brought."""
        outcome, signatures = self._outcome(records, certified)
        news = News()
        if isinstance(outcome, Forgot):
            # With this stored, nothing keeps the entry itself from being taken.
            news = self._stored(records, certified, outcome)
            outcome, _ = self._outcome(records, certified)
        return outcome, signatures, _both(news, self._stored(records, certified, outcome))

    def _outcome(self, chains: Chains, certified: Certified) -> tuple[Outcome, int]:
        """The machine's word, and how many signatures it has checked for it."""
        opened = entry_read(certified.entry, self.charter.network)
        if chains.is_final(opened.id) and chains.stopped() is None:
            return Known(), 0  # Shown again with whatever seals: nothing is to be checked for it.
        outcome = self.witness.on_certificate(certified, chains)
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
                income = records.apply(outcome, self.node)
                is_ours = outcome.opened.value.account == self.node
                proofs = [] if outcome.contradiction is None else [outcome.contradiction]
                entries = 1
            case _:
                opened = entry_read(certified.entry, self.charter.network)
                body = opened.value.body
                pays_us = isinstance(body, Pay) and body.to == self.node
                income = records.income(certified, opened, self.node) if pays_us else None
                is_ours, proofs, entries = False, [], 0
        incomes = [] if income is None else [income_told(income)]
        figures = records.figures(self.node) if incomes or is_ours else None
        return News(figures, incomes, proofs, entries=entries)

    def _halted(self, records: Records, breach: Breach) -> News:
        if self._is_old(records, breach):
            return News()
        is_new = records.keep_proof(breach)
        records.stop(breach)
        return News(proofs=[breach] if is_new else [], stopped=breach)

    def _stored_all(
        self, records: Records, entries: Iterable[Certified]
    ) -> tuple[int, int, News, RemoteError | None]:
        """A fault is returned and not raised: what came before it is good, and stays."""
        taken, signatures, news, error = 0, 0, News(), None
        for certified in entries:
            try:
                outcome, checked, brought = self._taken(records, certified)
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


def income_told(row: IncomeRow) -> Income:
    """An income as the rest of the node knows it."""
    return Income(row.id, row.payer, row.amount, row.reference)


def _both(one: News, other: News) -> News:
    return News(
        other.figures or one.figures,
        [*one.incomes, *other.incomes],
        [*one.proofs, *other.proofs],
        one.stopped or other.stopped,
        one.entries + other.entries,
    )
