"""Bills on disk: one for each order, the first stands, and the oldest go beyond the bound."""

import dataclasses

from node.storage.bills import PUTS_PER_TRIM, Bill, BillStore
from node.storage.database import open_database
from node.storage.jobs import Role
from protocol.identity import digest
from protocol.ids import MessageId, NodeId
from protocol.units import Microcredits

QUINOA = NodeId(b"q" * 32)


def named(number: int, kind: str) -> MessageId:
    return MessageId(digest(f"{kind} {number}".encode()))


def bill(number: int, role: Role = Role.PROVIDER) -> Bill:
    return Bill(
        role=role,
        order_id=named(number, "order"),
        peer=QUINOA,
        amount=Microcredits(10),
        paid=Microcredits(7),
        receipt_id=named(number, "receipt"),
        receipt=b"receipt",
        provider_signature=b"p" * 64,
        requester_signature=b"r" * 64,
        billed_at_ms=1_700_000_000_000 + number,
    )


async def test_a_bill_comes_back_as_it_was_and_the_first_of_an_order_stands(tmp_path):
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = BillStore(database)
        await store.put(bill(1))
        await store.put(dataclasses.replace(bill(1), amount=Microcredits(99)))
        kept = await store.bill_of(Role.PROVIDER, bill(1).order_id)
        assert kept == bill(1)
        assert kept is not None
        assert (kept.lost, kept.countersigned) == (3, True)
        assert await store.bill_of(Role.REQUESTER, bill(1).order_id) is None


async def test_both_sides_of_one_order_can_be_the_same_disks(tmp_path):
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = BillStore(database)
        await store.put(bill(1))
        await store.put(bill(1, Role.REQUESTER))
        kept = await store.bill_of(Role.REQUESTER, bill(1).order_id)
        assert kept == bill(1, Role.REQUESTER)


async def test_the_oldest_bills_are_forgotten_beyond_the_bound(tmp_path):
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = BillStore(database, remembered_max=3)
        for number in range(PUTS_PER_TRIM + 1):
            await store.put(bill(number))
        kept = [
            number
            for number in range(PUTS_PER_TRIM + 1)
            if await store.bill_of(Role.PROVIDER, named(number, "order")) is not None
        ]
        assert kept == [PUTS_PER_TRIM - 2, PUTS_PER_TRIM - 1, PUTS_PER_TRIM]
