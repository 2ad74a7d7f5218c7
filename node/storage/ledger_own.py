"""What this node owes and is owed, and the one entry that it has signed: rows and queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from node.storage.ledger_chains import Chains, signed_decoded
from protocol.envelope import Opened, Signed
from protocol.ids import MessageId, NodeId
from protocol.ledger.account import Account
from protocol.ledger.certificate import Certified
from protocol.ledger.decoder import packed
from protocol.ledger.entry import PAY, Entry, Pay, sources_of
from protocol.units import Microcredits

NO_REFERENCE: Final = bytes(32)
QUEUE_SHOWN_MAX: Final = 100  # Of what waits, to people; it is counted whole.

State = Literal["breach", "forgot", "restored", "rival", "accepted"]
"""Why this node stopped. `restored`: this journal is older than its chain. `rival`: the id of an
entry with our signature in the place of ours; `accepted`: the one that the owner knows of."""


@dataclass(frozen=True, slots=True)
class Payment:
    """What we owe; `seq` is that of the own entry that pays it, None until one is signed."""

    number: int
    payee: NodeId
    amount: Microcredits
    reference: bytes
    seq: int | None


@dataclass(frozen=True, slots=True)
class IncomeRow:
    """A certified pay to us."""

    number: int
    id: MessageId
    payer: NodeId
    amount: Microcredits
    reference: bytes


@dataclass(frozen=True, slots=True)
class Figures:
    """Our own account at one moment. `moment` grows with each change of the store, so that of two
    the newer is known, in whichever order they arrive."""

    moment: int
    account: Account
    pending: int  # Microcredits in pays that are not certified, with their fees.
    claimable: int
    unclaimed: int  # How many incomes that is.
    signed: Signed | None  # The own entry that is not certified yet.
    queue: Sequence[Payment]  # The first that no entry pays yet.
    is_restored: bool  # Entries of ours have come that this journal did not sign.


class OwnChains(Chains):
    """Queries about our own account."""

    def pending(self) -> Signed | None:
        """The own entry that is signed and not certified."""
        row = self._row("SELECT entry FROM ledger_pending")
        return None if row is None else signed_decoded(row[0])

    def queued(self, limit: int) -> Sequence[Payment]:
        """Payments that no entry pays yet, the oldest first."""
        return self._payments("WHERE seq IS NULL ORDER BY number LIMIT ?", limit)

    def payment_at(self, seq: int) -> Payment | None:
        """The payment that an own entry makes."""
        return next(iter(self._payments("WHERE seq = ?", seq)), None)

    def untold(self, payee: NodeId, own: NodeId, limit: int) -> Sequence[Payment]:
        """Certified payments of which their payee has not heard."""
        return self._payments(
            "WHERE is_told = 0 AND payee = ? AND seq <= ? ORDER BY seq LIMIT ?",
            payee,
            self.account(own).seq,
            limit,
        )

    def payees_untold(self, own: NodeId, after: bytes, limit: int) -> Sequence[NodeId]:
        """Who has not heard of a certified payment, in the order of their keys, after one."""
        rows = self._walk(
            "SELECT DISTINCT payee FROM ledger_payments "
            "WHERE is_told = 0 AND seq <= ? AND payee > ? ORDER BY payee LIMIT ?",
            self.account(own).seq,
            after,
            limit,
        )
        return [row[0] for row in rows]

    def unclaimed(self, limit: int) -> Sequence[IncomeRow]:
        """Incomes that no own entry has claimed, the oldest first."""
        return self._incomes("WHERE claimed IS NULL ORDER BY number LIMIT ?", limit)

    def incomes_last(self, limit: int) -> Sequence[IncomeRow]:
        """The last incomes and all that are not claimed, the oldest first."""
        return self._incomes(
            "WHERE claimed IS NULL OR number > "
            "(SELECT coalesce(max(number), 0) FROM ledger_incomes) - ? ORDER BY number",
            limit,
        )

    def figures(self, own: NodeId) -> Figures:
        """Our own account now."""
        account = self.account(own)
        unclaimed, claimable = self._sum("SELECT amount FROM ledger_incomes WHERE claimed IS NULL")
        pays, amounts = self._sum(
            "SELECT amount FROM ledger_payments WHERE seq IS NULL OR seq > ?", account.seq
        )
        pending = amounts + pays * self.charter.entry_fee
        moment = self._connection.total_changes
        queue = self.queued(QUEUE_SHOWN_MAX)
        is_restored = self.state("restored") is not None
        return Figures(
            moment, account, pending, claimable, unclaimed, self.pending(), queue, is_restored
        )

    def counterparties(self, limit: int) -> Sequence[NodeId]:
        """Whom we have paid or been paid by."""
        rows = self._walk(
            "SELECT payee FROM ledger_payments UNION SELECT payer FROM ledger_incomes LIMIT ?",
            limit,
        )
        return [row[0] for row in rows]

    def _payments(self, condition: str, *values: Any) -> Sequence[Payment]:
        rows = self._walk(
            f"SELECT number, payee, amount, reference, seq FROM ledger_payments {condition}",
            *values,
        )
        return [Payment(*row) for row in rows]

    def _incomes(self, condition: str, *values: Any) -> Sequence[IncomeRow]:
        rows = self._walk(
            f"SELECT number, id, payer, amount, reference FROM ledger_incomes {condition}", *values
        )
        return [IncomeRow(*row) for row in rows]


class OwnRecords(OwnChains):
    """Changes of our own rows; each is part of one change of the database."""

    def set_state(self, name: State, value: bytes) -> None:
        """Keep a value under a name, in the place of any before."""
        self._change("INSERT OR REPLACE INTO ledger_state VALUES (?, ?)", name, value)

    def clear_state(self, *names: State) -> None:
        """Forget what is kept under these names."""
        for name in names:
            self._change("DELETE FROM ledger_state WHERE name = ?", name)

    def owe(self, payee: NodeId, amount: int, reference: bytes) -> bool:
        """Queue a payment. False where one with this payee and non-zero reference is there."""
        return self._change(
            "INSERT INTO ledger_payments (payee, amount, reference, seq, is_told) "
            "VALUES (?, ?, ?, NULL, 0) ON CONFLICT DO NOTHING",
            payee,
            amount,
            reference,
        )

    def sign(self, signed: Signed, entry: Entry, payment: int | None) -> None:
        """Keep an own entry before it leaves; `payment` is the number of what it pays."""
        assert self.pending() is None, "one entry at a time"
        self._change("INSERT INTO ledger_pending VALUES (1, ?, ?)", entry.seq, packed(signed))
        if payment is not None:
            self._change("UPDATE ledger_payments SET seq = ? WHERE number = ?", entry.seq, payment)

    def adopt(self, signed: Signed, opened: Opened[Entry]) -> None:
        """Take an entry of ours, that only witnesses remembered, for the pending one."""
        self._unsign(opened.value.seq)
        self._change(
            "INSERT INTO ledger_pending VALUES (1, ?, ?)", opened.value.seq, packed(signed)
        )
        self._link(opened.value)

    def follow_own(self, opened: Opened[Entry]) -> None:
        """An entry of our own account is certified, whether this journal had signed it or not."""
        entry = opened.value
        pending = self.pending()
        if pending is None or pending.id != opened.id:
            # Whichever way it came: a journal that has not signed it may lack more than this.
            self.set_state("restored", opened.id)
            self._unsign(entry.seq)
        self._change("DELETE FROM ledger_pending")
        self._link(entry)
        for source in sources_of(entry):
            if source.kind == PAY:
                self._change(
                    "UPDATE ledger_incomes SET claimed = ? WHERE id = ?", entry.seq, source.id
                )

    def told(self, payments: Sequence[Payment]) -> None:
        """Their payee has heard of these."""
        for payment in payments:
            self._change("UPDATE ledger_payments SET is_told = 1 WHERE number = ?", payment.number)

    def income(self, certified: Certified, opened: Opened[Entry], own: NodeId) -> IncomeRow | None:
        """Keep a certified pay to us, with its certificate; None where it is known."""
        entry = opened.value
        assert isinstance(entry.body, Pay)
        claimed = self.claimed_at(own, (PAY, opened.id))
        if not self._change(
            "INSERT INTO ledger_incomes (id, payer, amount, reference, claimed) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            opened.id,
            entry.account,
            entry.body.amount,
            entry.body.reference,
            claimed,
        ):
            return None
        self.show(certified, opened)
        return self._incomes("WHERE id = ?", opened.id)[0]

    def show(self, certified: Certified, opened: Opened[Entry]) -> None:
        """Keep a certified entry whose place in its chain may not have come yet."""
        if self.certified_by_id(opened.id) is None:
            self._change(
                "INSERT INTO ledger_shown VALUES (?, ?, ?, ?)",
                opened.id,
                opened.value.account,
                opened.value.seq,
                packed(certified),
            )

    def _unsign(self, seq: int) -> None:
        """The signed entry will never count: what it was to pay is owed still."""
        self._change("DELETE FROM ledger_pending")
        self._change("UPDATE ledger_payments SET seq = NULL WHERE seq = ?", seq)

    def _link(self, entry: Entry) -> None:
        """Find what an own entry pays among what is owed, so that nothing is paid twice after a
        restore; what this store does not know of is added to it."""
        body = entry.body
        if not isinstance(body, Pay) or self.payment_at(entry.seq) is not None:
            return
        if self._change(
            "UPDATE ledger_payments SET seq = ? WHERE number = (SELECT number FROM "
            "ledger_payments WHERE seq IS NULL AND payee = ? AND reference = ? "
            "AND (amount = ? OR reference != ?) ORDER BY number LIMIT 1)",
            entry.seq,
            body.to,
            body.reference,
            body.amount,
            NO_REFERENCE,
        ):
            return
        self._change(
            "INSERT INTO ledger_payments (payee, amount, reference, seq, is_told) "
            "VALUES (?, ?, ?, ?, 0) ON CONFLICT DO NOTHING",
            body.to,
            body.amount,
            body.reference,
            entry.seq,
        )

    def _change(self, statement: str, *values: Any) -> bool:
        """Whether the statement changed anything."""
        return self._connection.execute(statement, values).rowcount > 0
