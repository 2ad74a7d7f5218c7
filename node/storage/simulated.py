"""A disk in memory, for the simulator: what was committed outlives a crash, and nothing else does.

Between the lives of a process the database is bytes. Such an image can be kept as a backup and put
back later, as people do. Nothing here needs a thread or a file, so virtual time stays exact.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from node.storage.database import Database, Work
from node.storage.migrations import MIGRATIONS
from protocol.errors import Code, LocalError
from protocol.ids import MessageId

T = TypeVar("T")

_NOWHERE = Path("simulated.db")


class SimulatedDisk:
    """One machine's disk. `delay_seconds` is asked before each commit."""

    def __init__(self, delay_seconds: Callable[[], float]) -> None:
        self.image = b""
        self.is_full = False
        self._delay_seconds = delay_seconds
        self.database: SimulatedDatabase | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator["SimulatedDatabase"]:
        """The database as the last commit left it; one process at a time has it."""
        assert self.database is None, "one process at a time"
        connection = _connected(self.image)
        database = self.database = SimulatedDatabase(connection, self, self._delay_seconds)
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            # Work that is shielded still writes after a cancellation; then it must be answered.
            writing = trio.CancelScope(shield=True)
            nursery.start_soon(_run_in, writing, database)
            try:
                yield database
            except BaseException as error:
                failure = error  # It goes on as it is, below, and not inside the nursery's group.
            self.cut()
            await database.close()
            writing.cancel()
        if failure is not None:
            raise failure

    def cut(self) -> None:
        """The process is gone: keep what is committed now, and undo whatever comes after."""
        if self.database is not None:
            self.image = self.database.cut()
            self.database = None

    def copy(self) -> bytes:
        """What is committed now, as a backup has it."""
        return self.image if self.database is None else self.database.image()

    def voucher_sum(self, channel: MessageId) -> int:
        """Of the highest voucher of a channel that is committed; 0 where there is none."""
        return 0 if self.database is None else self.database.voucher_sum(channel)


class SimulatedDatabase(Database):
    """A database that a crash can end at any moment."""

    def __init__(
        self, connection: sqlite3.Connection, disk: SimulatedDisk, delay: Callable[[], float]
    ) -> None:
        super().__init__(connection, _NOWHERE, inline=True)
        self._connection, self._disk, self._delay_seconds = connection, disk, delay
        self._is_cut = False

    async def write(self, work: Work[T]) -> T:
        """As `Database.write`, after the time that the disk takes."""
        seconds = self._delay_seconds()
        if seconds > 0 and not self._is_cut:
            await trio.sleep(seconds)

        def if_alive(connection: sqlite3.Connection) -> T:
            if self._is_cut:
                raise LocalError(Code.UNAVAILABLE, "The process has crashed.")
            if self._disk.is_full:
                raise LocalError(Code.UNAVAILABLE, "The disk is full; make room on it.")
            return work(connection)

        return await super().write(if_alive)

    def voucher_sum(self, channel: MessageId) -> int:
        """As `SimulatedDisk.voucher_sum`."""
        row = self._connection.execute(
            "SELECT cumulative FROM channel_vouchers WHERE channel = ?", (channel,)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def image(self) -> bytes:
        """All that is committed."""
        return self._connection.serialize()

    def cut(self) -> bytes:
        """Commit nothing any more; what is committed."""
        self._is_cut = True
        return self.image()


async def _run_in(scope: trio.CancelScope, database: Database) -> None:
    with scope:
        await database.run()


def _connected(image: bytes) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    if image:
        connection.deserialize(image)
    else:
        connection.execute("CREATE TABLE schema (version INTEGER NOT NULL)")
        for statement in (one for step in MIGRATIONS for one in step):
            connection.execute(statement)
        connection.execute("INSERT INTO schema VALUES (?)", (len(MIGRATIONS),))
    connection.execute("PRAGMA foreign_keys = ON")
    return connection
