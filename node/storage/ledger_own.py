"""What this node owes and is owed, and the one entry that it has signed: rows and queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from node.storage.ledger_chains import signed_decoded
from node.storage.ledger_channels import ChannelChains, ChannelRecords
from protocol.envelope import Opened, Signed
from protocol.ids import MessageId, NodeId
from protocol.ledger.account import Account
from protocol.ledger.certificate import Certified
from protocol.ledger.decoder import packed
from protocol.ledger.entry import FEE, PAY, Body, Entry, Open, Pay, Source, TopUp, sources_of
from protocol.units import Microcredits

NO_REFERENCE: Final = bytes(32)
QUEUE_SHOWN_MAX: Final = 100  # Of what waits, to people; it is counted whole.

State = Literal["breach", "forgot", "restored", "rival", "accepted"]
"""Why this node stopped. `restored`: this journal is older than its chain. `rival`: the id of an
entry with our signature in the place of ours; `accepted`: the one that the owner knows of."""


Kind = Literal["pay", "open", "topup"]


@dataclass(frozen=True, slots=True)
class Payment:
    """What is to leave our balance: a pay that we owe, the open or a top-up of a channel. `seq` is
    that of the own entry that does it, None until one is signed."""

    number: int
    kind: Kind
    payee: NodeId
    amount: Microcredits
    reference: bytes  # Zeros but for a pay.
    expiry_ms: int  # Of an open.
    channel: MessageId | None  # Of a top-up.
    seq: int | None

    @property
    def body(self) -> Body:
        """What the entry says."""
        if self.kind == "pay":
            return Pay(self.payee, self.amount, self.reference)
        if self.kind == "open":
            return Open(self.payee, self.amount, self.expiry_ms)
        assert self.channel is not None
        return TopUp(self.channel, self.amount)


@dataclass(frozen=True, slots=True)
class IncomeRow:
    """What certificates set aside for us: a pay, our share of a channel, the fee of an entry."""

    number: int
    kind: str  # As a claim names it.
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
    pending: int  # Microcredits in pays, opens and top-ups not certified yet, with their fees.
    claimable: int
    unclaimed: int  # How many incomes that is.
    signed: Signed | None  # The own entry that is not certified yet.
    queue: Sequence[Payment]  # The first that no entry pays yet.
    is_restored: bool  # Entries of ours have come that this journal did not sign.


class OwnChains(ChannelChains):
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
        """Who has not heard of a certified payment or of a settlement, in the order of their keys,
        after one."""
        rows = self._walk(
            "SELECT payee FROM ledger_payments WHERE is_told = 0 AND seq <= ? AND payee > ? "
            "UNION SELECT CASE payer WHEN ? THEN payee ELSE payer END AS other "
            "FROM ledger_own_channels AS own WHERE is_told = 0 AND other > ? "
            "AND EXISTS (SELECT 1 FROM ledger_settlements WHERE channel = own.id) "
            "ORDER BY 1 LIMIT ?",
            self.account(own).seq,
            after,
            own,
            after,
            limit,
        )
        return [row[0] for row in rows]

    def unclaimed(self, limit: int) -> Sequence[IncomeRow]:
        """Incomes that no own entry has claimed, the oldest first."""
        return self._incomes("WHERE claimed IS NULL ORDER BY number LIMIT ?", limit)

    def pays_last(self, limit: int) -> Sequence[IncomeRow]:
        """The last pays to us and all that are not claimed, the oldest first."""
        return self._incomes(
            "WHERE kind = 'pay' AND (claimed IS NULL OR number > "
            "(SELECT coalesce(max(number), 0) FROM ledger_incomes) - ?) ORDER BY number",
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
        """With whom we have moved credits."""
        rows = self._walk(
            "SELECT payee FROM ledger_payments UNION SELECT payer FROM ledger_incomes LIMIT ?",
            limit,
        )
        return [row[0] for row in rows]

    def _payments(self, condition: str, *values: Any) -> Sequence[Payment]:
        rows = self._walk(
            "SELECT number, kind, payee, amount, reference, expiry_ms, channel, seq "
            f"FROM ledger_payments {condition}",
            *values,
        )
        return [Payment(*row) for row in rows]

    def _incomes(self, condition: str, *values: Any) -> Sequence[IncomeRow]:
        rows = self._walk(
            f"SELECT number, kind, id, payer, amount, reference FROM ledger_incomes {condition}",
            *values,
        )
        return [IncomeRow(*row) for row in rows]


class OwnRecords(OwnChains, ChannelRecords):
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

    def owe_open(self, payee: NodeId, deposit: int, expiry_ms: int) -> None:
        """Queue the open of a channel."""
        self._change(
            "INSERT INTO ledger_payments (payee, amount, reference, seq, is_told, kind, expiry_ms) "
            "VALUES (?, ?, ?, NULL, 0, 'open', ?)",
            payee,
            deposit,
            NO_REFERENCE,
            expiry_ms,
        )

    def owe_topup(self, channel: MessageId, payee: NodeId, amount: int) -> None:
        """Queue a top-up of a channel of ours; nothing where it is settled meanwhile."""
        self._change(
            "INSERT INTO ledger_payments (payee, amount, reference, seq, is_told, kind, channel) "
            "VALUES (?, ?, ?, NULL, 0, 'topup', ?)",
            payee,
            amount,
            NO_REFERENCE,
            channel,
        )
        self.drop_dead_topups()

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

    def follow_own(self, opened: Opened[Entry]) -> Sequence[MessageId]:
        """An entry of our own account is certified, whether this journal had signed it or not. The
        channels from which it takes our share."""
        entry = opened.value
        pending = self.pending()
        if pending is None or pending.id != opened.id:
            # Whichever way it came: a journal that has not signed it may lack more than this.
            self.set_state("restored", opened.id)
            self._unsign(entry.seq)
        self._change("DELETE FROM ledger_pending")
        self._link(entry)
        if sources_of(entry):
            self.drop_dead_topups()
        return [source.id for source in sources_of(entry) if self._took(source, entry)]

    def told(self, payments: Sequence[Payment]) -> None:
        """Their payee has heard of these."""
        for payment in payments:
            self._change("UPDATE ledger_payments SET is_told = 1 WHERE number = ?", payment.number)

    def told_funds(self, channel: MessageId, funds: Sequence[Certified]) -> None:
        """The payee of a channel of ours has been shown these entries of it."""
        for certified in funds:
            self._change(
                "UPDATE ledger_payments SET is_told = 1 WHERE is_told = 0 AND seq = "
                "(SELECT seq FROM ledger_funds WHERE channel = ? AND entry = ?)",
                channel,
                certified.entry.id,
            )

    def income(self, kind: str, opened: Opened[Entry], own: NodeId) -> IncomeRow | None:
        """Keep what a certified entry sets aside for us, a pay or its fee; None where it is
        known. The entry must be kept too, or shown."""
        entry = opened.value
        pay = entry.body if kind == PAY and isinstance(entry.body, Pay) else None
        assert pay is not None or kind == FEE
        if not self._change(
            "INSERT INTO ledger_incomes (kind, id, payer, amount, reference, claimed) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            kind,
            opened.id,
            entry.account,
            entry.fee if pay is None else pay.amount,
            NO_REFERENCE if pay is None else pay.reference,
            self.claimed_at(own, (kind, opened.id)),
        ):
            return None
        return self._incomes("WHERE kind = ? AND id = ?", kind, opened.id)[0]

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

    def _took(self, source: Source, entry: Entry) -> bool:
        """Note what an own entry claims; whether that is our share of a channel."""
        self._change(
            "UPDATE ledger_incomes SET claimed = ? WHERE kind = ? AND id = ?",
            entry.seq,
            source.kind,
            source.id,
        )
        return source.kind not in (PAY, FEE) and self._change(
            "UPDATE ledger_own_channels SET is_done = 1 WHERE id = ?", source.id
        )

    def _unsign(self, seq: int) -> None:
        """The signed entry will never count: what it was to do is to be done still."""
        self._change("DELETE FROM ledger_pending")
        self._change("UPDATE ledger_payments SET seq = NULL WHERE seq = ?", seq)
        self.drop_dead_topups()

    def _link(self, entry: Entry) -> None:
        """Find what an own entry does among what is queued, so that nothing is done twice after a
        restore; what this store does not know of is added to it, and its payee told."""
        if self.payment_at(entry.seq) is not None:
            return
        match entry.body:
            case Pay(payee, amount, reference):
                same = "payee = ? AND reference = ? AND (amount = ? OR reference != ?)"
                values: tuple[Any, ...] = (payee, reference, amount, NO_REFERENCE)
                row: tuple[Any, ...] = ("pay", payee, amount, reference, 0, None)
            case Open(payee, amount, expiry_ms):
                same, values = (
                    "payee = ? AND amount = ? AND expiry_ms = ?",
                    (
                        payee,
                        amount,
                        expiry_ms,
                    ),
                )
                row = ("open", payee, amount, NO_REFERENCE, expiry_ms, None)
            case TopUp(channel, amount):
                own = self.channel(channel)
                assert own is not None, "a chain tops up what it has opened"
                same, values = "channel = ? AND amount = ?", (channel, amount)
                row = ("topup", own.payee, amount, NO_REFERENCE, 0, channel)
            case _:
                return
        if not self._change(
            "UPDATE ledger_payments SET seq = ? WHERE number = (SELECT number FROM ledger_payments "
            f"WHERE seq IS NULL AND kind = ? AND {same} ORDER BY number LIMIT 1)",
            entry.seq,
            row[0],
            *values,
        ):
            self._change(
                "INSERT INTO ledger_payments "
                "(kind, payee, amount, reference, expiry_ms, channel, seq, is_told) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING",
                *row,
                entry.seq,
            )
