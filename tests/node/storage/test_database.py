"""The database: groups share a commit, each change stands alone, and what is told is on disk."""

import sqlite3
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from node.storage import database
from node.storage.database import GROUP_MAX, Database, open_database
from node.storage.migrations import MIGRATIONS
from protocol.errors import Code, LocalError


def put(name: str, value: int) -> database.Work[None]:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO counters VALUES (?, ?)", (name, value))

    return work


def everything(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT name, value FROM counters"))


async def put_all(store: Database, names: list[str]) -> list[str]:
    """Put all at once; returns the names that failed."""
    failed = []

    async def one(name: str, value: int) -> None:
        try:
            await store.write(put(name, value))
        except sqlite3.IntegrityError:
            failed.append(name)

    async with trio.open_nursery() as nursery:
        for value, name in enumerate(names):
            nursery.start_soon(one, name, value)
    return failed


@pytest.fixture(params=[False, True], ids=["threads", "inline"])
def inline(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_what_was_written_is_read_back_after_reopening(tmp_path: Path, inline: bool) -> None:
    file = tmp_path / "data" / "ayni.db"
    async with open_database(file, inline=inline) as store:
        await store.write(put("a", 1))
        assert await store.read(everything) == {"a": 1}
    async with open_database(file, inline=inline) as store:
        assert await store.read(everything) == {"a": 1}
    assert [path.name for path in file.parent.iterdir()] == ["ayni.db"]
    assert file.stat().st_mode & 0o077 == 0


async def test_a_write_returns_what_its_work_returns(tmp_path: Path, inline: bool) -> None:
    async with open_database(tmp_path / "ayni.db", inline=inline) as store:
        assert await store.write(lambda connection: 42) == 42


async def test_a_change_that_fails_is_undone_alone(tmp_path: Path, inline: bool) -> None:
    def half(connection: sqlite3.Connection) -> None:
        put("half", 1)(connection)
        raise ValueError("mine")

    caught: list[ValueError] = []

    async def fail() -> None:
        try:
            await store.write(half)
        except ValueError as error:
            caught.append(error)

    async with open_database(tmp_path / "ayni.db", inline=inline) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, put("before", 1))
            nursery.start_soon(fail)
            nursery.start_soon(store.write, put("after", 2))
        assert await store.read(everything) == {"before": 1, "after": 2}
    assert [str(error) for error in caught] == ["mine"]


async def test_changes_that_wait_together_share_commits(tmp_path: Path) -> None:
    statements: list[str] = []
    async with open_database(tmp_path / "ayni.db") as store:
        await store.write(lambda connection: connection.set_trace_callback(statements.append))
        statements.clear()
        names = [f"n{number}" for number in range(3 * GROUP_MAX)]
        assert await put_all(store, names) == []
        assert set(await store.read(everything)) == set(names)
    # The first one may go alone, while the rest gather.
    assert statements.count("COMMIT") <= 4
    assert statements.count("SAVEPOINT change") == 3 * GROUP_MAX


@settings(max_examples=15)
@given(st.lists(st.sampled_from("abcdef"), max_size=20))
def test_of_equal_names_exactly_one_is_kept(names: list[str]) -> None:
    async def main() -> None:
        async with open_database(Path(folder) / "ayni.db", inline=True) as store:
            failed = await put_all(store, names)
            kept = await store.read(everything)
            assert set(kept) == set(names)
            assert sorted([*kept, *failed]) == sorted(names)

    with tempfile.TemporaryDirectory() as folder:
        trio.run(main)


async def test_readers_cannot_write(tmp_path: Path) -> None:
    async with open_database(tmp_path / "ayni.db") as store:
        with pytest.raises(LocalError, match="readonly"):
            await store.read(put("a", 1))
        assert await store.read(everything) == {}


async def test_readers_go_on_beside_one_another(tmp_path: Path) -> None:
    async with open_database(tmp_path / "ayni.db") as store:
        await store.write(put("a", 1))
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(store.read, everything)
        assert await store.read(everything) == {"a": 1}


async def test_a_cancelled_caller_harms_nobody(tmp_path: Path, inline: bool) -> None:
    async with open_database(tmp_path / "ayni.db", inline=inline) as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.write(put("cancelled", 1))
        await store.write(put("kept", 2))
        assert await store.read(everything) == {"kept": 2}


class Gate:
    """A change that takes as long as a test wants."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def work(self, connection: sqlite3.Connection) -> None:
        self.entered.set()
        assert self.opened.wait(30)


async def test_closing_writes_what_waits_and_refuses_more(tmp_path: Path) -> None:
    file, gate = tmp_path / "ayni.db", Gate()

    async def open_gate_when_all_wait() -> None:
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()

    async with trio.open_nursery() as nursery, open_database(file) as store:
        nursery.start_soon(store.write, gate.work)
        assert await trio.to_thread.run_sync(gate.entered.wait, 30)
        for number in range(GROUP_MAX + 5):
            nursery.start_soon(store.write, put(f"n{number}", number))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(open_gate_when_all_wait)
    with pytest.raises(LocalError, match="stopping"):
        await store.write(put("late", 1))
    async with open_database(file) as store:
        assert len(await store.read(everything)) == GROUP_MAX + 5


async def test_a_change_that_has_begun_is_made_though_its_caller_is_cancelled(
    tmp_path: Path,
) -> None:
    gate = Gate()

    def slow(connection: sqlite3.Connection) -> None:
        gate.work(connection)
        put("slow", 1)(connection)

    async with open_database(tmp_path / "ayni.db") as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, slow)
            assert await trio.to_thread.run_sync(gate.entered.wait, 30)
            nursery.start_soon(store.write, put("waiting", 2))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        gate.opened.set()
        await store.write(put("after", 3))
        assert await store.read(everything) == {"slow": 1, "after": 3}


async def test_cancelling_everything_closes_in_order(tmp_path: Path, inline: bool) -> None:
    with trio.CancelScope() as scope:
        async with open_database(tmp_path / "ayni.db", inline=inline) as store:
            await store.write(put("a", 1))
            scope.cancel()
            await store.write(put("b", 2))
    assert scope.cancelled_caught
    async with open_database(tmp_path / "ayni.db", inline=inline) as store:
        assert await store.read(everything) == {"a": 1}


@pytest.mark.parametrize("count", [0, 2, GROUP_MAX + 1, 2 * GROUP_MAX + 1])
async def test_whoever_waits_is_told_though_the_database_is_cancelled(
    tmp_path: Path, count: int
) -> None:
    gate, told = Gate(), list[int]()

    async def outsider(number: int) -> None:
        await store.write(put(f"n{number}", number))
        told.append(number)

    async def open_gate_when_all_wait() -> None:
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with open_database(tmp_path / "ayni.db") as store:
                    nursery.start_soon(store.write, gate.work)
                    assert await trio.to_thread.run_sync(gate.entered.wait, 30)
                    for number in range(count):
                        nursery.start_soon(outsider, number)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(open_gate_when_all_wait)
                    scope.cancel()
                    await trio.sleep_forever()
    assert sorted(told) == list(range(count))
    async with open_database(tmp_path / "ayni.db") as store:
        assert len(await store.read(everything)) == count


@pytest.mark.parametrize("steps", range(8))
async def test_whoever_waits_is_told_wherever_the_cancellation_falls(
    tmp_path: Path, steps: int
) -> None:
    told = []

    async def outsider() -> None:
        await store.write(put("a", 1))
        told.append("a")

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with open_database(tmp_path / "ayni.db", inline=True) as store:
                    nursery.start_soon(outsider)
                    for _ in range(1 + steps):  # One, so that the outsider has begun.
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
                    await trio.sleep_forever()
    assert told == ["a"]


async def test_a_full_disk_fails_the_group_and_no_more(tmp_path: Path) -> None:
    def limit(pages: int) -> database.Work[None]:
        return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").close()

    def large(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO counters VALUES (hex(zeroblob(1000000)), 1)")

    async with open_database(tmp_path / "ayni.db") as store:
        await store.write(put("first", 1))
        await store.write(limit(30))
        with pytest.raises(LocalError, match="full") as caught:
            await store.write(large)
        assert caught.value.code == Code.UNAVAILABLE
        await store.write(limit(100_000))
        await store.write(put("second", 2))
        assert await store.read(everything) == {"first": 1, "second": 2}


async def test_nothing_is_told_as_written_when_the_group_was_lost(tmp_path: Path) -> None:
    told: list[str] = []

    def end_it(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    async def one(work: database.Work[None]) -> None:
        try:
            await store.write(work)
            told.append("written")
        except LocalError as error:
            told.append(error.sentence)

    async with open_database(tmp_path / "ayni.db", inline=True) as store:
        async with trio.open_nursery() as nursery:
            for work in (put("a", 1), end_it, put("b", 2)):
                nursery.start_soon(one, work)
        assert len(told) == 3
        assert all("disk I/O error" in sentence for sentence in told)
        assert await store.read(everything) == {}
        await store.write(put("c", 3))
        assert await store.read(everything) == {"c": 3}


KILLED = """
import os, sys
from pathlib import Path
import trio
from node.storage.database import open_database

async def main():
    async with open_database(Path(sys.argv[1])) as store:
        for number in range(5):
            put = f"INSERT INTO counters VALUES ({number}, 1)"
            await store.write(lambda connection: connection.execute(put).close())
        os._exit(9)

trio.run(main)
"""


async def test_what_was_told_survives_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    root = Path(database.__file__).parent.parent.parent
    done = await trio.run_process(
        [sys.executable, "-c", KILLED, str(file)], cwd=root, check=False, capture_stderr=True
    )
    assert done.returncode == 9, done.stderr
    async with open_database(file) as store:
        assert len(await store.read(everything)) == 5


async def test_the_schema_is_made_step_by_step_and_only_once(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    for _ in range(2):
        async with open_database(file) as store:
            versions = await store.read(
                lambda connection: connection.execute("SELECT version FROM schema").fetchall()
            )
            assert versions == [(len(MIGRATIONS),)]


async def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    async with open_database(file) as store:
        await store.write(put("a", 1))
        await store.write(
            lambda connection: connection.execute("UPDATE schema SET version = 999").close()
        )
    before = file.read_bytes()
    with pytest.raises(LocalError, match="999") as caught:
        async with open_database(file):
            pass
    assert caught.value.code == Code.WRONG_VERSION
    assert file.read_bytes() == before


async def test_a_damaged_database_is_refused(tmp_path: Path, inline: bool) -> None:
    file = tmp_path / "ayni.db"
    file.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(LocalError, match="Restore a backup") as caught:
        async with open_database(file, inline=inline):
            pass
    assert caught.value.code == Code.UNAVAILABLE


async def test_a_damaged_page_is_found_at_opening(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    async with open_database(file) as store:
        await put_all(store, [f"{number:0200}" for number in range(200)])
    data = bytearray(file.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    file.write_bytes(data)
    with pytest.raises(LocalError, match="Restore a backup"):
        async with open_database(file):
            pass


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="cannot be used"):
        async with open_database(tmp_path / "file" / "ayni.db"):
            pass


async def test_too_many_waiting_changes_are_refused(tmp_path: Path) -> None:
    codes: list[Code] = []

    async def one(number: int) -> None:
        try:
            await store.write(put(f"n{number}", number))
        except LocalError as error:
            codes.append(error.code)

    async with open_database(tmp_path / "ayni.db", inline=True) as store:
        async with trio.open_nursery() as nursery:
            for number in range(database.WAITING_MAX + 50):
                nursery.start_soon(one, number)
        assert len(await store.read(everything)) + len(codes) == database.WAITING_MAX + 50
    assert set(codes) <= {Code.UNAVAILABLE}
