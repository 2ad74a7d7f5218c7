"""What crosses the wire of jobs, judged by an observer that calls no rule of jobs or channels.

It reads every frame as it is said. Each frame is also a point at which its sender may die before it
goes out, and its receiver before it reads it.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from protocol import codec
from protocol.envelope import Signed
from protocol.identity import digest
from protocol.ids import JobId, MessageId, NodeId
from protocol.job.terms import (
    Cancel,
    Chunk,
    Delta,
    Order,
    Quote,
    Receipt,
    Refuse,
    Request,
    Started,
)
from protocol.ledger.voucher import Voucher, voucher_note
from protocol.limits import FRAME_LENGTH_BYTES, WINDOW_CHUNKS_MAX
from protocol.messages import JOB_PROTOCOL, JobBody, job_frame
from tests.recovery.mortal_world import Home, World

TOKENS_MAX = 64

Said = JobBody | Delta | Cancel


@dataclass
class Seen:
    """One order: what was delivered for it, and what was signed for that."""

    id: MessageId
    job: JobId
    payer: NodeId
    payee: NodeId
    channel: MessageId
    window: int
    ahead: int = 0
    """Microcredits that its own voucher, the prompt's, says beyond those before."""
    ahead_sum: int = 0
    chunks: list[tuple[int, int]] = field(default_factory=list)
    """(the first token after it, what the order has cost with it) of each."""
    vouchers: list[tuple[int, int]] = field(default_factory=list)
    """(the sum, the first token that is not paid) of each."""
    tokens_in: int = 0
    previewed: int = 0
    """Tokens that went out, in chunks or ahead of theirs."""
    receipts: list[NodeId] = field(default_factory=list)

    @property
    def delivered(self) -> int:
        """What it has cost, as its chunks say."""
        return self.chunks[-1][1] if self.chunks else 0

    def paid(self, held: int, amount: int) -> int:
        """What is paid, by a channel's highest voucher, of so much that it has cost."""
        place = self.place(held)
        cost = max((cost for end, cost in self.chunks if end <= place), default=0)
        return max(cost, min(self.ahead, amount) if self.ahead_sum <= held else 0)

    def place(self, held: int) -> int:
        """The first token that a channel's highest voucher does not pay."""
        return max((place for total, place in self.vouchers if total <= held), default=0)


class Wire:
    """Set its `hear` as a world's. It raises nothing, or the node that speaks would be blamed for
    it: what was wrong is in `wrongs`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.orders: dict[MessageId, Seen] = {}
        self.signed: defaultdict[MessageId, int] = defaultdict(int)
        """The highest sum that a payer has said, of each channel."""
        self.counted: dict[MessageId, int] = {}
        """The highest that a provider was seen to hold, of each channel."""
        self.wrongs: list[str] = []
        self._requests: dict[MessageId, Request] = {}
        self._quotes: dict[MessageId, Quote] = {}
        self._notes: dict[bytes, tuple[MessageId, int]] = {}

    def hear(self, sender: NodeId, receiver: NodeId, protocol: str, data: bytes) -> None:
        """Take note of what is said, unless its sender dies before it says it."""
        if protocol != JOB_PROTOCOL:
            self.world.points_of(sender, receiver, protocol, data)
            return
        one, other = self.world.homes[sender], self.world.homes[receiver]
        for frame in _frames(data):
            word, said, message = _read(frame)
            one.passes(f"says {word}")
            if not (one.is_up and other.is_up):
                return
            self._take(message, said, one, other)
            other.passes(f"hears {word}")

    def of(self, payee: NodeId) -> list[Seen]:
        """The orders that a provider was given."""
        return [one for one in self.orders.values() if one.payee == payee]

    def _check(self, holds: bool, wrong: str) -> None:
        if not holds:
            self.wrongs.append(wrong)

    def _take(self, message: Said, said: MessageId, one: Home, other: Home) -> None:
        match message:
            case Delta(order, ids):
                self.orders[order].previewed += len(ids)
            case Started(order, tokens_in):
                self.orders[order].tokens_in = tokens_in
            case Request():
                self._requests[said] = message
            case Quote():
                self._quotes[said] = message
            case Order():
                self._take_order(message, said, one, other)
            case Voucher():
                self._take_voucher(message, one, other)
            case Chunk():
                self._take_chunk(message, one)
            case Receipt(order):
                self.orders[order].receipts.append(one.node)
            case Refuse() | Cancel():
                pass

    def _take_order(self, order: Order, said: MessageId, one: Home, other: Home) -> None:
        quote = self._quotes[order.quote]
        job = self._requests[quote.request].job
        channel = MessageId(order.channel)
        seen = Seen(said, job, one.node, other.node, channel, quote.window_chunks)
        self._check(quote.window_chunks <= WINDOW_CHUNKS_MAX, "M5: a window is out of bounds")
        self._check(said not in self.orders, "M6: an order came twice")
        self.orders[said] = seen
        self._notes |= {voucher_note(said, place): (said, place) for place in range(TOKENS_MAX)}
        if order.voucher is not None:
            voucher = codec.decode(order.voucher.body, Voucher)
            seen.ahead_sum = voucher.cumulative
            seen.ahead = max(0, voucher.cumulative - _held(other, channel))
            self._notes[voucher.note] = (said, 0)
            self._take_voucher(voucher, one, other)

    def _take_voucher(self, voucher: Voucher, one: Home, other: Home) -> None:
        channel, total = voucher.channel, voucher.cumulative
        order_id, place = self._notes[voucher.note]
        order = self.orders[order_id]
        ours = [seen for seen in self.orders.values() if seen.channel == channel]
        self._check(order.channel == channel, "M6: a voucher is of another channel")
        self._check(
            total >= _held(other, channel),
            "M4: a payer signed less than it had before: it did not take its highest back",
        )
        self._check(
            total <= sum(max(seen.ahead, seen.delivered) for seen in ours),
            "M5: a payer signed for what it has not received",
        )
        if place:
            rivals = [one for one in self.orders.values() if one.job == order.job and one.vouchers]
            self._check(rivals in ([], [order]), "M6: two providers are paid for one answer")
            self._check(place > order.place(total), "M6: a chunk is paid twice")
            order.vouchers.append((total, place))
        self.signed[channel] = max(self.signed[channel], total)

    def _take_chunk(self, chunk: Chunk, one: Home) -> None:
        order = self.orders[chunk.order]
        end = order.chunks[-1][0] if order.chunks else 0
        self._check(chunk.first_t == end, "M6: a chunk does not follow the one before")
        order.chunks.append((chunk.first_t + len(chunk.ids), chunk.cost))
        held = _held(one, order.channel)
        ahead = order.ahead if order.ahead_sum <= held else 0
        place = order.place(held)
        unpaid = [end for end, cost in order.chunks if end > place and cost > ahead]
        self._check(len(unpaid) <= order.window, "M5: a provider goes beyond its window")


def _held(payee: Home, channel: MessageId) -> int:
    """What the highest voucher that a provider has on disk says."""
    books = payee.channels.payee.books
    return max((book.held for book in books if book.facts.id == channel), default=0)


def _frames(data: bytes) -> Iterator[bytes]:
    while data:
        end = FRAME_LENGTH_BYTES + int.from_bytes(data[:FRAME_LENGTH_BYTES], "big")
        yield data[FRAME_LENGTH_BYTES:end]
        data = data[end:]


def _read(frame: bytes) -> tuple[str, MessageId, Said]:
    """(its name, its id if it is signed, itself)."""
    read = job_frame(frame)
    if not isinstance(read, Signed):
        return type(read).__name__.lower(), MessageId(b""), read
    body: JobBody = codec.decode(read.body, JobBody)  # type: ignore[arg-type]
    return type(body).__name__.lower(), MessageId(digest(read.body)), body
