"""Channels as people see them: how each stands, what this node does next with it, and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from node.channels import policy
from node.channels.book import Book
from node.channels.keeper import next_of_book, next_of_own
from node.channels.own import Around, OwnChannel
from node.ledger.base import Settling
from protocol.ids import MessageId, NodeId
from protocol.ledger.settlement import owner_is_payee, turn, turn_begins_ms

State = Literal["open", "closed", "settling", "settled"]
"""Orders may begin; none begins any more; its settlement is on its way; it is final, and our share
is to be claimed."""

_WHY: Final = {
    "wanted": "settle it, as was asked for",
    "idle": "settle it if it stays idle",
    "worth": "settle it for what it has earned",
    "expiry": "settle it before it expires",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One channel. Amounts are microcredits, moments of the wall clock; None for no moment."""

    id: MessageId
    is_ours: bool  # We are the payer.
    other: NodeId
    funding: int
    moved: int | None  # By vouchers; None while only the payee knows that.
    lost: int  # Of what we delivered.
    expiry_ms: int
    state: State
    settled: int | None
    step: str  # What this node does next, for a person.
    step_ms: int | None
    waits_for: int  # Witnesses whose word is missing for it; 0 where none is waited for.
    quorum: int
    back_ms: int | None  # When what is locked comes back to us at the latest.

    @property
    def is_final(self) -> bool:
        """Whether it is settled."""
        return self.settled is not None


def line_of_own(own: OwnChannel, settling: Settling | None, around: Around) -> Line:
    """A channel of which this node is the payer."""
    facts, now_ms = own.facts, around.wall_ms()
    state: State = "open" if own.is_usable else "closed"
    plan = next_of_own(own, around.limits)
    step, step_ms = "wait for its payee to settle it", None
    begins_ms = turn_begins_ms(facts.expiry_ms, 2, around.charter)
    if facts.settled is not None:
        state, step = "settled", "claim what is left of it"
    elif now_ms >= begins_ms or _is_on_its_way(settling):
        state = "settling"
        step, step_ms = _turn_step(facts.expiry_ms, settling, around, is_payee=False)
    elif plan is not None and plan.why == "idle":
        step, step_ms = "ask its payee to settle it if it stays idle", plan.at_ms
    elif plan is not None:
        step = "ask its payee again to settle it"
    elif own.orders:
        step = "go on with the orders that run on it"
    else:
        step, step_ms = "settle it itself if its payee does not", begins_ms
    back_ms = policy.back_at_ms(facts.expiry_ms, now_ms, around.charter)
    return Line(
        id=facts.id,
        is_ours=True,
        other=facts.payee,
        funding=facts.funding,
        moved=own.signed,
        lost=0,
        expiry_ms=facts.expiry_ms,
        state=state,
        settled=facts.settled,
        step=step,
        step_ms=step_ms,
        waits_for=_lack(settling),
        quorum=around.charter.quorum,
        back_ms=None if facts.settled is not None else back_ms,
    )


def line_of_book(
    book: Book, settling: Settling | None, around: Around, old_until_ms: int = 0
) -> Line:
    """A channel of which this node is the payee; those that expire until `old_until_ms` take no
    more work."""
    facts, now_ms = book.facts, around.wall_ms()
    is_counted = facts.expiry_ms > old_until_ms and policy.counts(
        facts.expiry_ms, now_ms, around.charter
    )
    state: State = "closed" if book.window.is_spent or not is_counted else "open"
    balance = around.ledger.standing().balance
    plan = next_of_book(book, around.limits, around, balance)
    step, step_ms = "settle it", None
    if facts.settled is not None:
        state, step = "settled", "claim what it has earned"
    elif book.is_closing or _is_on_its_way(settling):
        state = "settling"
        step, step_ms = _turn_step(facts.expiry_ms, settling, around, is_payee=True)
    elif plan is not None:
        step, step_ms = _WHY[plan.why], plan.at_ms
    return Line(
        id=facts.id,
        is_ours=False,
        other=facts.payer,
        funding=facts.funding,
        moved=book.held,
        lost=book.window.lost,
        expiry_ms=facts.expiry_ms,
        state=state,
        settled=facts.settled,
        step=step,
        step_ms=step_ms,
        waits_for=_lack(settling),
        quorum=around.charter.quorum,
        back_ms=None,
    )


def by_channel(settlings: Sequence[Settling]) -> dict[MessageId, Settling]:
    """What the ledger says of settlements, to look up."""
    return {one.channel: one for one in settlings}


def _is_on_its_way(settling: Settling | None) -> bool:
    return settling is not None and settling.turn > 0


def _lack(settling: Settling | None) -> int:
    if settling is None or settling.stage not in ("asking", "proposing", "locking"):
        return 0
    return max(0, settling.quorum - settling.seals)


def _turn_step(
    expiry_ms: int, settling: Settling | None, around: Around, *, is_payee: bool
) -> tuple[str, int | None]:
    """What is done for a settlement that has begun, or whose time has come."""
    if settling is not None and settling.next_ms is not None:
        return "take its next turn to settle it", settling.next_ms
    if _is_on_its_way(settling):
        return "get the witnesses to settle it", None
    now = turn(expiry_ms, around.wall_ms(), around.charter)
    if owner_is_payee(now) is is_payee:
        return "take its turn to settle it", None
    return "take its next turn to settle it", turn_begins_ms(expiry_ms, now + 1, around.charter)
