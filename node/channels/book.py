"""One channel that pays this node: its highest voucher, its window, how fast vouchers come."""

from collections import deque
from typing import Final

import trio

from node.ledger.base import ChannelFacts
from node.ledger.signal import Signal
from node.storage.channels import Counted, Loss
from protocol.envelope import Signed
from protocol.ids import MessageId
from protocol.job.window import Window
from protocol.limits import WINDOW_CHUNKS_STRANGER

TURNAROUND_WEIGHT: Final = 4  # Of what was measured before, against one new measurement.
MEASURED_MAX: Final = 64  # Chunks on their way; a window has fewer.


class TimedWindow(Window):
    """A window that measures how long it takes from a chunk to its voucher."""

    def __init__(self, chunks_max: int, held: int, lost: list[int]) -> None:
        super().__init__(chunks_max, held, lost)
        self.turnaround_ms = 0
        """As measured lately, smoothed; 0 before there was a voucher."""
        self._sent: deque[tuple[int, float]] = deque(maxlen=MEASURED_MAX)

    def close(self, order: MessageId, cost: int) -> None:
        """As Window.close; the clock of this chunk starts."""
        super().close(order, cost)
        if self.outstanding:
            self._sent.append((self.delivered, trio.current_time()))

    def pay(self, cumulative: int) -> None:
        """As Window.pay."""
        super().pay(cumulative)
        sent_at = None
        while self._sent and self._sent[0][0] <= cumulative:
            _, sent_at = self._sent.popleft()
        if sent_at is not None:
            took = round((trio.current_time() - sent_at) * 1000)
            before = self.turnaround_ms or took
            self.turnaround_ms = (before * (TURNAROUND_WEIGHT - 1) + took) // TURNAROUND_WEIGHT


class Book:
    """What is known of one channel of which this node is the payee."""

    def __init__(
        self, facts: ChannelFacts, counted: Counted | None, loss: Loss | None, now_ms: int
    ) -> None:
        self.facts = facts
        self.counted = counted
        """The highest voucher that is on disk."""
        self.window = TimedWindow(
            WINDOW_CHUNKS_STRANGER,
            0 if counted is None else counted.cumulative,
            [] if loss is None else _parts(loss),
        )
        self.used_ms = now_ms if counted is None else counted.counted_at_ms
        """When it was last used, by the wall clock."""
        self.windows: list[int] = []
        """Of the quotes of all orders that run on it."""
        self.is_closing = False
        """It settles, or is about to: no order begins and no voucher counts any more."""
        self.wanted_at_ms: int | None = None
        """Since when its payer, or the owner, wants it settled."""
        self.counting = 0
        """Vouchers on their way to the disk."""
        self.version = 0
        """Grows with each voucher that was counted."""
        self.changed = Signal()

    @property
    def orders(self) -> int:
        """How many orders run on it."""
        return len(self.windows)

    @property
    def held(self) -> int:
        """Microcredits of the highest voucher that is on disk."""
        return 0 if self.counted is None else self.counted.cumulative

    @property
    def best(self) -> Signed | None:
        """That voucher."""
        return None if self.counted is None else self.counted.voucher

    @property
    def room(self) -> int:
        """Of the funding, what can still be earned; microcredits."""
        return max(0, self.facts.funding - max(self.held, self.window.delivered))

    @property
    def loss(self) -> Loss:
        """What is lost on it now."""
        window, facts = self.window, self.facts
        return Loss(facts.id, facts.payer, window.lost, window.lost_chunks)

    def take(self, counted: Counted) -> None:
        """A voucher is on disk: from here on it counts."""
        if counted.cumulative > self.held:
            self.counted, self.used_ms = counted, counted.counted_at_ms
            self.window.pay(counted.cumulative)
        self.version += 1
        self.changed.set()


def _parts(loss: Loss) -> list[int]:
    """A loss chunk by chunk: only the sum was kept."""
    if not loss.amount:
        return []
    part, more = divmod(loss.amount, loss.chunks)
    return [part + (number < more) for number in range(loss.chunks)]
