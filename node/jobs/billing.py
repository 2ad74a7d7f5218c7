"""Paying for jobs: what this node owes and is owed, each written down before it counts."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack

import trio

from node.jobs.debts import Debt, Debts, Risk
from node.jobs.dues import Due, Dues
from node.ledger.base import Ledger
from node.ledger.keeper import Steps, no_steps
from node.storage.bills import Bill, BillStore
from node.storage.jobs import Role
from protocol.ids import MessageId, NodeId


class Billing:
    """Made by `open_billing`. `run` must run beside the jobs for payments to go out and come in;
    jobs themselves wait for neither."""

    def __init__(
        self, bills: BillStore, ledger: Ledger, risk: Risk, steps: Steps = no_steps
    ) -> None:
        self._bills = bills
        self._pay_min = risk.pay_min
        self._dues = Dues(bills, ledger, steps)
        self._debts = Debts(bills, ledger, risk, steps)

    async def load(self) -> None:
        await self._debts.load()
        await self._dues.load()

    async def run(self) -> None:
        """Hand dues to the ledger and count incomes, until cancelled. It may be run again after
        it has raised."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._dues.run)
            nursery.start_soon(self._debts.run)

    # As a requester.
    @property
    def spendable(self) -> int:
        """What an order may cost now, in microcredits."""
        return self._dues.spendable

    def hold(self, amount: int) -> AbstractContextManager[None]:
        """Set microcredits aside for an order that runs. Raises LocalError OVERDRAWN."""
        return self._dues.hold(amount)

    async def owe(self, bill: Bill, held: ExitStack) -> None:
        """Write down what we owe for an order: on disk when this returns, paid in its own time.
        `held` is what was set aside for it. What is too little to be paid is not owed.

        Raises LocalError UNAVAILABLE where the disk fails: then the receipt must not be signed.
        """
        if bill.amount >= self._pay_min:
            await self._dues.owe(bill, held)
        else:
            held.close()

    # As a provider.
    def admitted(self, requester: NodeId, cost_worst: int) -> AbstractAsyncContextManager[None]:
        """A request whose answer may cost so many microcredits, from before its quote until its
        bill is booked. Raises LocalError UNPAID where the requester may not owe so much."""
        return self._debts.admitted(requester, cost_worst)

    async def book(self, bill: Bill) -> None:
        """Write down what a requester owes us: on disk when this returns. What is too little to
        be paid is not owed. Raises LocalError UNAVAILABLE where the disk fails."""
        if bill.amount >= self._pay_min:
            await self._debts.book(bill)

    # For people.
    def owed(self) -> Sequence[Debt]:
        """What others owe us for jobs, account by account, the largest first."""
        return self._debts.owed()

    def dues(self) -> Sequence[Due]:
        """What we owe for jobs and no certificate covers yet."""
        return self._dues.dues()

    async def bill_of(self, role: Role, order_id: MessageId) -> Bill | None:
        """The bill of a job in the history; None where nothing was owed for it."""
        return await self._bills.bill_of(role, order_id)


async def open_billing(
    bills: BillStore, ledger: Ledger, risk: Risk, steps: Steps = no_steps
) -> Billing:
    """Billing that knows what earlier processes left unpaid; before this no job may be served."""
    billing = Billing(bills, ledger, risk, steps)
    await billing.load()
    return billing
