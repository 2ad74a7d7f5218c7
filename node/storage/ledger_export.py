"""All chains that are here as a file in the form of `protocol.ledger.export`."""

from collections.abc import Iterator
from itertools import islice

from node.storage.checkpoints import holdings_at
from node.storage.ledger_chains import Chains, settlement_decoded
from protocol.ids import NodeId
from protocol.ledger.certificate import certified_decoded
from protocol.ledger.checkpoint import checkpointed_decoded
from protocol.ledger.export import Shown, export_header, framed
from protocol.ledger.resumed import HELD_PER_FRAME, Held, Kept, Resumed

_SETTLEMENTS = (
    "FROM ledger_settlements AS settlement WHERE EXISTS "
    "(SELECT 1 FROM ledger_entries WHERE id = settlement.channel) OR EXISTS "
    "(SELECT 1 FROM ledger_shown WHERE id = settlement.channel)"
)
_SHOWN = (
    "FROM ledger_shown AS shown WHERE EXISTS "
    "(SELECT 1 FROM ledger_claims WHERE source = shown.id) OR EXISTS "
    "(SELECT 1 FROM ledger_settlements WHERE channel = shown.id) OR EXISTS "
    "(SELECT 1 FROM ledger_funds AS fund JOIN ledger_settlements USING (channel) "
    "WHERE fund.entry = shown.id)"
)


def exported(chains: Chains) -> Iterator[bytes]:
    """The file, in pieces; chains that were pruned begin at their checkpoints."""
    connection = chains.connection

    def count(of: str) -> int:
        (found,) = connection.execute(f"SELECT count(*) {of}").fetchone()
        return int(found)

    yield export_header(
        chains.charter,
        shown=count(_SHOWN),
        settlements=count(_SETTLEMENTS),
        entries=count("FROM ledger_entries"),
    )
    for (data,) in connection.execute(f"SELECT certified {_SHOWN} ORDER BY account, seq"):
        yield framed(Shown(certified_decoded(data)))
    for (data,) in connection.execute(f"SELECT settlement {_SETTLEMENTS} ORDER BY channel"):
        yield framed(settlement_decoded(data))
    pruned = {
        NodeId(account): seq
        for account, seq in connection.execute(
            "SELECT account, seq FROM ledger_checkpoints WHERE pruned > 0"
        )
    }
    last: bytes = b""
    for account, seq, data in connection.execute(
        "SELECT account, seq, certified FROM ledger_entries ORDER BY account, seq"
    ):
        checkpoint_seq = pruned.get(account, 0)
        if account != last and checkpoint_seq:
            yield from _checkpoint(chains, account, checkpoint_seq)
        last = account
        certified = certified_decoded(data)
        yield framed(Kept(certified) if seq <= checkpoint_seq else certified)


def _checkpoint(chains: Chains, account: NodeId, seq: int) -> Iterator[bytes]:
    (data,) = chains.connection.execute(
        "SELECT checkpoint FROM ledger_checkpoints WHERE account = ?", (account,)
    ).fetchone()
    yield framed(Resumed(checkpointed_decoded(data)))
    holdings = holdings_at(chains, account, seq)
    while page := tuple(islice(holdings, HELD_PER_FRAME)):
        yield framed(Held(page))
