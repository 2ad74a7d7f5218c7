"""What the disk bears: durable changes a second in groups, by the node's database and by a file."""

import os
import time
from pathlib import Path
from typing import Any

import trio

from node.storage.database import GROUP_MAX, Database, open_database

ROW_BYTES = 600  # A certified pay at n = 4, with its keys.


async def _database_rate(folder: Path, seconds: float) -> float:
    """Groups a second, each of `GROUP_MAX` rows and one wait for the disk."""
    row = os.urandom(ROW_BYTES)
    async with open_database(folder / "raw.db") as database:
        await database.write(lambda it: it.execute("CREATE TABLE raw (row BLOB)").rowcount)
        groups, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            async with trio.open_nursery() as nursery:
                for _ in range(GROUP_MAX):
                    nursery.start_soon(_insert, database, row)
            groups += 1
    return groups / passed


async def _insert(database: Database, row: bytes) -> None:
    await database.write(lambda it: it.execute("INSERT INTO raw VALUES (?)", (row,)).rowcount)


def _file_rate(folder: Path, seconds: float) -> float:
    """Groups a second appended to a plain file, each fsynced."""
    group = os.urandom(ROW_BYTES * GROUP_MAX)
    groups, began = 0, time.perf_counter()
    with (folder / "raw.log").open("ab", buffering=0) as file:
        while (passed := time.perf_counter() - began) < seconds:
            file.write(group)
            os.fsync(file.fileno())
            groups += 1
    return groups / passed


def disk_figures(folder: Path, seconds: float) -> dict[str, Any]:
    """Of one process that has the disk for itself."""
    database = trio.run(_database_rate, folder, seconds)
    file = _file_rate(folder, seconds)
    return {
        "group": GROUP_MAX,
        "database_groups_per_second": round(database, 1),
        "database_changes_per_second": round(database * GROUP_MAX),
        "file_groups_per_second": round(file, 1),
    }
