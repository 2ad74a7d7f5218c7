"""A damaged database: known as such, set aside whole, and a new one begun in its place.

Nothing is deleted. The new database knows that it is one: its ledger counts as restored from an
old copy, so that nothing is signed before all witnesses have answered (facts of the ledger, 2.2),
and a witness that begins anew has lost its votes and casts none.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER_PREFIX: Final = "damaged-"
_MOVING: Final = ".moving"
_SUFFIXES: Final = ("-wal", "-shm", "")
"""The database goes last. Were it to go first, a crash could leave a log of changes to a new
database that they do not belong to."""
_PRIMARY_CODES: Final = 0xFF  # Of SQLite's extended codes, the low byte is the kind.
_DAMAGE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_OF_DISK: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}


class Damaged(sqlite3.DatabaseError):
    """What is stored is not what was written."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """How a damaged database is dealt with. `check` looks at what only its owner understands, and
    raises Damaged; it runs once the tables are there, so it must be quick."""

    wall_ms: Callable[[], int]
    check: Callable[[sqlite3.Connection], None]


@dataclass(frozen=True, slots=True)
class SetAside:
    """A damaged database that was put away."""

    folder: Path
    at: str  # In UTC, as 20261123T210341Z.


def is_damage(error: BaseException) -> bool:
    """Whether the file itself is wrong. A disk that is full, read-only or failing is not that: what
    is on it stays good."""
    return isinstance(error, Damaged) or _code(error) in _DAMAGE


def is_of_disk(error: BaseException | None) -> bool:
    """Whether the disk is full, read-only or failing, so that the next change may fail as well."""
    return _code(error) in _OF_DISK


def _code(error: BaseException | None) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    return code & _PRIMARY_CODES if isinstance(code, int) else sqlite3.SQLITE_OK


def check_size(path: Path) -> None:
    """Raises Damaged where a file's length shows that it was cut, which SQLite may not see."""
    if not path.exists():
        return
    size = path.stat().st_size
    if not size:
        # A crash in a database's first moments leaves it so too; to take that for a loss costs a
        # longer wait for witnesses, and no more.
        raise Damaged("it is empty")
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        return  # What the file lacks may be in the log.
    with path.open("rb") as file:
        page_bytes = int.from_bytes(file.read(18)[16:], "big") or 1
    if size % (65_536 if page_bytes == 1 else page_bytes):
        raise Damaged("it ends in the middle of a page")


def check_pages(connection: sqlite3.Connection) -> None:
    """Raises Damaged where SQLite finds a page that cannot be."""
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise Damaged(problem)


def set_aside(path: Path, wall_ms: int) -> SetAside:
    """Put the files of a database into a folder beside it, which is named by the time. A move that
    a crash has cut in two is ended by the next one. Raises OSError."""
    moving = path.with_name(path.name + _MOVING)
    moving.mkdir(mode=0o700, exist_ok=True)
    for suffix in _SUFFIXES:
        part = path.with_name(path.name + suffix)
        if part.exists():
            os.replace(part, moving / part.name)
    names_to_disk(moving)
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall_ms / 1000))
    folder, number = path.with_name(FOLDER_PREFIX + at), 1
    while folder.exists():
        number += 1
        folder = path.with_name(f"{FOLDER_PREFIX}{at}-{number}")
    os.replace(moving, folder)
    names_to_disk(path.parent)
    return _described(folder)


def is_half_moved(path: Path) -> bool:
    """Whether a crash has cut a move in two: what is left in the place of the database is part of
    the damaged one."""
    return path.with_name(path.name + _MOVING).exists()


def all_set_aside(path: Path) -> Sequence[SetAside]:
    """Every database of this home that was put away and is still there, the oldest first."""
    return [
        _described(folder)
        for folder in sorted(path.parent.glob(f"{FOLDER_PREFIX}*"))
        if (folder / path.name).exists()
    ]


def mark_rebuilt(connection: sqlite3.Connection, kept: Sequence[SetAside]) -> None:
    """Say in a database that others came before it which are lost: once for each of them. Whatever
    crash comes between setting one aside and this, it is said before anything is signed."""
    known = {name for (name,) in connection.execute("SELECT name FROM counters")}
    news = [one.folder.name for one in kept if one.folder.name not in known]
    if not news:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for name in news:
            connection.execute("INSERT INTO counters VALUES (?, 1)", (name,))
        mark_restored(connection)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def mark_restored(connection: sqlite3.Connection) -> None:
    """Say, in the change at hand, that this database knows less than its key has signed: entries,
    and, if it is a witness's, votes and seats, of which it casts none until its owner resumes."""
    connection.execute("INSERT OR IGNORE INTO ledger_state VALUES ('restored', X'')")
    connection.execute("INSERT OR IGNORE INTO ledger_state VALUES ('forgot', X'')")


def _described(folder: Path) -> SetAside:
    return SetAside(folder, folder.name.removeprefix(FOLDER_PREFIX))


def names_to_disk(folder: Path) -> None:
    """The names in a folder are on disk when this returns. Windows has no such call, and needs
    none. Raises OSError."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
