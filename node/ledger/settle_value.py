"""What this node proposes for a channel, and which of its turns comes next; all of it pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from node.ledger.base import ChannelFacts
from node.storage.ledger_channels import Proposed
from protocol.envelope import Signed, seal
from protocol.errors import Code, LocalError, RemoteError
from protocol.identity import Identity
from protocol.ids import NodeId
from protocol.ledger.agreement import highest_lock
from protocol.ledger.certificate import Certified
from protocol.ledger.charter import Charter
from protocol.ledger.entry import Open, TopUp, entry_read
from protocol.ledger.settlement import owner_is_payee, turn, turn_begins_ms
from protocol.ledger.statement import Proposal, ReportShown
from protocol.ledger.sync import Propose
from protocol.ledger.voucher import voucher_opened

STARTS_AFTER = 10
"""A turn is begun a tenth of its window late: twice the skew of clocks that is allowed for, so
that it has begun at the witnesses too. 5 delays and 4 such skews still fit into the window."""


@dataclass(frozen=True, slots=True)
class Due:
    """A turn of ours: when to start it, and when it is over; wall times in milliseconds."""

    turn: int
    start_ms: int
    end_ms: int


def next_due(
    facts: ChannelFacts,
    node: NodeId,
    proposed: Proposed | None,
    tried: int,
    now_ms: int,
    charter: Charter,
) -> Due:
    """Our next turn of a channel that is not settled, the present one included. `tried` is the
    last that can come to nothing any more; 0: none."""
    is_payee = facts.payee == node
    now = turn(facts.expiry_ms, now_ms, charter)
    if proposed is not None and proposed.turn == 1 and tried < 1 and now < 3:
        # The first turn reads no clock: it is open until a later one was promised.
        return Due(1, 0, turn_begins_ms(facts.expiry_ms, 3, charter))
    ours = max(now, tried + 1, 2)
    if owner_is_payee(ours) != is_payee:
        ours += 1
    begins_ms = turn_begins_ms(facts.expiry_ms, ours, charter)
    is_begun = proposed is not None and proposed.turn == ours
    return Due(
        turn=ours,
        start_ms=begins_ms if is_begun else begins_ms + charter.window_ms // STARTS_AFTER,
        end_ms=begins_ms + charter.window_ms,
    )


def proposal_made(
    identity: Identity,
    turn: int,
    funds: Sequence[Certified],
    best: Signed | None,
    reports: tuple[ReportShown, ...],
    charter: Charter,
) -> tuple[Propose, int]:
    """What to propose in a turn of ours, and its value: what q reports force, else as the payee
    what the best voucher says, and as the payer 0. `funds` are the open and the top-ups.

    Raises LocalError UNAVAILABLE for a voucher that witnesses would refuse.
    """
    channel = funds[0].entry.id
    locked = highest_lock(reports, channel, turn, charter) if turn > 1 else None
    voucher: Signed | None = None
    topups: tuple[Certified, ...] = ()
    value = 0
    if locked is not None:
        value = locked.value
    elif best is not None and owner_is_payee(turn):
        voucher = best
        value, topups = _covered(funds, best, charter)
    proposal = seal(identity, charter.network, Proposal(channel, turn, value))
    return Propose(proposal, funds[0], topups, voucher, reports), value


def _covered(
    funds: Sequence[Certified], best: Signed, charter: Charter
) -> tuple[int, tuple[Certified, ...]]:
    """The value of a voucher, and the top-ups that it takes to cover it."""
    payer = funds[0].entry.signer
    try:
        voucher = voucher_opened(best, payer, charter.network).value
    except RemoteError as error:
        raise _unfit(str(error)) from error
    if voucher.channel != funds[0].entry.id:
        raise _unfit("it is one of another channel")
    covered = 0
    for count, certified in enumerate(funds):
        body = entry_read(certified.entry, charter.network).value.body
        covered += body.deposit if isinstance(body, Open) else 0
        covered += body.amount if isinstance(body, TopUp) else 0
        if covered >= voucher.cumulative:
            return voucher.cumulative, tuple(funds[1 : count + 1])
    raise _unfit("the channel's funding does not cover it")


def _unfit(why: str) -> LocalError:
    return LocalError(
        Code.UNAVAILABLE,
        f"The voucher that is kept for this channel is of no use to witnesses: {why}. Nothing is "
        "proposed with it.",
    )
