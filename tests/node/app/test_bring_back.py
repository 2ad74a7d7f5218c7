"""Vouchers of a database that was set aside: taken from it once, beside those of the copy."""

import os
from pathlib import Path

import trio

from node.app.recovery import bring_vouchers_back
from node.storage.channels import Counted, VoucherStore, no_copy
from node.storage.damage import Rescue
from node.storage.database import open_database
from node.storage.voucher_copy import VoucherCopy
from protocol.identity import Identity, Seed
from protocol.ids import MessageId, NetworkId
from protocol.ledger.voucher import Voucher, voucher_signed

NETWORK = NetworkId(b"\x07" * 32)
PAYER = Identity(Seed(b"\x01" * 32))
ONE, TWO = (MessageId(bytes([number]) * 32) for number in (1, 2))
RESCUE = Rescue(lambda: 1_795_467_821_000, lambda _connection: None)


def counted(channel: MessageId, cumulative: int) -> Counted:
    signed = voucher_signed(PAYER, Voucher(channel, cumulative, bytes(32), b""), NETWORK)
    return Counted(channel, PAYER.node, cumulative, signed, 5)


async def held(file: Path, copy: VoucherCopy | None) -> dict[MessageId, int]:
    """What a start finds, with whatever has to be brought back."""
    async with open_database(file, rescue=RESCUE) as database:
        store = VoucherStore(database, copy or no_copy)
        if copy is not None:
            copy.live = store.vouchers
        await bring_vouchers_back(database, store, copy, NETWORK)
        return {one.channel: one.cumulative for one in await store.vouchers()}


async def damaged(file: Path) -> None:
    """Two vouchers, and then garbage where something else was."""
    async with open_database(file) as database:
        store = VoucherStore(database)
        await store.put(counted(ONE, 10))
        await store.put(counted(TWO, 20))
        large = "INSERT INTO counters VALUES (hex(zeroblob(40000)), 1)"
        await database.write(lambda it: it.execute(large).close())
    size = (await trio.Path(file).stat()).st_size
    os.truncate(file, size - 4096 * 10)


async def test_they_are_taken_out_of_it(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    await damaged(file)
    assert await held(file, None) == {ONE: 10, TWO: 20}


async def test_the_higher_of_copy_and_old_database_counts(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    copy = VoucherCopy(tmp_path / "copy", NETWORK)
    await copy([counted(ONE, 15), counted(TWO, 5)])
    await damaged(file)
    assert await held(file, VoucherCopy(tmp_path / "copy", NETWORK)) == {ONE: 15, TWO: 20}
    # The copy has all of it now, too.
    os.unlink(file)
    os.rename(tmp_path / "damaged-20261123T210341Z", tmp_path / "elsewhere")
    assert await held(file, VoucherCopy(tmp_path / "copy", NETWORK)) == {ONE: 15, TWO: 20}


async def test_what_was_settled_since_does_not_come_back(tmp_path: Path) -> None:
    file = tmp_path / "ayni.db"
    await damaged(file)
    await held(file, None)
    async with open_database(file) as database:
        await VoucherStore(database).forget(ONE, PAYER.node, 10)
    assert await held(file, None) == {TWO: 20}
