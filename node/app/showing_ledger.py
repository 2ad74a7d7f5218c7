"""From what the node's ledger says to what the API shows."""

from collections.abc import Mapping
from typing import Final

from node.api import ledger_views as views
from node.api.ledger_shown import Showing, reference_text
from node.app import showing_channels
from node.channels.service import Channels
from node.ledger.base import AccountLine, LedgerLine, Waiting
from node.ledger.service import NodeLedger
from protocol.ids import NodeId

REMEDIES: Final[Mapping[views.Trouble, str]] = {
    "": "",
    "halted": "Tell the people of this network: no payment can be trusted until they have found "
    "out which witnesses lie. `ayni ledger resume` goes on with the chains that are here.",
    "lapsed": "Find out why this disk is old and whether another copy of this node runs; then "
    "`ayni ledger resume`. The other witnesses go on meanwhile.",
    "restored": "It goes on by itself when all witnesses have answered. If one never will, "
    "`ayni ledger resume --override` tells you the risk.",
    "unwitnessed": "A genesis never changes. Found another network with `ayni network create NAME "
    "--supply CREDITS --witness NODE ...`.",
    "doubled": "A copied home, perhaps? Stop all but one of the nodes with this key, and let the "
    "others go without it.",
    "copied": "Stop the other node that has this key. Then `ayni ledger resume --override`.",
}


def wallet(
    ledger: NodeLedger,
    channels: Channels,
    showing: Showing,
    own: NodeId,
    *,
    trouble: views.Trouble,
) -> views.Wallet:
    """This node's own account as it stands now."""
    standing, charter = ledger.standing(), showing.charter
    return views.Wallet(
        account=showing.party(own),
        ready=ledger.ready,
        seq=standing.seq,
        balance_microcredits=standing.balance,
        pending_microcredits=standing.pending,
        reserved_microcredits=standing.reserved,
        spendable_microcredits=standing.spendable,
        claimable_microcredits=standing.claimable,
        witnesses=len(charter.witnesses),
        quorum=charter.quorum,
        answered=ledger.answered,
        earned_microcredits=showing_channels.earned(channels),
        lost_microcredits=channels.payee.lost,
        locked=showing_channels.locked(channels, showing),
        owed_to_us=showing_channels.owed(channels, showing),
        waiting=tuple(waiting(one, showing) for one in ledger.waiting()),
        settlements=showing_channels.settlements(channels, showing),
        trouble=trouble,
        sentence=ledger.trouble,
        remedy=REMEDIES[trouble],
    )


def waiting(one: Waiting, showing: Showing) -> views.Waiting:
    return views.Waiting(
        seq=one.seq,
        kind=one.kind,
        amount_microcredits=one.amount,
        to=None if one.to is None else showing.party(one.to),
        reference=reference_text(one.reference),
        seals=one.seals,
        quorum=one.quorum,
        silent=tuple(showing.party(node) for node in one.silent),
    )


def history_line(line: LedgerLine, showing: Showing) -> views.HistoryLine:
    fee = showing.charter.entry_fee
    return views.HistoryLine(
        seq=line.seq,
        entry=line.id.hex(),
        kind=line.kind,
        change_microcredits=line.amount if line.kind == "claim" else -line.amount - fee,
        party=None if line.other is None else showing.party(line.other),
        reference=reference_text(line.reference),
        balance_microcredits=line.balance,
        seals=line.seals,
        witnesses=len(showing.charter.witnesses),
        state=line.state,
    )


def account_line(line: AccountLine, showing: Showing) -> views.AccountLine:
    return views.AccountLine(
        account=showing.party(line.account), seq=line.seq, balance_microcredits=line.balance
    )
