"""From what the node's channels say to what the API shows."""

from collections import Counter

from node.api import ledger_views as views
from node.api.channel_views import ChannelLine
from node.api.ledger_shown import Showing
from node.channels.outlook import Line
from node.channels.service import Channels
from protocol.ids import NodeId


def line(shown: Line, showing: Showing) -> ChannelLine:
    """One channel."""
    return ChannelLine(
        channel=shown.id.hex(),
        role="payer" if shown.is_ours else "payee",
        party=showing.party(shown.other),
        funding_microcredits=shown.funding,
        moved_microcredits=shown.moved,
        lost_microcredits=shown.lost,
        expiry_ms=shown.expiry_ms,
        state=shown.state,
        settled_microcredits=shown.settled,
        step=shown.step,
        step_ms=shown.step_ms,
        waits_for=shown.waits_for,
        quorum=shown.quorum,
        back_ms=shown.back_ms,
    )


def lines(channels: Channels, showing: Showing) -> tuple[ChannelLine, ...]:
    """All of them, ours first."""
    return tuple(line(one, showing) for one in channels.lines())


def locked(channels: Channels, showing: Showing) -> tuple[views.Locked, ...]:
    """What this node has in channels and has not spent, what comes back first before all."""
    found = [
        views.Locked(
            channel=one.id.hex(),
            party=showing.party(one.other),
            amount_microcredits=one.funding - min(one.funding, one.moved or 0),
            back_ms=one.back_ms,
        )
        for one in channels.lines()
        if one.is_ours and one.back_ms is not None
    ]
    unspent = [one for one in found if one.amount_microcredits]
    return tuple(sorted(unspent, key=lambda one: (one.back_ms, one.channel)))


def settlements(channels: Channels, showing: Showing) -> tuple[views.SettlementWaiting, ...]:
    """What waits for witnesses."""
    return tuple(
        views.SettlementWaiting(
            channel=one.id.hex(),
            party=showing.party(one.other),
            waits_for=one.waits_for,
            quorum=one.quorum,
        )
        for one in channels.lines()
        if one.waits_for
    )


def earned(channels: Channels) -> int:
    """Microcredits in vouchers of channels that are not settled."""
    return sum(one.moved or 0 for one in channels.lines() if not one.is_ours and not one.is_final)


def owed(channels: Channels, showing: Showing) -> tuple[views.Debt, ...]:
    """What was delivered and has no voucher yet, by payer, the largest first."""
    sums: Counter[NodeId] = Counter()
    for book in channels.payee.books:
        if book.window.outstanding:
            sums[book.facts.payer] += book.window.outstanding
    return tuple(
        views.Debt(party=showing.party(payer), amount_microcredits=amount)
        for payer, amount in sums.most_common()
    )
