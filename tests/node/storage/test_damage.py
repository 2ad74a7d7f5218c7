"""Databases damaged as disks do it: found at opening, put away, begun anew."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from node.storage import damage
from node.storage.damage import FOLDER_PREFIX, Damaged, Rescue
from node.storage.database import Database, open_database
from protocol.errors import Code, LocalError

NOW_MS = 1_795_467_821_000
NAME = f"{FOLDER_PREFIX}20261123T210341Z"


def well(_connection: sqlite3.Connection) -> None:
    """Finds nothing wrong."""


RESCUE = Rescue(lambda: NOW_MS, well)


async def filled(file: Path) -> None:
    async with open_database(file) as store:
        await store.write(fill)


def fill(connection: sqlite3.Connection) -> None:
    rows = [(f"{number:0200}", number) for number in range(400)]
    connection.executemany("INSERT INTO counters VALUES (?, ?)", rows)


async def restored(store: Database) -> bool:
    def work(connection: sqlite3.Connection) -> set[str]:
        return {name for (name,) in connection.execute("SELECT name FROM ledger_state")}

    states = await store.read(work)
    assert states in (set(), {"restored", "forgot"})
    return bool(states)


def cut_short(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def cut_to_nothing(file: Path) -> None:
    os.truncate(file, 0)


def cut_in_a_page(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 100)


def overwrite_head(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(b"\0" * 512)


def overwrite_pages(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(4096 * 20)
        opened.write(b"\xff" * 4096 * 10)


def other_file(file: Path) -> None:
    file.write_bytes(b"this is no database at all" * 1000)


WAYS = [cut_short, cut_to_nothing, cut_in_a_page, overwrite_head, overwrite_pages, other_file]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("inline", [False, True], ids=["threads", "inline"])
async def test_it_is_put_away_whole_and_a_new_one_begun(
    tmp_path: Path, way: Callable[[Path], None], inline: bool
) -> None:
    file = tmp_path / "ayni.db"
    await filled(file)
    way(file)
    broken = file.read_bytes()
    async with open_database(file, inline=inline, rescue=RESCUE) as store:
        [kept] = store.set_aside
        assert (kept.folder, kept.at) == (tmp_path / NAME, "20261123T210341Z")
        assert (kept.folder / "ayni.db").read_bytes() == broken
        assert await restored(store)
        assert await store.read(lambda it: it.execute("SELECT count(*) FROM jobs").fetchone()) == (
            0,
        )
    # Said once: when the ledger has gone on, it is not stopped by what is long over.
    async with open_database(file, inline=inline, rescue=RESCUE) as store:
        await store.write(lambda it: it.execute("DELETE FROM ledger_state").close())
    async with open_database(file, inline=inline, rescue=RESCUE) as store:
        assert len(store.set_aside) == 1
        assert not await restored(store)


async def test_without_a_rescue_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    await filled(file)
    cut_short(file)
    before = file.read_bytes()
    with pytest.raises(LocalError, match="Restore a backup") as caught:
        async with open_database(file):
            pass
    assert caught.value.code is Code.UNAVAILABLE
    assert file.read_bytes() == before


async def test_what_its_owner_finds_wrong_is_damage_too(tmp_path: Path) -> None:
    def check(connection: sqlite3.Connection) -> None:
        if connection.execute("SELECT count(*) FROM counters WHERE value = 7").fetchone()[0]:
            raise Damaged("a seven")

    file = tmp_path / "ayni.db"
    await filled(file)
    async with open_database(file, rescue=Rescue(lambda: NOW_MS, check)) as store:
        assert await restored(store)
        assert [one.folder.name for one in store.set_aside] == [NAME]


async def test_two_within_a_second_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    for number in (1, 2):
        await filled(file)
        cut_short(file)
        async with open_database(file, rescue=RESCUE) as store:
            assert len(store.set_aside) == number
        file.unlink()
    assert sorted(os.listdir(tmp_path)) == [NAME, f"{NAME}-2"]


@pytest.mark.parametrize("moved", [("-wal",), ("-wal", "-shm"), ("-wal", "-shm", "")])
async def test_a_move_that_a_crash_cut_in_two_is_ended(
    tmp_path: Path, moved: tuple[str, ...]
) -> None:
    """The log of changes must never come to lie beside a database that it is not of."""
    file = tmp_path / "ayni.db"
    await filled(file)
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).write_bytes(b"of the damaged one")
    moving = tmp_path / "ayni.db.moving"
    moving.mkdir()
    for suffix in moved:
        part = file.with_name(file.name + suffix)
        part.rename(moving / part.name)
    with pytest.raises(LocalError, match="put away"):
        async with open_database(file):
            pass
    async with open_database(file, rescue=RESCUE) as store:
        assert await restored(store)
    assert sorted(path.name for path in (tmp_path / NAME).iterdir()) == [
        "ayni.db",
        "ayni.db-shm",
        "ayni.db-wal",
    ]
    assert not moving.exists()


async def test_a_crash_before_the_new_one_is_marked_loses_no_mark(tmp_path: Path) -> None:
    """Putting away and beginning anew are two things on disk, and a crash may come between."""
    file = tmp_path / "ayni.db"
    await filled(file)
    damage.set_aside(file, NOW_MS)
    async with open_database(file) as store:
        assert await restored(store)


async def test_a_full_or_read_only_disk_is_no_damage(tmp_path: Path) -> None:
    if not os.getuid():
        pytest.skip("root may write anywhere")
    file = tmp_path / "ayni.db"
    await filled(file)
    file.chmod(0o400)
    with pytest.raises(LocalError, match="not lost"):
        async with open_database(file, rescue=RESCUE):
            pass
    assert file.exists()
    file.chmod(0o600)
    async with open_database(file, rescue=RESCUE) as store:
        assert not store.set_aside
        assert not await restored(store)


@pytest.mark.parametrize(
    ("code", "is_damage"),
    [
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_CORRUPT_INDEX, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_READONLY, False),
        (sqlite3.SQLITE_CANTOPEN, False),
        (sqlite3.SQLITE_BUSY, False),
    ],
)
def test_only_a_wrong_file_is_damage(code: int, is_damage: bool) -> None:
    error = sqlite3.OperationalError("said by SQLite")
    error.sqlite_errorcode = code
    assert damage.is_damage(error) == is_damage
