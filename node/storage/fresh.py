"""The database of a key that has lost its own: empty, and it says so to whoever signs."""

import sqlite3
from pathlib import Path
from typing import Final

from node.storage.damage import mark_restored
from node.storage.database import open_database
from protocol.errors import Code, LocalError

# What a node writes once it has done anything: an empty database is taken as it is.
_USED: Final = ("jobs", "bills", "ledger_entries", "ledger_votes", "ledger_pending")


async def make_restored(path: Path) -> None:
    """Make the database at `path` for a key that may have signed before. It is marked `restored`,
    so its ledger signs nothing new until all witnesses have told what they know (facts of the
    ledger, 2.2); and as a witness it has lost its votes. On disk when this returns; a repeat
    changes nothing.

    Raises LocalError: IN_USE where a node has used the database that is there; UNAVAILABLE when
    the disk fails, or what is there is none.
    """
    async with open_database(path) as database:
        made = await database.write(_mark)
    if not made:
        raise LocalError(
            Code.IN_USE,
            f"{path} holds the records of a node whose key is gone. Put that key back, move the "
            "file away, or name another home with --home.",
        )


def _mark(connection: sqlite3.Connection) -> bool:
    for table in _USED:
        if connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None:
            return False
    mark_restored(connection)
    return True
