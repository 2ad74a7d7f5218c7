"""A disk that is full or read-only for a while: it is told, nothing is half done, and it ends."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from node.storage import database
from node.storage.database import PROBE_SECONDS, Database, Work, open_database
from protocol.errors import Code, LocalError

Clock = trio.testing.MockClock


def pragma(words: str) -> Work[None]:
    return lambda connection: connection.execute(f"PRAGMA {words}").close()


def put(name: str, size: int = 1) -> Work[None]:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO counters VALUES (? || hex(zeroblob(?)), 1)", (name, size))

    return work


async def kept(store: Database) -> set[str]:
    def work(connection: sqlite3.Connection) -> set[str]:
        rows = connection.execute("SELECT substr(name, 1, 5) FROM counters")
        return {name for (name,) in rows if name != "probe"}

    return await store.read(work)


FULL = ("max_page_count = 1", "max_page_count = 100000")
READ_ONLY = ("query_only = 1", "query_only = 0")


@pytest.mark.parametrize(("begin", "end"), [FULL, READ_ONLY], ids=["full", "read-only"])
async def test_it_is_told_and_ends_by_itself(
    tmp_path: Path, autojump_clock: Clock, begin: str, end: str
) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as store:
        await store.write(put("first"))
        assert store.trouble == ""
        await store.write(pragma(begin))
        with pytest.raises(LocalError) as caught:
            await store.write(put("large", 1_000_000))
        assert caught.value.code is Code.UNAVAILABLE
        assert store.trouble == caught.value.sentence
        await trio.sleep(10 * PROBE_SECONDS)
        if begin == "query_only = 1":  # There may be room for something small.
            assert store.trouble, "as long as it lasts it is told"
        assert await kept(store) == {"first"}
        # The owner makes room. Nobody writes, since whoever asks is turned away.
        await store.read(pragma(end))
        await trio.sleep(1.1 * PROBE_SECONDS)
        assert store.trouble == ""
        await store.write(put("third", 1_000_000))
        assert await kept(store) == {"first", "third"}


async def test_a_mistake_in_a_change_is_no_trouble_of_the_disk(tmp_path: Path) -> None:
    async with open_database(tmp_path / "ayni.db") as store:
        with pytest.raises(LocalError, match="no such table"):
            await store.write(lambda it: it.execute("INSERT INTO nowhere VALUES (1)").close())
        assert store.trouble == ""


LIMITED = """
import resource, signal, sys
from pathlib import Path
import trio
from node.storage.database import open_database
from protocol.errors import LocalError

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with open_database(Path(sys.argv[1])) as store:
        def put(name):
            statement = f"INSERT INTO counters VALUES ('{name}' || hex(zeroblob(20000)), 1)"
            return lambda connection: connection.execute(statement).close()

        told = 0
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (800_000, most))
        for number in range(100):
            try:
                await store.write(put(number))
            except LocalError as error:
                assert store.trouble == error.sentence
                break
            told += 1
        assert 0 < told < 100, told
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        await store.write(put("last"))
        assert store.trouble == ""
        print(told)

trio.run(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit.")
async def test_what_was_told_is_there_after_the_files_could_not_grow(tmp_path: Path) -> None:
    """The system itself refuses here, in the middle of the log of changes."""
    file = tmp_path / "ayni.db"
    root = Path(database.__file__).parent.parent.parent
    done = await trio.run_process(
        [sys.executable, "-c", LIMITED, str(file)],
        cwd=root,
        check=False,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    async with open_database(file) as store:
        assert len(await kept(store)) == int(done.stdout.split()[-1]) + 1
