"""What others owe this node for jobs, and who may owe more: the provider's risk, and its cap."""

from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from node.ledger.base import Income, Ledger
from node.ledger.keeper import Steps, no_steps
from node.storage.bills import Bill, BillStore, Change, Credit
from node.storage.jobs import Role
from protocol.errors import Code, LocalError
from protocol.ids import NodeId
from protocol.units import Microcredits, credits_text

RETRY_UNPAID_MS = 10_000  # A certificate comes within seconds where the witnesses are there.
LOOK_SECONDS_MAX = 2  # For a balance that would let a request pass which is refused otherwise.
FRESH_SECONDS = 60
BALANCES_REMEMBERED_MAX = 4096  # About 1 MiB; who was asked for longest ago is forgotten first.
LOOKS_MAX = 64  # At once.
CREDITS_PER_WRITE_MAX = 256


@dataclass(frozen=True, slots=True)
class Risk:
    """How far a provider trusts. Amounts in microcredits."""

    stranger_microcredits: int  # What one requester may owe at most.
    pay_min: int  # Of the genesis: what is below it cannot be paid, so it is not owed.
    allocations: Mapping[NodeId, int]  # Of the genesis: what an account has until more is known.


@dataclass(frozen=True, slots=True)
class Debt:
    """What one account owes here; of it `unproven` is for answers whose receipt it never signed."""

    account: NodeId
    amount: Microcredits
    unproven: Microcredits


@dataclass(frozen=True, slots=True)
class _Balance:
    amount: int
    seen_at: float


class Debts:
    """Counts, for each requester, what it owes and what its running orders may add to that."""

    def __init__(
        self, bills: BillStore, ledger: Ledger, risk: Risk, steps: Steps = no_steps
    ) -> None:
        self._bills = bills
        self._ledger = ledger
        self._steps = steps
        self._risk = risk
        # Sums in memory, so that a request is judged without waiting for the disk. There is one
        # number for each account that owes, and each of those was served an answer worth more.
        self._owed: Counter[NodeId] = Counter()
        self._unproven: Counter[NodeId] = Counter()
        self._running: Counter[NodeId] = Counter()
        self._balances: OrderedDict[NodeId, _Balance] = OrderedDict()
        self._looks_wanted: set[NodeId] = set()
        self._looks_running: set[NodeId] = set()
        self._look_wanted = trio.Event()
        self._incomes: deque[Credit] = deque()
        self._income_came = trio.Event()

    async def load(self) -> None:
        """Take up what was owed to an earlier process, and hear of what is paid from here on."""
        bills = await self._bills.unpaid(Role.PROVIDER)
        unproven = [0 if bill.countersigned else bill.open for bill in bills]
        self._apply(
            [Change(bill.peer, bill.open, part) for bill, part in zip(bills, unproven, strict=True)]
        )
        self._ledger.watch_income(self._take_income)

    def owed(self) -> Sequence[Debt]:
        """Who owes how much, the largest debts first."""
        return [
            Debt(account, Microcredits(amount), Microcredits(self._unproven[account]))
            for account, amount in self._owed.most_common()
        ]

    @asynccontextmanager
    async def admitted(self, requester: NodeId, cost_worst: int) -> AsyncIterator[None]:
        """A request that may cost so much is dealt with, from before its quote until its bill is
        booked. A quote never waits for a look at the requester's balance; only what would be
        refused by the balance that is known has it looked up first.

        Raises LocalError UNPAID with what is owed, what may be, and what to do.
        """
        if cost_worst:
            known = self._balances.get(requester)
            if self._left(requester) < cost_worst:
                with trio.move_on_after(LOOK_SECONDS_MAX):
                    await self._look(requester)
            elif known is None or trio.current_time() - known.seen_at > FRESH_SECONDS:
                self._want_look(requester)
            self._check(requester, cost_worst)
        self._running[requester] += cost_worst
        try:
            yield
        finally:
            _subtract(self._running, requester, cost_worst)

    def _check(self, requester: NodeId, cost_worst: int) -> None:
        cap = self._risk.stranger_microcredits
        owed, running = self._owed[requester], self._running[requester]
        asked = f"this job may cost {credits_text(cost_worst)}"
        if cost_worst > cap:  # Not to be mended by waiting, so there is no time to come again.
            raise LocalError(
                Code.UNPAID,
                f"You would owe too much: {asked} credits and this node lends a requester at most "
                f"{credits_text(cap)}. Ask for fewer tokens, or set a lower cap on the cost.",
            )
        if owed + running + cost_worst > cap:
            unproven = self._unproven[requester]
            remedy = (
                f" {credits_text(unproven)} of it is for answers whose receipt you never signed: "
                "send that amount to this node."
                if unproven
                else ""
            )
            raise LocalError(
                Code.UNPAID,
                f"You owe this node {credits_text(owed)} credits, your running jobs here may cost "
                f"{credits_text(running)} and {asked}; it lends a requester at most "
                f"{credits_text(cap)} until the certificate of a payment arrives.{remedy}",
                RETRY_UNPAID_MS,
            )
        if self._left(requester) < cost_worst:
            raise LocalError(
                Code.UNPAID,
                f"Your certified balance that this node knows of is "
                f"{credits_text(self._balance(requester))} credits, you owe it "
                f"{credits_text(owed + running)} and {asked}: get credits, or ask for less.",
                RETRY_UNPAID_MS,
            )

    def _left(self, requester: NodeId) -> int:
        """Of a requester's balance, when it has paid here for all that it had and has here."""
        return self._balance(requester) - self._owed[requester] - self._running[requester]

    def _balance(self, account: NodeId) -> int:
        known = self._balances.get(account)
        return self._risk.allocations.get(account, 0) if known is None else known.amount

    async def book(self, bill: Bill) -> None:
        """Write a debt down; on disk and counted when this returns. Raises LocalError UNAVAILABLE
        where the disk fails."""
        with trio.CancelScope(shield=True):  # What is on disk is counted too.
            put = await self._bills.put(bill)
            self._apply(put.changes)
            await self._steps("debt.stored")

    def _apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            _subtract(self._owed, change.peer, -change.amount)
            _subtract(self._unproven, change.peer, -change.unproven)

    async def run(self) -> None:
        """Count what is paid, and look up balances, until cancelled. Raises LocalError UNAVAILABLE
        where the disk fails; nothing is lost then, and it can be run again."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._count_incomes)
            while True:
                self._look_wanted = trio.Event()
                while self._looks_wanted:
                    nursery.start_soon(self._look_once, self._looks_wanted.pop())
                await self._look_wanted.wait()

    def _take_income(self, income: Income) -> None:
        credit = Credit(income.id, income.payer, income.reference, income.amount)
        self._incomes.append(credit)
        self._income_came.set()

    async def _count_incomes(self) -> None:
        while True:
            self._income_came = trio.Event()
            while self._incomes:
                size = min(len(self._incomes), CREDITS_PER_WRITE_MAX)
                batch = [self._incomes[place] for place in range(size)]
                with trio.CancelScope(shield=True):
                    self._apply(await self._bills.credit(batch))
                    await self._steps("income.counted")
                for _ in batch:
                    self._incomes.popleft()
            await self._income_came.wait()

    def _want_look(self, account: NodeId) -> None:
        # Where too many wait already, the next request of this account asks again.
        if len(self._looks_wanted) + len(self._looks_running) < LOOKS_MAX:
            self._looks_wanted.add(account)
            self._look_wanted.set()

    async def _look_once(self, account: NodeId) -> None:
        if account in self._looks_running:
            return
        self._looks_running.add(account)
        try:
            await self._look(account)
        finally:
            self._looks_running.discard(account)

    async def _look(self, account: NodeId) -> None:
        proven = await self._ledger.proven(account)
        self._balances[account] = _Balance(proven.balance, trio.current_time())
        self._balances.move_to_end(account)
        if len(self._balances) > BALANCES_REMEMBERED_MAX:
            self._balances.popitem(last=False)


def _subtract(sums: Counter[NodeId], account: NodeId, amount: int) -> None:
    """Keep no zeros: who owes nothing is forgotten."""
    sums[account] -= amount
    if not sums[account]:
        del sums[account]
