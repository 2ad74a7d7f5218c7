"""What the continuous audit has found, account by account, across restarts."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from node.storage.database import Database
from protocol.ids import NodeId

FINDINGS_MAX: Final = 65_536  # One an account, 20 MiB; the oldest that hold go first.
FINDINGS_SHOWN_MAX: Final = 50
HOLDS: Final = "HOLDS"
"""The code of a chain in which all holds; every other is a `protocol.errors.Code`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One account's chain, pulled anew from peers and verified from the genesis on."""

    account: NodeId
    seq: int  # Up to here it was verified.
    peers: int  # How many vouched for its head.
    code: str
    sentence: str
    at_ms: int  # Wall time.


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of what is here has been audited since this node knows it."""

    accounts: int  # Of others, with entries here.
    audited: int
    entries: int
    entries_audited: int
    last: Sequence[Finding]  # The newest first; faults before all.


class AuditStore:
    """The findings of one node. All methods are called from the one trio thread."""

    def __init__(self, database: Database, node: NodeId) -> None:
        self._database, self._node = database, node

    async def keep(self, finding: Finding) -> None:
        """Keep the latest finding of an account. Raises as `Database.write`."""
        await self._database.write(lambda connection: _kept(connection, finding))

    async def coverage(self) -> Coverage:
        """Raises LocalError UNAVAILABLE when the disk fails."""
        return await self._database.read(lambda connection: _coverage(connection, self._node))


def _kept(connection: sqlite3.Connection, finding: Finding) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO ledger_audits VALUES (?, ?, ?, ?, ?, ?)",
        (
            finding.account,
            finding.seq,
            finding.peers,
            finding.code,
            finding.sentence,
            finding.at_ms,
        ),
    )
    connection.execute(
        "DELETE FROM ledger_audits WHERE account IN (SELECT account FROM ledger_audits "
        "ORDER BY code != ? DESC, at_ms DESC LIMIT -1 OFFSET ?)",
        (HOLDS, FINDINGS_MAX),
    )


def _coverage(connection: sqlite3.Connection, node: NodeId) -> Coverage:
    accounts, entries = connection.execute(
        "SELECT count(*), coalesce(sum(seq), 0) FROM ledger_accounts WHERE account != ?", (node,)
    ).fetchone()
    audited, entries_audited = connection.execute(
        "SELECT count(*), coalesce(sum(min(one.seq, audit.seq)), 0) FROM ledger_audits AS audit "
        "JOIN ledger_accounts AS one USING (account) WHERE audit.code = ?",
        (HOLDS,),
    ).fetchone()
    rows = connection.execute(
        "SELECT account, seq, peers, code, sentence, at_ms FROM ledger_audits "
        "ORDER BY code != ? DESC, at_ms DESC LIMIT ?",
        (HOLDS, FINDINGS_SHOWN_MAX),
    )
    return Coverage(accounts, audited, entries, entries_audited, [Finding(*row) for row in rows])
