"""The window of a channel: how far a provider delivers ahead of the vouchers that it holds (M5).

One Window is shared by all orders of one channel, so the bound holds over the whole channel.
Pure: the machines of its orders ask it before each chunk and tell it of each.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.ids import MessageId


@dataclass(slots=True)
class _Chunk:
    order: MessageId
    cost: int  # Without what was paid ahead for its order.
    end: int  # The sum of such costs with it: what vouchers are for beyond prompts pays it.


class Window:
    """Counts in microcredits since the channel was opened. A chunk that brought no cost is none:
    nobody can sign a voucher for it."""

    def __init__(self, chunks_max: int, held: int, lost: Sequence[int] = ()) -> None:
        """`held` is the highest voucher that is on disk. After a restart no more than that counts
        as delivered, but for `lost`: what each chunk brought that was given up before."""
        assert chunks_max > 0
        assert held >= 0
        self.chunks_max = chunks_max
        """May be raised while orders run."""
        self._held = held
        self._delivered = held
        self._closed: deque[_Chunk] = deque()  # Those that are not paid, in the order they closed.
        self._open: set[MessageId] = set()  # Orders of which a chunk is begun.
        self._waiting: list[MessageId] = []  # Orders that found no room, the first come first.
        self._ahead: dict[MessageId, int] = {}  # Paid ahead for an order and not yet delivered.
        self._ahead_used = 0  # Of all that was paid ahead, what was delivered for it.
        self._coming: dict[MessageId, int] = {}  # By vouchers of orders, which are being counted.
        self._lost: deque[int] = deque(lost)

    @property
    def held(self) -> int:
        """Of the highest voucher that was counted."""
        return self._held

    @property
    def delivered(self) -> int:
        """Of all chunks that were closed, but for those that are given up as lost."""
        return self._delivered

    @property
    def lost(self) -> int:
        """Of chunks that are given up, and that no later voucher has paid."""
        return sum(self._lost)

    @property
    def lost_chunks(self) -> int:
        """How many those are."""
        return len(self._lost)

    @property
    def unpaid_chunks(self) -> int:
        """Begun or delivered, and not paid. A voucher pays chunks in the order in which they were
        closed, whosever it was; counted so they are never more than `chunks_max`. Those that are
        found lost stay among them, so that a channel loses its window once."""
        return len(self._lost) + len(self._closed) + len(self._open)

    @property
    def unpaid(self) -> int:
        """Delivered and covered by no voucher, with what is lost."""
        return self.outstanding + self.lost

    @property
    def outstanding(self) -> int:
        """Delivered and covered by no voucher yet; what was paid ahead covers its own order's."""
        return max(0, -self._spare(self._held))

    @property
    def has_room(self) -> bool:
        """Whether another chunk may be begun."""
        return self.unpaid_chunks < self.chunks_max

    @property
    def is_spent(self) -> bool:
        """Whether all of it is lost: nothing more is delivered on this channel."""
        return len(self._lost) >= self.chunks_max

    def room_for(self, order: MessageId) -> bool:
        """Whether this order may begin a chunk now. Where it may not, it has a place in the queue
        and is not overtaken: orders of one channel get their turns one after another."""
        if order not in self._waiting:
            self._waiting.append(order)
        place = self._waiting.index(order)
        return self.unpaid_chunks + place < self.chunks_max

    def begin(self, order: MessageId) -> None:
        """A chunk is opened, for which there must be room: its deltas may go out."""
        assert self.has_room
        assert order not in self._open
        self._open.add(order)
        if order in self._waiting:
            self._waiting.remove(order)

    def close(self, order: MessageId, cost: int) -> None:
        """The open chunk is closed and brought the cost of its order up by `cost`."""
        self._open.remove(order)
        left = self._deliver(order, cost)
        if left:
            end = self._delivered - self._ahead_used
            self._closed.append(_Chunk(order, left, end))
            self._drop_paid()

    def drop(self, order: MessageId) -> None:
        """The order is over: its open chunk, of which nothing went out, its place in the queue and
        what was paid ahead for it are free for others."""
        self._open.discard(order)
        self._ahead.pop(order, None)
        self._coming.pop(order, None)
        if order in self._waiting:
            self._waiting.remove(order)
        self._drop_paid()

    def pay(self, cumulative: int) -> None:
        """A voucher was counted. A lower one than the highest changes nothing."""
        if cumulative <= self._held:
            return
        self._held = cumulative
        self._drop_paid()
        spare = self._spare(cumulative)
        while self._lost and self._lost[0] <= spare:
            # More is signed than was asked for: the payer had received what we gave up.
            spare -= self._lost[0]
            self._delivered += self._lost.popleft()

    def reserve(self, order: MessageId, amount: int, cumulative: int) -> bool:
        """Set aside what was paid ahead for the prompt of an order: `amount`, of the vouchers held
        or of one of `cumulative` that is being counted. False where they do not cover it.

        Chunks that no voucher pays yet do not count here: their vouchers are under way.
        """
        unpaid = sum(chunk.cost for chunk in self._closed)
        # Orders of one channel may overtake one another: the sum of an earlier one is lower, and
        # the later one's voucher says it, too.
        highest = max(self._held, cumulative, *self._coming.values())
        if self._spare(highest) + unpaid < amount:
            return False
        self._ahead[order], self._coming[order] = amount, cumulative
        return True

    @property
    def covers_ahead(self) -> bool:
        """Whether the vouchers that are held, and not only those that are being counted, cover all
        that is set aside. A voucher may be announced and then be overtaken by a lower one, or
        refused: until this holds no such order is served."""
        unpaid = sum(chunk.cost for chunk in self._closed)
        return self._spare(self._held) + unpaid >= 0

    def spend_ahead(self, order: MessageId) -> None:
        """The requester went when its prompt was read and nothing was delivered: what it has paid
        ahead for that counts as delivered."""
        self._deliver(order, self._ahead.get(order, 0))

    def lose(self, order: MessageId, unacknowledged: int, chunks: int) -> int:
        """The order is over and dropped, and none of its vouchers was for the last of what it
        delivered, in so many chunks: what of that nobody paid is lost, and returned.

        Vouchers that come later pay for the chunks of other orders only, until they are for more
        than those.
        """
        amount = min(unacknowledged, self.outstanding)
        if amount <= 0:
            return 0
        assert chunks > 0
        left = amount
        for chunk in [one for one in reversed(self._closed) if one.order == order]:
            left -= self._take_back(chunk, min(left, chunk.cost))
        # The rest was counted as paid by vouchers of others: those pay their own chunks now.
        self._delivered -= left
        for chunk in self._closed:
            chunk.end -= left
        self._drop_paid()
        part, more = divmod(amount, chunks)
        self._lost.extend(part + (number < more) for number in range(min(amount, chunks)))
        return amount

    def _take_back(self, taken: _Chunk, amount: int) -> int:
        is_after = False
        for chunk in self._closed:
            is_after = is_after or chunk is taken
            if is_after:
                chunk.end -= amount
        taken.cost -= amount
        self._delivered -= amount
        if not taken.cost:
            self._closed.remove(taken)
        return amount

    def _deliver(self, order: MessageId, cost: int) -> int:
        """What of this cost was not paid ahead."""
        ahead = min(cost, self._ahead.get(order, 0))
        if ahead:
            self._ahead[order] -= ahead
            self._ahead_used += ahead
        self._delivered += cost
        return cost - ahead

    def _spare(self, held: int) -> int:
        """What vouchers of so much cover beyond all chunks and prompts."""
        return held - self._delivered - sum(self._ahead.values())

    def _drop_paid(self) -> None:
        paid = self._held - self._ahead_used - sum(self._ahead.values())
        while self._closed and self._closed[0].end <= paid:
            self._closed.popleft()
