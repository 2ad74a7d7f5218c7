"""Our own chain is verified from its bytes at each opening: a turned bit is found."""

import sqlite3
from functools import partial
from pathlib import Path

import pytest

from node.storage.damage import Damaged, Rescue
from node.storage.database import open_database
from node.storage.ledger import LedgerStore, Records
from node.storage.soundness import check_own
from protocol.ledger.decoder import packed
from protocol.ledger.witness import Applied, Follower
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    Chain,
    claim,
    entry_after,
    pay,
    signed_entry,
)

OWN = ANNA.node
CHECK = partial(check_own, charter=CHARTER, own=OWN)


async def written(file: Path) -> None:
    """Anna pays three times; Bruno claims the first, so that there is another's chain too."""
    anna, bruno = Chain(ANNA), Chain(BRUNO)
    paid = anna.add(pay(BRUNO, 30, b"r" * 32))
    bruno.add(claim(paid))
    for number in (1, 2):
        anna.add(pay(BRUNO, number, bytes([number]) * 32))
    follower = Follower(CHARTER, OWN)

    def work(records: Records) -> None:
        for certified in [*anna.certified, *bruno.certified]:
            outcome = follower.on_certificate(certified, records)
            assert isinstance(outcome, Applied)
            records.apply(outcome, OWN)

    async with open_database(file, inline=True) as database:
        await LedgerStore(database, CHARTER).write(work)


def change(file: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(file) as connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


async def fault(file: Path) -> str:
    """What is found wrong; "" for nothing."""
    try:
        async with open_database(file, inline=True) as database:
            await database.read(CHECK)
    except Damaged as error:
        return str(error)
    return ""


async def test_a_sound_one_is_found_sound(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    await written(file)
    assert await fault(file) == ""
    async with open_database(tmp_path / "empty.db", inline=True) as database:
        await database.read(CHECK)


def turn_a_bit(file: Path, seq: int, place: int) -> None:
    with sqlite3.connect(file) as connection:
        row = connection.execute(
            "SELECT certified FROM ledger_entries WHERE account = ? AND seq = ?", (OWN, seq)
        )
        data = bytearray(row.fetchone()[0])
    connection.close()
    data[place] ^= 1
    statement = "UPDATE ledger_entries SET certified = ? WHERE account = ? AND seq = ?"
    change(file, statement, bytes(data), OWN, seq)


@pytest.mark.parametrize("seq", [1, 2, 3])
async def test_any_turned_bit_of_an_entry_is_found(tmp_path: Path, seq: int) -> None:
    """In the middle of the entry's own bytes, where the form stays whole."""
    file = tmp_path / "ayni.db"
    await written(file)
    for place in (60, 90, 120, 150):
        turn_a_bit(file, seq, place)
        assert await fault(file), place
        turn_a_bit(file, seq, place)
    assert await fault(file) == ""


async def test_the_seals_of_the_head_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    await written(file)
    turn_a_bit(file, 3, -5)
    assert "none" in await fault(file)


WRONG = [
    ("UPDATE ledger_accounts SET balance = balance + 1 WHERE account = ?", "disagree"),
    ("UPDATE ledger_accounts SET head = zeroblob(32) WHERE account = ?", "disagree"),
    ("DELETE FROM ledger_entries WHERE seq = 3 AND account = ?", "disagree"),
    ("DELETE FROM ledger_entries WHERE seq = 2 AND account = ?", "missing"),
]


@pytest.mark.parametrize(("statement", "words"), WRONG)
async def test_rows_that_do_not_fit_are_found(tmp_path: Path, statement: str, words: str) -> None:
    file = tmp_path / "ayni.db"
    await written(file)
    change(file, statement, OWN)
    assert words in await fault(file)


async def test_a_pending_entry_that_nobody_signed_is_found(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    await written(file)
    forged = signed_entry(ANNA, entry_after(Chain(ANNA).state, pay(BRUNO, 1)))
    data = bytearray(packed(forged))
    data[-1] ^= 1
    change(file, "INSERT INTO ledger_pending VALUES (1, 4, ?)", bytes(data))
    assert "none" in await fault(file)


async def test_what_does_not_hold_is_set_aside_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    await written(file)
    turn_a_bit(file, 2, 90)
    async with open_database(file, rescue=Rescue(lambda: 0, CHECK)) as database:
        [kept] = database.set_aside
        assert (kept.folder / "ayni.db").exists()
        store = LedgerStore(database, CHARTER)
        assert (await store.read(lambda it: it.account(OWN))).seq == 0
        assert await store.read(lambda it: it.state("restored")) == b""
