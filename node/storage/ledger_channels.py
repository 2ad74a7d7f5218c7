"""The channels of which this node is payer or payee: rows, queries, and what it has proposed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from node.storage.ledger_chains import Chains
from protocol.envelope import Opened
from protocol.ids import MessageId, NodeId
from protocol.ledger.certificate import Certified
from protocol.ledger.decoder import Decoder, packed
from protocol.ledger.entry import EARNED, REST, Entry, Open, TopUp
from protocol.ledger.statement import Settlement
from protocol.ledger.sync import Propose
from protocol.limits import FRAME_BYTES_MAX, TOPUPS_SHOWN_MAX
from protocol.units import Microcredits

_PROPOSALS: Final = Decoder(Propose, FRAME_BYTES_MAX)

_FACTS: Final = """
    SELECT number, own.id, payer, payee, expiry_ms, is_done, is_told, settlement.value,
        (SELECT coalesce(sum(amount), 0) FROM ledger_funds WHERE channel = own.id),
        (SELECT count(*) FROM ledger_funds WHERE channel = own.id)
    FROM ledger_own_channels AS own
    LEFT JOIN ledger_settlements AS settlement ON settlement.channel = own.id
"""
# Of more top-ups than a proposal can show the largest count, in whichever order they are shown to
# us: so what was counted on once never becomes less.
_TRIM_FUNDS: Final = f"""
    DELETE FROM ledger_funds WHERE channel = ?1 AND entry != ?1 AND seq NOT IN (
        SELECT seq FROM ledger_funds WHERE channel = ?1 AND entry != ?1
        ORDER BY amount DESC, seq LIMIT {TOPUPS_SHOWN_MAX}
    )
"""


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel of ours, by all certificates that are here."""

    number: int
    id: MessageId
    payer: NodeId
    payee: NodeId
    expiry_ms: int
    is_done: bool  # It is settled, and our share is claimed or is nothing.
    is_told: bool  # The other party has the settlement from us, or gave it to us.
    settled: int | None
    funding: Microcredits
    topups: int


@dataclass(frozen=True, slots=True)
class Proposed:
    """The last that we proposed for a channel, as it is sent."""

    turn: int
    value: int
    ask: Propose


class ChannelChains(Chains):
    """Queries about our own channels."""

    def channel(self, channel: MessageId) -> ChannelRow | None:
        """One channel of ours."""
        return next(iter(self._channels("WHERE own.id = ?", channel)), None)

    def channels_last(self, limit: int) -> Sequence[ChannelRow]:
        """All channels of ours that are not done, and the last of those that are."""
        return self._channels(
            "WHERE is_done = 0 OR number > "
            "(SELECT coalesce(max(number), 0) FROM ledger_own_channels) - ? ORDER BY number",
            limit,
        )

    def funds(self, channel: MessageId) -> Sequence[Certified]:
        """The certified open of a channel of ours, then its top-ups in their order, as many as a
        proposal can show."""
        rows = self._walk("SELECT entry FROM ledger_funds WHERE channel = ? ORDER BY seq", channel)
        found = [self.certified_by_id(MessageId(entry)) for (entry,) in list(rows)]
        return [certified for certified in found if certified is not None]

    def proposed(self, channel: MessageId) -> Proposed | None:
        """The last proposal of ours for a channel."""
        row = self._row("SELECT turn, value, ask FROM ledger_proposals WHERE channel = ?", channel)
        return None if row is None else Proposed(row[0], row[1], _PROPOSALS.decode(row[2]))

    def proposed_all(self) -> Sequence[tuple[MessageId, Proposed]]:
        """The last proposals for channels that are not settled."""
        rows = self._walk("SELECT channel, turn, value, ask FROM ledger_proposals")
        return [
            (MessageId(channel), Proposed(turn, value, _PROPOSALS.decode(ask)))
            for channel, turn, value, ask in rows
        ]

    def settlements_untold(self, other: NodeId, limit: int) -> Sequence[ChannelRow]:
        """Settled channels between us and another, who has not heard of it."""
        return self._channels(
            "WHERE is_told = 0 AND settlement.value IS NOT NULL AND ? IN (payer, payee) "
            "ORDER BY number LIMIT ?",
            other,
            limit,
        )

    def _channels(self, condition: str, *values: Any) -> Sequence[ChannelRow]:
        return [
            ChannelRow(
                number=row[0],
                id=row[1],
                payer=row[2],
                payee=row[3],
                expiry_ms=row[4],
                is_done=bool(row[5]),
                is_told=bool(row[6]),
                settled=row[7],
                funding=Microcredits(row[8]),
                topups=max(0, row[9] - 1),
            )
            for row in self._walk(f"{_FACTS} {condition}", *values)
        ]


class ChannelRecords(ChannelChains):
    """Changes of our own channels; each is part of one change of the database."""

    def fund(self, opened: Opened[Entry], own: NodeId) -> MessageId | None:
        """A certified open or top-up, kept here by its id: the channel, where it is one of ours.
        A repeat changes nothing."""
        entry, body = opened.value, opened.value.body
        if isinstance(body, Open):
            if own not in (entry.account, body.payee):
                return None
            channel, amount = opened.id, body.deposit
            self._change(
                "INSERT INTO ledger_own_channels (id, payer, payee, expiry_ms, is_done, is_told) "
                "VALUES (?, ?, ?, ?, 0, 0) ON CONFLICT DO NOTHING",
                channel,
                entry.account,
                body.payee,
                body.expiry_ms,
            )
        elif isinstance(body, TopUp):
            row = self.channel(body.channel)
            if row is None or row.payer != entry.account:
                return None  # Whoever shows a top-up has shown the open before it.
            channel, amount = body.channel, body.amount
        else:
            return None
        self._change(
            "INSERT INTO ledger_funds VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            channel,
            entry.seq,
            opened.id,
            amount,
        )
        self._change(_TRIM_FUNDS, channel)
        return channel

    def keep_proposal(self, ask: Propose, channel: MessageId, turn: int, value: int) -> Proposed:
        """Keep a proposal before it leaves, in the place of one of an earlier turn. What is kept
        then: for a turn that has one already that one, whatever its value."""
        self._change(
            "INSERT INTO ledger_proposals VALUES (?, ?, ?, ?) ON CONFLICT (channel) DO UPDATE SET "
            "turn = excluded.turn, value = excluded.value, ask = excluded.ask "
            "WHERE turn < excluded.turn",
            channel,
            turn,
            value,
            packed(ask),
        )
        kept = self.proposed(channel)
        assert kept is not None
        return kept

    def told_settlement(self, channel: MessageId) -> None:
        """The other party has it."""
        self._change(
            "UPDATE ledger_own_channels SET is_told = 1 WHERE id = ? AND is_told = 0", channel
        )

    def keep_settlement(self, settlement: Settlement) -> bool:
        """Keep a checked settlement of any channel; whether it is new. It answers for the seat and
        for our proposal, and what was still to be moved into the channel stays with us."""
        if not self._change(
            "INSERT INTO ledger_settlements VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            settlement.channel,
            settlement.value,
            packed(settlement),
        ):
            return False
        self._change("DELETE FROM ledger_seats WHERE channel = ?", settlement.channel)
        self._change("DELETE FROM ledger_proposals WHERE channel = ?", settlement.channel)
        self.drop_dead_topups()
        return True

    def drop_dead_topups(self) -> None:
        """Take top-ups of channels that are settled, or whose rest our chain has taken, out of the
        queue: nobody could use them."""
        self._change(
            "DELETE FROM ledger_payments WHERE kind = 'topup' AND seq IS NULL "
            "AND (EXISTS (SELECT 1 FROM ledger_settlements AS settlement "
            "WHERE settlement.channel = ledger_payments.channel) OR EXISTS (SELECT 1 "
            "FROM ledger_claims WHERE kind = 'rest' AND source = ledger_payments.channel))"
        )

    def share(self, channel: MessageId, own: NodeId) -> None:
        """Note what a settled channel of ours gives us, once we have the open and the settlement,
        in whichever order they came; a top-up that came late adds to it."""
        row = self.channel(channel)
        if row is None or row.settled is None:
            return
        if row.payer == own:
            kind, other = REST, row.payee
            amount = (self.funding(own, channel) or 0) - row.settled
        else:
            kind, other, amount = EARNED, row.payer, row.settled
        claimed = self.claimed_at(own, (kind, channel))
        if amount > 0:
            self._change(
                "INSERT INTO ledger_incomes (kind, id, payer, amount, reference, claimed) "
                "VALUES (?, ?, ?, ?, zeroblob(32), ?) "
                "ON CONFLICT (kind, id) DO UPDATE SET amount = excluded.amount, "
                "claimed = excluded.claimed "
                "WHERE amount != excluded.amount OR claimed IS NOT excluded.claimed",
                kind,
                channel,
                other,
                amount,
                claimed,
            )
        is_done = amount <= 0 or claimed is not None
        self._change(
            "UPDATE ledger_own_channels SET is_done = ? WHERE id = ? AND is_done != ?",
            is_done,
            channel,
            is_done,
        )

    def _change(self, statement: str, *values: Any) -> bool:
        """Whether the statement changed anything."""
        return self._connection.execute(statement, values).rowcount > 0
