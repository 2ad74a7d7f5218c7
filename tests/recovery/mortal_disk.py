"""A disk in memory under a node that can be made to die before or after any commit.

It outlives the databases that are opened on it, one at a time. The simulator's disk
(`node.storage.simulated`) lets its processes die between steps; here a watcher is asked at each
commit, so that they die right at one.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import outcome
import trio

from node.storage.damage import mark_restored
from node.storage.database import Database, Work, migrate
from node.supervise import background
from protocol.errors import Code, LocalError

Watcher = Callable[[str], None]
"""Told "before" and "after" each commit that changes anything. It must not wait; it may call
`MortalDisk.die`."""

_NOWHERE: Final = Path("memory.db")


class Died(sqlite3.OperationalError):
    """The process that uses this connection is gone."""


class _Connection(sqlite3.Connection):
    """Tells of commits, and serves only the process that lives."""

    watcher: Watcher | None = None
    is_dead = False
    changes_before = 0

    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if statement == "BEGIN IMMEDIATE":
            self.changes_before = self.total_changes
        if statement != "COMMIT" or self.total_changes == self.changes_before:
            return super().execute(statement, parameters)
        self._tell("before")
        if self.is_dead:
            raise Died("the process died before it committed")
        cursor = super().execute(statement, parameters)
        self._tell("after")
        return cursor

    def _tell(self, when: str) -> None:
        if self.watcher is not None:
            self.watcher(when)


class MortalDisk:
    """One node's disk. All methods are called from the one trio thread."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, factory=_Connection)
        self._connection.execute("PRAGMA foreign_keys = ON")
        migrate(self._connection, _NOWHERE)
        self._living: _MortalDatabase | None = None

    @asynccontextmanager
    async def open(self, watcher: Watcher | None = None) -> AsyncIterator[Database]:
        """A process's database on this disk, inline, until the context ends or `die` is called."""
        assert self._living is None, "one process at a time uses a disk"
        self._connection.watcher, self._connection.is_dead = watcher, False
        database = self._living = _MortalDatabase(self._connection, _NOWHERE, inline=True)
        async with background(database.run):
            try:
                yield database
            finally:
                await database.close()
                if self._living is database:
                    self._living = None

    def mark_restored(self) -> None:
        """Say on a new disk that another one was lost, as `node.storage.damage` does."""
        mark_restored(self._connection)

    def die(self) -> None:
        """End the process that uses this disk, as `kill -9` does: what is not committed is lost,
        and nothing that it still asks of its database is ever answered."""
        if self._living is not None:
            self._living.is_dead = self._connection.is_dead = True
            self._living = None

    def copy(self) -> "MortalDisk":
        """A copy of what is committed now, as a backup has it."""
        assert not self._connection.in_transaction
        other = MortalDisk()
        self._connection.backup(other._connection)
        return other


class _MortalDatabase(Database):
    is_dead = False

    async def write(self, work: Work[Any]) -> Any:
        return self._alive(await super().write(work))

    async def read(self, work: Work[Any]) -> Any:
        return self._alive(await super().read(work))

    def _alive(self, result: Any) -> Any:
        if self.is_dead:  # Whoever asked is cancelled, or shielded for a few steps more.
            raise LocalError(Code.UNAVAILABLE, "The process has died.")
        return result

    async def _write_group(self) -> None:
        if not self.is_dead:
            await super()._write_group()
            return
        error = LocalError(Code.UNAVAILABLE, "The process has died.")
        while self._waiting:
            change = self._waiting.popleft()
            change.result = outcome.Error(error)
            change.done.set()

    async def close(self) -> None:
        """Write what waits, unless the process has died; the disk stays."""
        self._closed = True
        with trio.CancelScope(shield=True):
            while self._waiting:
                await self._write_group()
