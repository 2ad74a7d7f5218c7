"""One channel between two joined nodes: its payer's sums, its payee's window and disk, and what
must always hold of both, counted without the machines."""

from collections import deque
from collections.abc import Callable

from protocol.job.terms import Chunk, Delta
from protocol.job.window import Window

Counted = Callable[[bytes], None]
"""Tells the order whose voucher it was of the note."""


class _Order:
    def __init__(self, ahead: int) -> None:
        self.ahead = ahead  # What it counts as paid ahead: nothing once it was refused unread.
        self.paid_first = ahead
        self.received = 0  # The cost of what came and was checked.
        self.delivered = 0  # The cost by signed chunks that went out.
        self.previewed = False  # Deltas went out and their chunk has not.


class PaidChannel:
    """Vouchers reach the payee's disk when `count` is called, in the order in which they came."""

    def __init__(self, chunks_max: int = 2) -> None:
        self.window = Window(chunks_max, 0)
        self.signed = 0
        self.on_disk = 0
        self.lost = 0
        self.under_way: deque[tuple[int, int, bytes, Counted]] = deque()
        self.watchers: list[Callable[[], None]] = []
        self._orders: dict[int, _Order] = {}
        self.dearest = 0  # Of the chunks that went out, in microcredits.
        self._brought: list[int] = []  # By each chunk that went out, in microcredits.

    # The payer.
    def open_order(self, number: int, ahead: int) -> int:
        """Its sum to sign with the order."""
        self._orders[number] = _Order(ahead)
        return self._sign()

    def pay(self, number: int, cost: int) -> int:
        """The sum to sign when a chunk has come."""
        order = self._orders[number]
        assert cost >= order.received
        order.received = cost
        return self._sign()

    def _sign(self) -> int:
        due = sum(max(one.ahead, one.received) for one in self._orders.values())
        self.signed = max(self.signed, due)
        return self.signed

    def not_read(self, number: int) -> None:
        self._orders[number].ahead = 0

    # The payee.
    def voucher_came(self, number: int, cumulative: int, note: bytes, counted: Counted) -> None:
        self.under_way.append((number, cumulative, note, counted))

    def count_all(self, number: int) -> None:
        """What came of this order's vouchers is on disk before its end is looked at."""
        while any(one[0] == number for one in self.under_way):
            self.count()

    def count(self) -> None:
        """One more is on disk."""
        if not self.under_way:
            return
        _, cumulative, note, counted = self.under_way.popleft()
        self.on_disk = max(self.on_disk, cumulative)
        self.window.pay(cumulative)
        counted(note)
        for watcher in list(self.watchers):
            watcher()

    def went_out(self, number: int, message: object, previewed_cost: int) -> None:
        """A delta or a chunk has left; a preview will cost so much if nothing else follows."""
        order = self._orders[number]
        match message:
            case Delta(_, ids, text) if ids or text:
                order.previewed = True
                self.dearest = max(self.dearest, previewed_cost - order.delivered)
            case Chunk():
                self._close(order, message.cost)

    def ended(self, number: int, cost: int) -> None:
        """The order is over; what was previewed and never signed is delivered all the same."""
        if number in self._orders:
            self._close(self._orders[number], max(cost, self._orders[number].delivered))

    def _close(self, order: _Order, cost: int) -> None:
        order.previewed = False
        brought, order.delivered = cost - order.delivered, cost
        self.dearest = max(self.dearest, brought)
        if brought:
            self._brought.append(brought)

    def check(self) -> None:
        """M5, for both sides, and that nothing counts before it is on disk (M4)."""
        window = self.window
        assert window.held == self.on_disk
        out = sum(one.delivered for one in self._orders.values())
        previewed = sum(one.previewed for one in self._orders.values())
        assert self._unpaid() + previewed <= window.chunks_max
        assert out - self.on_disk <= window.chunks_max * self.dearest
        received = sum(one.received for one in self._orders.values())
        assert received <= out, "nobody pays for what was not delivered"
        first = sum(max(0, one.paid_first - one.received) for one in self._orders.values())
        assert self.signed <= received + first, "no more ahead than the price of each prompt"

    def _unpaid(self) -> int:
        """How many chunks the vouchers on disk do not cover: the cheapest are taken as paid first,
        since those of an order that is given up come after those of the orders that pay."""
        left, unpaid = self.on_disk, 0
        for cost in sorted(self._brought):
            left -= cost
            unpaid += left < 0
        return unpaid
