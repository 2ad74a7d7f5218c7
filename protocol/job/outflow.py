"""What may go out of one order's output, and when: it never runs ahead of its channel's window."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.ids import MessageId
from protocol.job.produced import Produced
from protocol.job.terms import Chunk, Delta, Finish
from protocol.job.window import Window
from protocol.ledger.voucher import voucher_note


@dataclass(frozen=True, slots=True)
class Loss:
    """What was delivered, and of it what no voucher came for."""

    delivered: int  # Microcredits.
    lost: int  # Microcredits.
    lost_chunks: int


@dataclass(frozen=True, slots=True)
class _Piece:
    delta: Delta
    leaves: Sequence[bytes]


class Outflow:
    """Holds output back, previews and chunks alike, until the window has room for their chunk.
    What waits is bounded by the order's own length."""

    def __init__(
        self, produced: Produced, order_id: MessageId, window: Window | None, paid_ahead: int
    ) -> None:
        """Without a `window` the order costs nothing, and nothing is held back."""
        self._produced = produced
        self._order_id = order_id
        self._window = window
        self._waiting: deque[_Piece | Sequence[bytes]] = deque()
        self._is_open = False  # A chunk is begun.
        self._paid_ahead = paid_ahead
        self._acknowledged = paid_ahead  # Of the cost so far: by this order's own vouchers.
        self._unacknowledged: deque[tuple[bytes, int]] = deque()  # Notes to wait for, and costs.
        self._cost_closed = 0
        self.tokens_waiting = 0
        self.vectors_waiting = 0

    @property
    def is_waiting(self) -> bool:
        """Whether output is held back."""
        return bool(self._waiting)

    @property
    def is_covered(self) -> bool:
        """Whether vouchers are on disk for what this order counts as paid ahead."""
        return not self._paid_ahead or self._window is None or self._window.covers_ahead

    def add_tokens(self, delta: Delta, leaves: Sequence[bytes]) -> None:
        """The next tokens, as many as fit one chunk at most."""
        self._waiting.append(_Piece(delta, leaves))
        self.tokens_waiting += len(delta.ids)

    def add_vectors(self, group: Sequence[bytes]) -> None:
        """The next vectors, as many as fit one chunk at most."""
        self._waiting.append(group)
        self.vectors_waiting += len(group)

    def forget_waiting(self) -> None:
        """What has not gone out never will, and is not paid for."""
        self._waiting.clear()
        self.tokens_waiting = self.vectors_waiting = 0

    def flow(self, now: int) -> list[Delta | Chunk]:
        """All that may go out now, in order."""
        produced, out = self._produced, list[Delta | Chunk]()
        while self._waiting and (self._is_open or self._begin()):
            item = self._waiting[0]
            if not isinstance(item, _Piece):
                self._waiting.popleft()
                self.vectors_waiting -= len(item)
                out.append(self._closed(produced.give(item, "none")))
            elif produced.room(len(item.delta.ids)):
                self._waiting.popleft()
                self.tokens_waiting -= len(item.delta.ids)
                produced.add(item.delta, item.leaves, now)
                out.append(item.delta)
                if not produced.room(1):
                    out.append(self.close())
            else:
                out.append(self.close())
        return out

    def close(self) -> Chunk:
        """The chunk that is open, closed before it is full."""
        return self._closed(self._produced.close("none"))

    def last(self, finish: Finish, *, is_embed: bool) -> Chunk | None:
        """The chunk that ends the order, when nothing waits. None where it would bring a cost,
        that of a prompt without an answer, and the window has no room for it."""
        produced = self._produced
        brings_cost = produced.cost > produced.cost_signed
        if not self._is_open and brings_cost and not self._begin():
            return None
        return self._closed(produced.give((), finish) if is_embed else produced.close(finish))

    def acknowledge(self, note: bytes) -> None:
        """A voucher of this order was counted: it pays up to the chunk that it names."""
        if note in [named for named, _ in self._unacknowledged]:
            named = None
            while named != note:
                named, cost = self._unacknowledged.popleft()
                self._acknowledged = max(self._acknowledged, cost)

    def end(self, *, keeps_ahead: bool) -> Loss:
        """The order is over. Tokens that went out count as delivered, with or without a signed
        chunk; `keeps_ahead`: a prompt that was read is paid by what was paid ahead for it."""
        produced, window = self._produced, self._window
        before = produced.cost_signed
        if window is None:
            return Loss(before, 0, 0)
        delivered = produced.cost if self._is_open else before
        if self._is_open:
            self._is_open = False
            self._close_in_window(window, delivered)
        if keeps_ahead and not delivered:
            window.spend_ahead(self._order_id)
        window.drop(self._order_id)
        chunks = len([cost for _, cost in self._unacknowledged if cost > self._acknowledged])
        lost = window.lose(self._order_id, delivered - self._acknowledged, chunks)
        return Loss(delivered, lost, min(chunks, lost))

    def _begin(self) -> bool:
        window = self._window
        if window is not None:
            if not window.room_for(self._order_id):
                return False
            window.begin(self._order_id)
        self._is_open = True
        return True

    def _closed(self, chunk: Chunk) -> Chunk:
        if self._is_open and self._window is not None:
            self._close_in_window(self._window, chunk.cost)
        self._is_open = False
        return chunk

    def _close_in_window(self, window: Window, cost: int) -> None:
        window.close(self._order_id, cost - self._cost_closed)
        if cost > self._cost_closed:
            note = voucher_note(self._order_id, self._produced.place)
            self._unacknowledged.append((note, cost))
        self._cost_closed = cost
