"""Either side dies between any two things that it does; each order is paid for at most once, to
the right amount, and exactly once where both have signed."""

import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from node.jobs.scripted import Script
from node.ledger.scripted import Payment
from node.network.base import NetworkError
from node.storage.bills import Bill, BillStore, Put
from node.storage.jobs import Role
from protocol.identity import digest
from protocol.ids import MessageId
from tests.node.jobs.homes import (
    BALANCE,
    PRICE_OUT,
    Home,
    World,
    asked,
    introduce,
    job,
    open_home,
)
from tests.node.jobs.mortal import Crashed, Life

SCRIPT = Script([(number, f"w{number} ") for number in range(7)])  # Two chunks.
SETTLED_SECONDS = 200  # Virtual: every timer of a job is over by then.


class Night:
    """One job between two homes that may die, and the morning after."""

    def __init__(
        self, folder: Path, maize: Life, quinoa: Life, *, prompt=True, store=BillStore
    ) -> None:
        self.folder = folder
        self.world = World()
        self.world.ledgers.prompt = prompt
        self.world.bill_store = store
        self.lives = {"maize": maize, "quinoa": quinoa}
        self.homes: dict[str, Home] = {}
        self.bills: dict[Role, Bill | None] = {}

    async def run(self) -> None:
        await self._day(self._work)
        self.world.ledgers.prompt = True
        self.world.ledgers.certify()
        self.lives = {"maize": Life(), "quinoa": Life()}
        await self._day(self._look)
        await self._day(self._look)  # Once more: nothing is paid again.
        self.bills = {
            Role.PROVIDER: self.read_bills("maize"),
            Role.REQUESTER: self.read_bills("quinoa"),
        }

    async def _day(self, quinoas_work: Callable[[Home], object]) -> None:
        evening = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._live, "maize", None, evening)
            await nursery.start(self._live, "quinoa", quinoas_work, evening)
            await trio.sleep(SETTLED_SECONDS)
            evening.set()

    async def _live(self, name: str, work, evening: trio.Event, task_status) -> None:
        script = (lambda task: SCRIPT) if name == "maize" else None
        try:
            async with open_home(
                self.world, name, self.folder, script, life=self.lives[name]
            ) as home:
                self.homes[name] = home
                task_status.started()
                if work is not None:
                    await work(home)
                await evening.wait()
        except* Crashed:
            pass

    async def _work(self, quinoa: Home) -> None:
        introduce(quinoa, self.homes["maize"])
        try:
            await asked(quinoa, job(quinoa))
        except NetworkError:
            assert self.lives["maize"].over

    async def _look(self, quinoa: Home) -> None:
        """A day without work: what was left undone is done now."""

    def read_bills(self, name: str) -> Bill | None:
        with closing(sqlite3.connect(self.folder / f"{name}.db")) as connection:
            rows = connection.execute("SELECT * FROM bills").fetchall()
        assert len(rows) <= 1, "two bills for one order"
        return Bill(*rows[0]) if rows else None

    @property
    def payments(self) -> list[Payment]:
        return self.world.ledgers.payments

    def check(self) -> None:
        owed, owing = self.bills[Role.PROVIDER], self.bills[Role.REQUESTER]
        maize, quinoa = (self.homes[name].identity.node for name in ("maize", "quinoa"))
        paid = [(one.payer, one.to, one.amount, one.reference) for one in self.payments]
        due = [] if owing is None else [(quinoa, maize, owing.amount, owing.reference)]
        assert paid == due, "each due is paid once, and nothing else is"
        if owing is not None:
            assert owing.open == 0
        if owed is not None:
            assert owed.paid == min(owed.amount, sum(one.amount for one in self.payments))
            if owed.countersigned:
                assert owing is not None, "a receipt that was signed before it was written down"
                assert owed.amount == owing.amount == owed.paid
                assert owed.receipt_id == owing.receipt_id
            unpaid = [] if not owed.open else [(quinoa, owed.open, owed.open)]
            debts = self.homes["maize"].billing.owed()
            assert [(one.account, one.amount, one.unproven) for one in debts] == unpaid
        ledgers = self.world.ledgers
        total = sum(ledgers.balance(node) + ledgers.claimable(node) for node in ledgers.allocations)
        assert total == len(ledgers.allocations) * BALANCE


def lived(maize: Life, quinoa: Life, *, prompt: bool = True, **changes) -> Night:
    """A night and what follows, on virtual time, with all that must hold after it."""
    with tempfile.TemporaryDirectory() as folder:
        night = Night(Path(folder), maize, quinoa, prompt=prompt, **changes)
        trio.run(night.run, clock=trio.testing.MockClock(autojump_threshold=0))
    night.check()
    return night


def test_where_nobody_dies_one_pay_of_the_whole_cost_is_made():
    maize, quinoa = Life(), Life()
    night = lived(maize, quinoa)
    (payment,) = night.payments
    owed = night.bills[Role.PROVIDER]
    record = night.homes["maize"].billing
    assert owed.countersigned
    assert payment.amount == owed.amount > 7 * PRICE_OUT // 1_000_000
    assert payment.reference == owed.receipt_id
    assert record.owed() == []
    # The doors that the sweep below must go through are really there.
    assert quinoa.doors.count("before a pay") == 1
    assert quinoa.doors.count("before a write") == 2  # The due, and that it was handed over.
    assert maize.doors.count("before a write") == 2  # The debt, and what paid it.


def doors(name: str) -> int:
    lives = {"maize": Life(), "quinoa": Life()}
    lived(lives["maize"], lives["quinoa"])
    return len(lives[name].doors)


@pytest.mark.parametrize("name", ["maize", "quinoa"])
def test_a_death_at_any_door_ends_in_one_right_pay_or_none(name):
    outcomes = set()
    for end in range(doors(name)):
        lives = {"maize": Life(), "quinoa": Life()} | {name: Life(end)}
        night = lived(lives["maize"], lives["quinoa"])
        assert lives[name].over
        owed = night.bills[Role.PROVIDER]
        outcomes.add((len(night.payments), owed is not None and owed.countersigned))
    # No pay; paid by the order or by a receipt that never came back; paid with both signatures.
    assert outcomes == {(0, False), (1, False), (1, True)}


@given(
    st.none() | st.integers(0, 40),
    st.none() | st.integers(0, 20),
    st.booleans(),
)
@settings(max_examples=40)
def test_deaths_of_both_sides_and_late_certificates(maize, quinoa, prompt):
    lived(Life(maize), Life(quinoa), prompt=prompt)


class Forgetful(BillStore):
    """A deliberate mistake: what we owe is not written down."""

    async def put(self, bill: Bill) -> Put:
        return Put(bill, ()) if bill.role is Role.REQUESTER else await super().put(bill)


class Repeating(BillStore):
    """A deliberate mistake: each bill is written down under the order and the receipt."""

    async def put(self, bill: Bill) -> Put:
        if bill.role is Role.REQUESTER and bill.receipt_id:
            await super().put(replace(bill, order_id=MessageId(digest(bill.order_id))))
        return await super().put(bill)


@pytest.mark.parametrize("mistake", [Forgetful, Repeating])
def test_a_deliberate_mistake_is_found(mistake):
    found = 0
    for end in range(0, doors("quinoa")):
        try:
            lived(Life(), Life(end), store=mistake)
        except AssertionError:
            found += 1
    assert found
