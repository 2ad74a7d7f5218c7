"""What a payer has signed away of one channel, and what its running orders may still cost: pure.

Every voucher says a sum for the whole channel: what orders that are over have cost, and of each
that runs what it has cost so far or, where that is more, what was paid for its prompt ahead.
"""

from dataclasses import dataclass

from protocol.errors import Code, LocalError
from protocol.units import credits_text


@dataclass(slots=True)
class _Order:
    held: int  # What it may cost at most.
    prepaid: int = 0
    cost: int = 0  # Of what has come and was checked.
    keeps_ahead: bool = True

    @property
    def due(self) -> int:
        return max(self.cost, self.prepaid)


class Drawn:
    """One channel from its payer's side; amounts are microcredits. Orders have numbers.

    It always holds that signed <= funding, and that what has come is never more than signed after
    `charge` has returned what to sign.
    """

    def __init__(self, funding: int, signed: int) -> None:
        """`signed` is the highest sum signed before, which the payee holds."""
        self.funding = max(funding, signed)
        self.signed = signed
        self._over = signed  # Of orders that are over; what was signed before counts as due.
        self._orders: dict[int, _Order] = {}
        self._number = 0

    @property
    def left(self) -> int:
        """Of the funding, what neither orders that are over have cost nor running ones may."""
        return self.funding - self._over - sum(order.held for order in self._orders.values())

    @property
    def unspent(self) -> int:
        """Of the funding, what is not signed away."""
        return self.funding - self.signed

    @property
    def orders(self) -> int:
        """How many run."""
        return len(self._orders)

    def hold(self, cost_worst: int) -> int:
        """Set aside what an order may cost; there must be so much left. Its number."""
        assert 0 <= cost_worst <= self.left
        self._number += 1
        self._orders[self._number] = _Order(cost_worst)
        return self._number

    def prepay(self, number: int, amount: int) -> int:
        """Pay ahead for an order's prompt. The sum to sign, which may have been signed before:
        what others left over counts. Raises LocalError OVERDRAWN beyond what is held."""
        order = self._orders[number]
        self._cover(order, amount)
        order.prepaid = max(order.prepaid, amount)
        return self._sign()

    def charge(self, number: int, cost: int) -> int | None:
        """An order has cost so much so far, and that was received and checked. The sum to sign;
        None where what was signed before covers it. Raises LocalError OVERDRAWN beyond what is
        held and cannot be held still: then nothing has changed."""
        order = self._orders[number]
        self._cover(order, cost)
        order.cost = max(order.cost, cost)
        before = self.signed
        return self._sign() if self._due > before else None

    def return_ahead(self, number: int) -> None:
        """What was paid ahead for an order is due no further than it has cost."""
        self._orders[number].keeps_ahead = False

    def release(self, number: int) -> None:
        """An order is over. What was signed and is not due counts for the orders after it."""
        order = self._orders.pop(number)
        self._over += order.due if order.keeps_ahead else order.cost

    @property
    def _due(self) -> int:
        return self._over + sum(order.due for order in self._orders.values())

    def _sign(self) -> int:
        self.signed = max(self.signed, self._due)
        assert self.signed <= self.funding
        return self.signed

    def _cover(self, order: _Order, amount: int) -> None:
        more = amount - order.held
        if more > self.left:
            raise LocalError(
                Code.OVERDRAWN,
                f"The order has cost {credits_text(amount)} credits; {credits_text(order.held)} "
                f"are held for it and its channel has {credits_text(max(0, self.left))} besides.",
            )
        order.held = max(order.held, amount)
