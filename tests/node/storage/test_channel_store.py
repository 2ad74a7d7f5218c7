"""Vouchers on disk: the highest stands, those that come together share a change."""

import sqlite3

import pytest
import trio

from node.storage.channels import Counted, Loss, Past, VoucherStore
from node.storage.database import open_database
from protocol.errors import Code, LocalError
from protocol.identity import digest
from protocol.ids import MessageId, NetworkId
from protocol.ledger.voucher import Voucher, voucher_signed
from tests.protocol.ledger.chains import ANNA, BRUNO

NETWORK = NetworkId(digest(b"a network"))
ONE, TWO = (MessageId(digest(name)) for name in (b"one", b"two"))


def counted(cumulative: int, channel: MessageId = ONE, payer=ANNA) -> Counted:
    signed = voucher_signed(payer, Voucher(channel, cumulative, bytes(32), b""), NETWORK)
    return Counted(channel, payer.node, cumulative, signed, cumulative)


async def test_the_highest_voucher_stands(tmp_path, autojump_clock) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = VoucherStore(database)
        for cumulative in (5, 9, 7):
            await store.put(counted(cumulative))
        await store.put(counted(3, TWO))
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        found = await VoucherStore(database).vouchers()
    assert sorted(found, key=lambda one: one.cumulative) == [counted(3, TWO), counted(9)]


async def test_vouchers_that_come_together_share_a_change(tmp_path, autojump_clock) -> None:
    groups: list[list[int]] = []

    async def copy(group) -> None:
        groups.append([one.cumulative for one in group])
        await trio.sleep(1)  # A slow disk, so that others gather.

    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = VoucherStore(database, copy)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.put, counted(1))
            await trio.sleep(0.5)
            for cumulative in (2, 4, 3):
                nursery.start_soon(store.put, counted(cumulative))
            for cumulative in (10, 20):
                nursery.start_soon(store.put, counted(cumulative, TWO))
        assert (store.groups, groups[0], sorted(groups[1])) == (2, [1], [4, 20])
        assert {one.cumulative for one in await store.vouchers()} == {4, 20}


async def test_a_voucher_is_written_though_who_brought_it_is_gone(tmp_path, autojump_clock) -> None:
    async def copy(group) -> None:
        await trio.sleep(1)

    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = VoucherStore(database, copy)
        with trio.move_on_after(0.5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.put, counted(1))
                nursery.start_soon(store.put, counted(2, TWO))
        assert {one.cumulative for one in await store.vouchers()} == {1, 2}


async def test_a_disk_that_fails_is_told_to_each_and_the_next_group_goes_on(
    tmp_path, autojump_clock
) -> None:
    failing = True
    faults: list[Code] = []

    async def copy(group) -> None:
        await trio.sleep(1)
        if failing:
            raise LocalError(Code.UNAVAILABLE, "The disk is full.")

    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = VoucherStore(database, copy)

        async def put(one: Counted) -> None:
            with pytest.raises(LocalError) as caught:
                await store.put(one)
            faults.append(caught.value.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, counted(1))
            nursery.start_soon(put, counted(2, TWO))
        assert faults == [Code.UNAVAILABLE] * 2
        assert await store.vouchers() == []
        failing = False
        await store.put(counted(1))
        assert await store.vouchers() == [counted(1)]


async def test_losses_stand_as_they_are_now(tmp_path, autojump_clock) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = VoucherStore(database)
        await store.lose([Loss(ONE, ANNA.node, 7, 1), Loss(TWO, BRUNO.node, 9, 2)])
        await store.lose([Loss(ONE, ANNA.node, 0, 0), Loss(TWO, BRUNO.node, 4, 1)])
        assert await store.losses() == [Loss(TWO, BRUNO.node, 4, 1)]


async def test_what_a_channel_brought_goes_into_its_payers_sum_once(
    tmp_path, autojump_clock
) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = VoucherStore(database)
        await store.put(counted(10))
        await store.lose([Loss(ONE, ANNA.node, 3, 1)])
        await store.put(counted(50, TWO))
        assert await store.forget(ONE, ANNA.node, 10) == Past(ANNA.node, 10, 3)
        assert await store.forget(ONE, ANNA.node, 10) == Past(ANNA.node, 10, 3)
        # Of this one it was away at the expiry, and got less than its vouchers say.
        assert await store.forget(TWO, ANNA.node, 20) == Past(ANNA.node, 30, 33)
        assert await store.pasts() == [Past(ANNA.node, 30, 33)]
        assert (await store.vouchers(), await store.losses()) == ([], [])
        await store.put(counted(10))  # As from a second copy that is older than this.
        assert await store.vouchers() == []
        assert await store.forget(ONE, ANNA.node, 10) == Past(ANNA.node, 30, 33)


async def test_a_lower_voucher_changes_nothing_on_disk(tmp_path, autojump_clock) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = VoucherStore(database)
        await store.put(counted(10))
        await store.put(counted(9))

        def row(connection: sqlite3.Connection) -> tuple[int, int]:
            found = connection.execute("SELECT cumulative, counted_at_ms FROM channel_vouchers")
            return tuple(found.fetchone())

        assert await database.read(row) == (10, 10)
