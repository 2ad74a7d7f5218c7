"""One SQLite database: a single writer that commits in groups, and readers beside it.

A commit costs a wait for the disk, whether it holds one change or a hundred (267 against 23,700
changes a second were measured), so changes that wait at the same time share one. Each still
stands for itself: it sees the ones before it and, if it fails, it alone is undone.
"""

import contextlib
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import outcome
import trio

from node.storage import damage
from node.storage.migrations import MIGRATIONS
from node.supervise import background
from node.telemetry.logs import Log
from protocol.errors import Code, LocalError

GROUP_MAX = 100  # A larger group gains little and lets the first one wait.
WAITING_MAX = 10_000  # Beyond this the disk does not keep up; callers are told, memory is kept.
READERS_MAX = 2
LOCKED_SECONDS_MAX = 5  # Another process, such as a backup, may hold the file for a moment.
PROBE_SECONDS = 5.0  # While the disk takes nothing: how soon it is seen that it does again.

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
"""Runs statements, in another thread than trio's, and returns plain values. It neither begins
nor ends a transaction."""

_log = Log("database")


@dataclass(eq=False, slots=True)
class _Change:
    work: Work[Any]
    done: trio.Event = field(default_factory=trio.Event)
    result: outcome.Outcome[Any] | None = None


class Database:
    """Made by open_database; all methods are called from the one trio thread."""

    def __init__(
        self,
        writer: sqlite3.Connection,
        path: Path,
        *,
        inline: bool,
        set_aside: Sequence[damage.SetAside] = (),
    ) -> None:
        self.set_aside = set_aside
        """Damaged databases of this home that were put away, the oldest first."""
        self.trouble = ""
        """Why nothing can be written now, in a sentence for people; "" while all is well."""
        self._writer = writer
        self._path = path
        self._inline = inline
        self._waiting: deque[_Change] = deque()
        self._wake = trio.Event()
        self._turn = trio.Lock()
        self._closed = False
        self._readers: list[sqlite3.Connection] = []
        self._limiter = trio.CapacityLimiter(READERS_MAX)

    async def write(self, work: Work[T]) -> T:
        """Run one change; it is on disk, fsynced, when this returns what it returned.

        A change that raises is undone alone and raises here. A caller that is cancelled does not
        know whether its change was made. Raises LocalError UNAVAILABLE when the disk fails or is
        full, when too many changes wait, or when the database is closed.
        """
        if self._closed:
            raise LocalError(Code.UNAVAILABLE, "The node is stopping; nothing is written any more.")
        if len(self._waiting) >= WAITING_MAX:
            raise LocalError(
                Code.UNAVAILABLE, f"{WAITING_MAX} changes wait for the disk; try again in a while."
            )
        change = _Change(work)
        self._waiting.append(change)
        self._wake.set()
        try:
            await change.done.wait()
        finally:
            if change.result is None and change in self._waiting:
                self._waiting.remove(change)
        assert change.result is not None
        return cast("T", change.result.unwrap())

    async def read(self, work: Work[T]) -> T:
        """Run queries on a connection that cannot write; it sees all that was committed before.

        Raises what the work raises; LocalError UNAVAILABLE when the disk fails.
        """
        if self._inline:
            await trio.lowlevel.checkpoint()
            return self._told(lambda: work(self._writer))
        async with self._limiter:
            return await trio.to_thread.run_sync(self._read, work)

    def _read(self, work: Work[T]) -> T:
        # The limiter admits as many threads as there are connections to take.
        connection = self._readers.pop() if self._readers else self._told(self._open_reader)
        try:
            return self._told(lambda: work(connection))
        finally:
            if connection.in_transaction:
                connection.rollback()
            if self._closed:
                connection.close()
            else:
                self._readers.append(connection)

    def _open_reader(self) -> sqlite3.Connection:
        return _connect(f"{self._path.absolute().as_uri()}?mode=ro")

    def _told(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.OperationalError as error:
            raise self._disk_error(error) from error

    def _disk_error(self, error: sqlite3.Error) -> LocalError:
        return LocalError(
            Code.UNAVAILABLE,
            f"{self._path} cannot be used: {error}. Look at the disk's space and health.",
        )

    async def run(self) -> None:
        """Write whatever waits, group by group, until cancelled. While the disk takes nothing, try
        it now and then, so that whoever heeds `trouble` goes on without a restart."""
        while True:
            with trio.move_on_after(PROBE_SECONDS if self.trouble else float("inf")) as waited:
                await self._wake.wait()
            if waited.cancelled_caught:
                self._waiting.append(_Change(_probe))
            self._wake = trio.Event()
            while self._waiting:
                await self._write_group()

    async def _write_group(self) -> None:
        # A group that has begun is finished and told, so that nobody waits for ever; and at the
        # end the closing task takes a turn beside the writer's.
        with trio.CancelScope(shield=True):
            async with self._turn:
                if not self._waiting:
                    return  # The other one wrote it.
                size = min(GROUP_MAX, len(self._waiting))
                group = [self._waiting.popleft() for _ in range(size)]
                if self._inline:
                    await trio.lowlevel.checkpoint()
                    results = self._commit(group)
                else:
                    results = await trio.to_thread.run_sync(self._commit, group)
        for change, result in zip(group, results, strict=True):
            change.result = result
            change.done.set()

    def _commit(self, group: Sequence[_Change]) -> list[outcome.Outcome[Any]]:
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            results = [self._apply(change.work) for change in group]
            writer.execute("COMMIT")
        except (sqlite3.Error, LocalError) as error:
            # A full or failing disk undoes the transaction, so nobody's change was made.
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            told = error if isinstance(error, LocalError) else self._disk_error(error)
            self._note(told.sentence)
            return [outcome.Error(LocalError(told.code, told.sentence)) for _ in group]
        self._note(next(filter(None, map(_refusal_of_disk, results)), ""))
        return results

    def _note(self, trouble: str) -> None:
        if bool(trouble) != bool(self.trouble):
            event = "database.cannot_write" if trouble else "database.writes_again"
            (_log.error if trouble else _log.info)(event)
        self.trouble = trouble

    def _apply(self, work: Work[Any]) -> outcome.Outcome[Any]:
        self._writer.execute("SAVEPOINT change")
        result = outcome.capture(self._told, lambda: work(self._writer))
        if isinstance(result, outcome.Error):
            if not self._writer.in_transaction:
                result.unwrap()  # SQLite has undone the whole group itself, as for a full disk.
            self._writer.execute("ROLLBACK TO change")
        self._writer.execute("RELEASE change")
        return result

    async def close(self) -> None:
        """Write what still waits, then close the file; a group that is being written ends first."""
        self._closed = True
        with trio.CancelScope(shield=True):
            while self._waiting:
                await self._write_group()
            async with self._turn:
                for connection in [*self._readers, self._writer]:
                    connection.close()


@asynccontextmanager
async def open_database(
    path: Path, *, inline: bool = False, rescue: damage.Rescue | None = None
) -> AsyncIterator[Database]:
    """The database at `path`, made or brought up to date, checked, and with its writer running.

    With `rescue` a damaged one is set aside, never deleted, and a new one begun
    (`node.storage.damage`). `inline` does without threads: under a clock that jumps, a thread
    would let timeouts fire wrongly. Raises LocalError: WRONG_VERSION for a database of a newer
    Ayni, UNAVAILABLE for one that cannot be opened, or that is damaged where there is no `rescue`.
    """
    work = partial(_open_rescued, path, rescue)
    connection = work() if inline else await trio.to_thread.run_sync(work)
    set_aside = damage.all_set_aside(path)
    database = Database(connection, path, inline=inline, set_aside=set_aside)
    async with background(database.run):
        try:
            yield database
        finally:
            await database.close()


def _connect(uri: str) -> sqlite3.Connection:
    # One thread at a time uses a connection, though not always the same; and transactions are
    # begun and ended here, never behind our back.
    return sqlite3.connect(
        uri,
        timeout=LOCKED_SECONDS_MAX,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )


def _open_rescued(path: Path, rescue: damage.Rescue | None) -> sqlite3.Connection:
    """The writer's connection; a damaged file is put away first, if there is a rescue."""
    try:
        if damage.is_half_moved(path):
            raise damage.Damaged("part of it was put away, and then the node ended")
        connection = _open_writer(path, rescue)
    except damage.Damaged as error:
        if rescue is None:
            raise LocalError(
                Code.UNAVAILABLE,
                f"{path} cannot be used: {error}. Restore a backup, or move it away to begin anew.",
            ) from error
        kept = damage.set_aside(path, rescue.wall_ms())
        _log.error("database.set_aside", folder=kept.folder.name)
        connection = _open_writer(path, rescue)
    return connection


def _open_writer(path: Path, rescue: damage.Rescue | None) -> sqlite3.Connection:
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            damage.check_size(path)
            path.touch(mode=0o600)
            connection = _connect(f"{path.absolute().as_uri()}?mode=rw")
            stack.callback(connection.close)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            damage.check_pages(connection)
            migrate(connection, path)
            damage.mark_rebuilt(connection, damage.all_set_aside(path))
            if rescue is not None:
                rescue.check(connection)
        except (sqlite3.Error, OSError) as error:
            if damage.is_damage(error):
                raise damage.Damaged(str(error)) from error
            raise LocalError(
                Code.UNAVAILABLE,
                f"{path} cannot be used: {error}. Look at the disk's space, health and rights; "
                "what is in it is not lost.",
            ) from error
        stack.pop_all()
    return connection


def _refusal_of_disk(result: outcome.Outcome[Any]) -> str:
    """Why the disk took one change of a group that it took otherwise; "" where it did."""
    if not isinstance(result, outcome.Error) or not isinstance(result.error, LocalError):
        return ""
    return result.error.sentence if damage.is_of_disk(result.error.__cause__) else ""


def _probe(connection: sqlite3.Connection) -> None:
    """A change that is worth nothing, and yet must reach the disk."""
    connection.execute(
        "INSERT INTO counters VALUES ('probe', 1) "
        "ON CONFLICT (name) DO UPDATE SET value = value + 1"
    )


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL)")
    version = connection.execute("SELECT coalesce(max(version), 0) FROM schema").fetchone()[0]
    if version > len(MIGRATIONS):
        raise LocalError(
            Code.WRONG_VERSION,
            f"{path} is of version {version} and this Ayni knows {len(MIGRATIONS)}: "
            "a newer Ayni has used it, so use that one.",
        )
    for number in range(version + 1, len(MIGRATIONS) + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in MIGRATIONS[number - 1]:
                connection.execute(statement)
            connection.execute("DELETE FROM schema")
            connection.execute("INSERT INTO schema VALUES (?)", (number,))
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
