"""What this node owes for its own jobs: set aside, written down, handed to the ledger."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass

import trio

from node.ledger.base import Ledger
from node.ledger.keeper import Steps, no_steps
from node.storage.bills import Bill, BillStore
from node.storage.jobs import Role
from node.telemetry.logs import Log
from protocol.errors import LocalError
from protocol.ids import MessageId, NodeId, short
from protocol.units import Microcredits

AGAIN_SECONDS_MIN = 1
AGAIN_SECONDS_MAX = 60

_log = Log("jobs.dues")


@dataclass(frozen=True, slots=True)
class Due:
    """A payment for a job that has no certificate yet. Until it is `handed` to the ledger, it is
    in no pending sum of the ledger's."""

    provider: NodeId
    amount: Microcredits
    reference: bytes
    handed: bool


class Dues:
    """A due is on disk before the receipt that makes it owed is signed, and goes to the ledger
    until that has taken it: after a crash in between it is handed over again, and the ledger
    knows it by its reference (M6)."""

    def __init__(self, bills: BillStore, ledger: Ledger, steps: Steps = no_steps) -> None:
        self._bills = bills
        self._ledger = ledger
        self._steps = steps
        self._waiting: dict[MessageId, tuple[Bill, ExitStack]] = {}  # By order.
        self._changed = trio.Event()

    async def load(self) -> None:
        """Take up what an earlier process has not handed over."""
        for bill in await self._bills.unpaid(Role.REQUESTER):
            self._add(bill)

    @property
    def spendable(self) -> int:
        """What an order may cost now, in microcredits."""
        return self._ledger.standing().spendable

    def hold(self, amount: int) -> AbstractContextManager[None]:
        """Set an amount aside for an order that runs. Raises LocalError OVERDRAWN."""
        return self._ledger.reserve(amount)

    async def owe(self, bill: Bill, held: ExitStack) -> None:
        """Write a due down: it is on disk when this returns. What was held for the order is given
        back, and the due itself is held until the ledger counts it.

        Raises LocalError UNAVAILABLE where the disk fails: then nothing may be signed.
        """
        put = await self._bills.put(bill)
        held.close()
        if put.bill.open:
            self._add(put.bill)
        await self._steps("due.stored")

    def _add(self, bill: Bill) -> None:
        if bill.order_id in self._waiting:
            return
        hold = ExitStack()
        # After a crash or a restore less may be there than is owed; it is owed all the same.
        with suppress(LocalError):
            hold.enter_context(self._ledger.reserve(bill.open))
        self._waiting[bill.order_id] = (bill, hold)
        self._changed.set()

    def dues(self) -> Sequence[Due]:
        """All that is owed and not certified."""
        here = [
            Due(bill.peer, bill.open, bill.reference, handed=False)
            for bill, _ in self._waiting.values()
        ]
        known = {due.reference for due in here}
        there = [
            Due(one.to, Microcredits(one.amount), one.reference, handed=True)
            for one in self._ledger.waiting()
            if one.to is not None and any(one.reference) and one.reference not in known
        ]
        return [*here, *there]

    async def run(self) -> None:
        """Hand dues to the ledger, for ever; one that it does not take waits longer and longer."""
        wait = AGAIN_SECONDS_MIN
        while True:
            self._changed = trio.Event()
            if await self._hand_over():
                wait = AGAIN_SECONDS_MIN
                await self._changed.wait()
            else:
                with trio.move_on_after(wait):
                    await self._changed.wait()
                wait = min(2 * wait, AGAIN_SECONDS_MAX)

    async def _hand_over(self) -> bool:
        all_taken = True
        for order_id, (bill, hold) in list(self._waiting.items()):
            try:
                await self._ledger.pay(bill.peer, bill.open, bill.reference)
                hold.close()  # From here on the ledger counts it as pending.
                await self._bills.handed(order_id)
            except LocalError as error:
                _log.warning("due.waits", order=short(order_id), code=error.code)
                all_taken = False
                continue
            del self._waiting[order_id]
            await self._steps("due.handed")
        return all_taken
