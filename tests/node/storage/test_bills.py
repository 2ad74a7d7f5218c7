"""Bills on disk: one for each order, and each certified pay counts once, whichever came first."""

import dataclasses
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from node.storage.bills import PUTS_PER_TRIM, Bill, BillStore, Credit
from node.storage.database import open_database
from node.storage.jobs import Role
from protocol.identity import digest
from protocol.ids import MessageId, NodeId
from protocol.units import Microcredits

QUINOA, OCA = NodeId(b"q" * 32), NodeId(b"o" * 32)


def named(number: int, kind: str) -> MessageId:
    return MessageId(digest(f"{kind} {number}".encode()))


def bill(number: int, amount: int = 10, *, signed: bool = True, peer: NodeId = QUINOA) -> Bill:
    return Bill(
        role=Role.PROVIDER,
        order_id=named(number, "order"),
        peer=peer,
        amount=Microcredits(amount),
        paid=Microcredits(0),
        receipt_id=named(number, "receipt"),
        receipt=b"receipt",
        provider_signature=b"p" * 64,
        requester_signature=b"r" * 64 if signed else b"",
        billed_at_ms=1_700_000_000_000 + number,
    )


def credit(number: int, amount: int, reference: bytes, payer: NodeId = QUINOA) -> Credit:
    return Credit(named(number, "entry"), payer, reference, amount)


async def test_a_bill_comes_back_as_it_was_and_the_first_of_an_order_stands(tmp_path):
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = BillStore(database)
        first = await store.put(bill(1))
        assert (first.bill, [change.amount for change in first.changes]) == (bill(1), [10])
        other = dataclasses.replace(bill(1), amount=99, receipt_id=MessageId(b""))
        again = await store.put(other)
        assert (again.bill, list(again.changes)) == (bill(1), [])
        assert await store.bill_of(Role.PROVIDER, bill(1).order_id) == bill(1)
        assert await store.bill_of(Role.REQUESTER, bill(1).order_id) is None
        assert await store.unpaid(Role.PROVIDER) == [bill(1)]


async def test_what_we_owe_is_paid_once_the_ledger_has_it(tmp_path):
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = BillStore(database)
        ours = dataclasses.replace(bill(1), role=Role.REQUESTER)
        await store.put(ours)
        await store.put(bill(1))  # The same order seen from the other side, on one disk.
        await store.handed(ours.order_id)
        assert await store.unpaid(Role.REQUESTER) == []
        assert await store.unpaid(Role.PROVIDER) == [bill(1)]


@pytest.mark.parametrize("kind", ["order", "receipt"])
@pytest.mark.parametrize("income_first", [True, False])
async def test_a_pay_finds_its_bill_by_order_or_receipt(tmp_path, kind, income_first):
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = BillStore(database)
        if not income_first:
            await store.put(bill(1))
        await store.credit([credit(1, 4, named(1, kind)), credit(2, 1, named(2, kind))])
        if income_first:
            await store.put(bill(1))
        (kept,) = await store.unpaid(Role.PROVIDER)
        assert (kept.paid, kept.open) == (4, 6), "the rest stays owed"
        (change,) = await store.credit([credit(3, 100, named(1, kind), payer=OCA)])
        assert (change.peer, change.amount) == (QUINOA, -6), "whoever pays"
        assert await store.unpaid(Role.PROVIDER) == []


async def test_a_pay_that_names_nothing_pays_the_payers_oldest_debts_and_no_later_ones(tmp_path):
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = BillStore(database)
        for made in (bill(3), bill(1, signed=False), bill(2, peer=OCA)):
            await store.put(made)
        changes = await store.credit([credit(1, 12, bytes(32))])
        assert [(change.amount, change.unproven) for change in changes] == [(-10, -10), (-2, 0)]
        await store.credit([credit(2, 500, bytes(32))])
        await store.put(bill(4))
        await store.credit([credit(2, 500, bytes(32))])  # Told again, as at each start.
        assert {(one.order_id, one.open) for one in await store.unpaid(Role.PROVIDER)} == {
            (named(2, "order"), 10),
            (named(4, "order"), 10),
        }


async def test_only_paid_bills_are_ever_forgotten(tmp_path):
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = BillStore(database, remembered_max=2)
        for number in range(PUTS_PER_TRIM):
            await store.put(bill(number))
            if number >= 3:
                await store.credit([credit(number, 10, named(number, "order"))])
        await store.put(bill(PUTS_PER_TRIM))
        assert len(await store.unpaid(Role.PROVIDER)) == 4
        assert await store.bill_of(Role.PROVIDER, named(3, "order")) is None


bills = st.lists(
    st.builds(bill, st.integers(0, 4), st.integers(1, 20), signed=st.booleans()),
    unique_by=lambda made: made.order_id,
    max_size=5,
)
credits = st.lists(
    st.builds(
        lambda number, amount, order, kind: credit(number, amount, named(order, kind)),
        st.integers(0, 9),
        st.integers(1, 25),
        st.integers(0, 5),
        st.sampled_from(["order", "receipt"]),
    ),
    unique_by=lambda made: made.id,
    max_size=8,
)


@given(bills, credits, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_in_any_order_and_however_often_the_same_is_owed_in_the_end(made, came, chance):
    async def main() -> None:
        owed: Counter[NodeId] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            async with open_database(Path(folder) / "ayni.db", inline=True) as database:
                store = BillStore(database)
                steps = [*made, *came] * 2
                chance.shuffle(steps)
                for step in steps:
                    if isinstance(step, Bill):
                        changes = (await store.put(step)).changes
                    else:
                        changes = await store.credit([step])
                    for change in changes:
                        owed[change.peer] += change.amount
                for one in made:
                    kept = await store.bill_of(Role.PROVIDER, one.order_id)
                    names = (one.order_id, one.receipt_id)
                    paid = sum(each.amount for each in came if each.reference in names)
                    assert kept == dataclasses.replace(one, paid=min(one.amount, paid))
                unpaid = await store.unpaid(Role.PROVIDER)
                assert owed[QUINOA] == sum(one.open for one in unpaid)

    trio.run(main)
