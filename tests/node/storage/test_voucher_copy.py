"""The second copy of the vouchers: what was counted is in it, whatever its own disk does."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.storage import voucher_copy
from node.storage.channels import Counted, VoucherStore
from node.storage.database import open_database
from node.storage.salvage import vouchers_salvaged
from node.storage.voucher_copy import HEADER, VoucherCopy
from protocol.identity import Identity, Seed
from protocol.ids import MessageId, NetworkId
from protocol.ledger.voucher import Voucher, voucher_signed

NETWORK = NetworkId(b"\x07" * 32)
PAYERS = [Identity(Seed(bytes([number]) * 32)) for number in (1, 2)]
CHANNELS = [MessageId(bytes([number]) * 32) for number in range(10, 15)]


def counted(channel: int, cumulative: int, payer: int = 0, network: NetworkId = NETWORK) -> Counted:
    identity = PAYERS[payer]
    voucher = Voucher(CHANNELS[channel], cumulative, bytes(32), b"")
    signed = voucher_signed(identity, voucher, network)
    return Counted(CHANNELS[channel], identity.node, cumulative, signed, 5)


@asynccontextmanager
async def store_at(file: Path, copy: VoucherCopy) -> AsyncIterator[VoucherStore]:
    async with open_database(file, inline=True) as database:
        store = VoucherStore(database, copy)
        copy.live = store.vouchers
        yield store


async def replayed(folder: Path, path: Path) -> dict[MessageId, int]:
    """What a database that knows nothing has from the copy alone."""
    copy = VoucherCopy(path, NETWORK, inline=True)
    async with store_at(folder / "fresh.db", copy) as store:
        await copy.replay(store)
        found = {one.channel: one.cumulative for one in await store.vouchers()}
    os.unlink(folder / "fresh.db")
    return found


async def test_what_was_counted_comes_back(tmp_path: Path) -> None:
    copy = VoucherCopy(tmp_path / "copy", NETWORK, inline=True)
    async with store_at(tmp_path / "ayni.db", copy) as store:
        await copy.replay(store)
        for channel, cumulative in [(0, 5), (1, 7), (0, 9), (2, 1)]:
            await store.put(counted(channel, cumulative))
        assert copy.trouble == ""
    assert os.stat(tmp_path / "copy").st_mode & 0o077 == 0
    expected = {CHANNELS[0]: 9, CHANNELS[1]: 7, CHANNELS[2]: 1}
    assert await replayed(tmp_path, tmp_path / "copy") == expected


async def test_it_is_in_the_copy_before_it_is_counted(tmp_path: Path) -> None:
    """The copy is written first: a crash between the two finds it there."""
    copy = VoucherCopy(tmp_path / "copy", NETWORK, inline=True)
    seen: list[list[Counted]] = []

    async def look(group: object) -> None:
        await copy(group)  # type: ignore[arg-type]
        seen.append(await store.vouchers())

    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = VoucherStore(database, look)
        copy.live = store.vouchers
        await store.put(counted(0, 5))
    assert seen == [[]]
    assert await replayed(tmp_path, tmp_path / "copy") == {CHANNELS[0]: 5}


async def test_a_start_makes_whole_what_is_not_there(tmp_path: Path) -> None:
    """A setting that is new, or a disk that was changed for another."""
    async with store_at(
        tmp_path / "ayni.db", VoucherCopy(tmp_path / "old", NETWORK, inline=True)
    ) as store:
        await store.put(counted(0, 5))
    copy = VoucherCopy(tmp_path / "copy", NETWORK, inline=True)
    async with store_at(tmp_path / "ayni.db", copy) as store:
        assert await copy.replay(store) == 0
    assert await replayed(tmp_path, tmp_path / "copy") == {CHANNELS[0]: 5}


async def test_a_copy_that_fails_stops_no_earning_and_is_made_whole(tmp_path: Path) -> None:
    folder = tmp_path / "other disk"
    copy = VoucherCopy(folder / "copy", NETWORK, inline=True)
    async with store_at(tmp_path / "ayni.db", copy) as store:
        await copy.replay(store)
        assert "cannot be written" in copy.trouble
        await store.put(counted(0, 5))
        assert copy.trouble
        os.mkdir(folder)
        await store.put(counted(1, 6))
        assert copy.trouble == ""
        os.rename(folder, tmp_path / "taken out")
        await store.put(counted(2, 7))
        assert copy.trouble
        os.rename(tmp_path / "taken out", folder)
        await store.put(counted(3, 8))
        assert copy.trouble == ""
    expected = {CHANNELS[number]: 5 + number for number in range(4)}
    assert await replayed(tmp_path, folder / "copy") == expected


async def test_it_stays_compact(tmp_path: Path) -> None:
    bytes_max = 16 << 10
    copy = VoucherCopy(tmp_path / "copy", NETWORK, inline=True, bytes_max=bytes_max)
    async with store_at(tmp_path / "ayni.db", copy) as store:
        await copy.replay(store)
        one = counted(0, 5)
        await store.put(one)
        size = os.stat(copy.path).st_size - len(HEADER)
        for _ in range(bytes_max // size):
            await copy([one])
        assert os.stat(copy.path).st_size > bytes_max - size
        for _ in range(3):
            await copy([one])
        assert os.stat(copy.path).st_size < bytes_max // 10
    assert await replayed(tmp_path, copy.path) == {CHANNELS[0]: 5}


async def test_what_is_claimed_leaves_it_and_does_not_come_back(tmp_path: Path) -> None:
    copy = VoucherCopy(tmp_path / "copy", NETWORK, inline=True)
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = VoucherStore(database, copy)
        copy.live = store.vouchers
        await copy.replay(store)
        await store.put(counted(0, 5))
        await store.put(counted(1, 6))
        row = (CHANNELS[0], PAYERS[0].node, PAYERS[1].node)
        done = "INSERT INTO ledger_own_channels VALUES (1, ?, ?, ?, 0, 1, 1)"
        await database.write(lambda it: it.execute(done, row).close())
        await store.forget(CHANNELS[0], PAYERS[0].node, 5)
    copy = VoucherCopy(tmp_path / "copy", NETWORK, inline=True)
    async with store_at(tmp_path / "ayni.db", copy) as store:
        assert await copy.replay(store) == 0
        assert [one.channel for one in await store.vouchers()] == [CHANNELS[1]]
    assert await replayed(tmp_path, copy.path) == {CHANNELS[1]: 6}


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9)), min_size=1, max_size=12),
    st.integers(0, 10_000),
    st.integers(0, 255),
)
def test_a_cut_or_turned_byte_costs_what_comes_after_it_and_invents_nothing(
    puts: list[tuple[int, int]], place: int, flip: int
) -> None:
    vouchers = [counted(channel, cumulative) for channel, cumulative in puts]
    data = HEADER + b"".join(map(voucher_copy.recorded, vouchers))
    whole = list(voucher_copy.records(data))
    assert [record.voucher for record in whole] == [one.voucher for one in vouchers]
    at = place % len(data)
    for broken in (data[:at], data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]):
        read = list(voucher_copy.records(broken))
        assert read == whole[: len(read)]
        if flip or broken != data:
            good = {(one.channel, one.cumulative) for one in vouchers}
            found = voucher_copy.genuine(read, NETWORK)
            assert {(one.channel, one.cumulative) for one in found} <= good


def test_what_nobody_signed_is_no_voucher() -> None:
    foreign = counted(0, 9, network=NetworkId(b"\x08" * 32))
    forged = Counted(
        CHANNELS[1],
        PAYERS[0].node,
        8,
        voucher_signed(PAYERS[1], Voucher(CHANNELS[1], 8, bytes(32), b""), NETWORK),
        5,
    )
    data = HEADER + b"".join(map(voucher_copy.recorded, [foreign, forged, counted(2, 7)]))
    found = voucher_copy.genuine(voucher_copy.records(data), NETWORK)
    # What another payer signed is kept under that payer, and no channel of anybody else's takes it.
    assert {(one.channel, one.payer, one.cumulative) for one in found} == {
        (CHANNELS[1], PAYERS[1].node, 8),
        (CHANNELS[2], PAYERS[0].node, 7),
    }


async def test_it_knows_whether_it_is_on_another_disk(tmp_path: Path) -> None:
    assert VoucherCopy(tmp_path / "copy", NETWORK).is_on_disk_of(tmp_path)
    with pytest.raises(OSError, match="No such"):
        VoucherCopy(tmp_path / "nowhere" / "copy", NETWORK).is_on_disk_of(tmp_path)


async def test_vouchers_are_salvaged_from_a_damaged_database(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    async with open_database(file, inline=True) as database:
        store = VoucherStore(database)
        for number in range(5):
            await store.put(counted(number, 5 + number))
        # Pages in the middle that are of nothing else.
        await database.write(
            lambda it: it.execute("INSERT INTO counters VALUES (hex(zeroblob(40000)), 1)").close()
        )
    os.truncate(file, os.stat(file).st_size - 4096 * 10)
    found = vouchers_salvaged(file, NETWORK)
    assert {one.channel: one.cumulative for one in found} == {
        CHANNELS[number]: 5 + number for number in range(5)
    }
    assert vouchers_salvaged(tmp_path / "none", NETWORK) == []
    (tmp_path / "other").write_bytes(b"no database" * 1000)
    assert vouchers_salvaged(tmp_path / "other", NETWORK) == []
    with sqlite3.connect(tmp_path / "older") as connection:
        connection.execute("CREATE TABLE counters (name TEXT)")
    connection.close()
    assert vouchers_salvaged(tmp_path / "older", NETWORK) == []


async def test_what_a_disk_that_was_away_holds_is_never_written_over(tmp_path: Path) -> None:
    """A new database, while the other disk is not there: when it is back, all of it stays."""
    path = tmp_path / "other" / "copy"
    os.mkdir(path.parent)
    copy = VoucherCopy(path, NETWORK, inline=True)
    async with store_at(tmp_path / "old.db", copy) as store:
        await copy.replay(store)
        await store.put(counted(0, 90))
    os.rename(path.parent, tmp_path / "away")
    copy = VoucherCopy(path, NETWORK, inline=True)
    async with store_at(tmp_path / "ayni.db", copy) as store:
        await copy.replay(store)
        await store.put(counted(0, 10))
        await store.put(counted(1, 11))
        os.rename(tmp_path / "away", path.parent)
        await store.put(counted(2, 12))
        assert copy.trouble == ""
    expected = {CHANNELS[0]: 90, CHANNELS[1]: 11, CHANNELS[2]: 12}
    assert await replayed(tmp_path, path) == expected
