"""A database for a key that comes back: marked before anything is signed, never over records."""

import sqlite3
from pathlib import Path

import pytest

from node.storage.database import open_database
from node.storage.fresh import _USED, make_restored
from protocol.errors import Code, LocalError


def marks(path: Path) -> list[str]:
    with sqlite3.connect(path) as database:
        return sorted(name for (name,) in database.execute("SELECT name FROM ledger_state"))


async def test_it_is_marked_and_a_repeat_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "data" / "ayni.db"
    await make_restored(path)
    once = marks(path)
    assert once == ["forgot", "restored"]
    await make_restored(path)
    assert marks(path) == once


async def test_one_that_is_empty_is_taken_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "ayni.db"
    async with open_database(path):
        pass
    assert marks(path) == []
    await make_restored(path)
    assert marks(path) == ["forgot", "restored"]


def insert_anything(connection: sqlite3.Connection, table: str) -> None:
    """A row, by the names and types of the table's columns."""
    named = {"role": "provider", "job_id": bytes(16)}
    typed = {"BLOB": bytes(32), "INTEGER": 1, "TEXT": "x"}
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    values = [named.get(name, typed[kind]) for _, name, kind, *_ in columns]
    places = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} VALUES ({places})", values)


@pytest.mark.parametrize("table", _USED)
async def test_one_that_a_node_has_used_is_left_alone(tmp_path: Path, table: str) -> None:
    path = tmp_path / "ayni.db"
    async with open_database(path) as database:
        await database.write(lambda it: insert_anything(it, table))
    with pytest.raises(LocalError, match="whose key is gone") as refused:
        await make_restored(path)
    assert refused.value.code is Code.IN_USE
    assert marks(path) == []
