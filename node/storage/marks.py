"""Single numbers that outlive the process, by name."""

import sqlite3
from typing import Final

from node.storage.database import Database

_PUT: Final = "INSERT OR REPLACE INTO counters VALUES (?, ?)"


class Marks:
    """All methods are called from the one trio thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def value(self, name: str) -> int:
        """What was put under a name last; 0 where nothing was. Raises LocalError UNAVAILABLE."""

        def work(connection: sqlite3.Connection) -> int:
            row = connection.execute("SELECT value FROM counters WHERE name = ?", (name,))
            found = row.fetchone()
            return 0 if found is None else int(found[0])

        return await self._database.read(work)

    async def put(self, name: str, value: int) -> None:
        """On disk when this returns. Raises LocalError UNAVAILABLE."""
        await self._database.write(lambda it: it.execute(_PUT, (name, value)).close())
