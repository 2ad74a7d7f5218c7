"""What was delivered and what was paid, channel by channel, as the wire shows it (M4, M5, M6).

A provider's side is held to what is on its disk: that is what it would have after a crash. The
requester's side is held to what was sent to it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from node.simulator.book import Broken
from node.simulator.statements import frames, tag_of
from protocol.codec import decode
from protocol.envelope import Signed
from protocol.errors import RemoteError
from protocol.ids import MessageId, NodeId
from protocol.job.terms import Chunk, Order, Quote
from protocol.ledger.voucher import Voucher
from protocol.limits import FRAME_BYTES_MAX
from protocol.messages import job_frame


@dataclass(slots=True)
class _Order:
    channel: MessageId
    provider: NodeId
    ahead_max: int  # What its prompt can cost.
    cost: int = 0
    chunks: dict[int, int] = field(default_factory=dict)  # The cost so far after each, by first_t.


@dataclass(slots=True)
class _Channel:
    provider: NodeId
    payer: NodeId
    window: int = 0
    chunk_cost_max: int = 0
    signed: int = 0
    life: int = -1  # Of the provider's process; the next one begins with a new window.
    delivered: int = 0  # In this life, and what was held when it began.
    orders: list[MessageId] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the checker asks of a provider's machine."""

    life: Callable[[NodeId], int]
    on_disk: Callable[[NodeId, MessageId], int]
    """Of the highest voucher of a channel that is committed."""
    counted: Callable[[NodeId, MessageId], int]
    """Of the highest that the running process counts."""


class Deliveries:
    """Hears frames of the jobs' protocol. Raises Broken."""

    def __init__(self, shelf: Shelf, is_honest: Callable[[NodeId], bool]) -> None:
        self._shelf, self._is_honest = shelf, is_honest
        self._quotes: dict[MessageId, Quote] = {}
        self._orders: dict[MessageId, _Order] = {}
        self._channels: dict[MessageId, _Channel] = {}
        self.chunks = 0
        self.vouchers = 0

    def hear(self, sender: NodeId, receiver: NodeId, data: bytes) -> None:
        """What one node writes to a job's stream."""
        for frame in frames(data):
            if tag_of(frame) != b"signed":
                continue
            try:
                signed = job_frame(frame)
            except RemoteError:
                if self._is_honest(sender):
                    raise Broken("T1: an honest node says what is no message") from None
                continue
            if not isinstance(signed, Signed):
                continue
            match tag_of(signed.body):
                case b"quote":
                    self._quotes[signed.id] = decode(signed.body, Quote, FRAME_BYTES_MAX)
                case b"order":
                    self._ordered(signed, receiver)
                case b"chunk":
                    self._delivered(sender, decode(signed.body, Chunk, FRAME_BYTES_MAX))
                case b"voucher":
                    self._paid(sender, decode(signed.body, Voucher, FRAME_BYTES_MAX))

    def paid_for(self, channel: MessageId) -> int:
        """The most that an honest payer owes of a channel."""
        known = self._channels.get(channel)
        if known is None:
            return 0
        orders = (self._orders[order] for order in known.orders)
        return sum(max(order.ahead_max, order.cost) for order in orders)

    def _ordered(self, signed: Signed, provider: NodeId) -> None:
        order = decode(signed.body, Order, FRAME_BYTES_MAX)
        quote = self._quotes.get(order.quote)
        if not order.channel or quote is None or signed.id in self._orders:
            return
        number = MessageId(order.channel)
        prompt = order.prompt
        texts = [prompt.text, *prompt.texts, *(one.role + one.text for one in prompt.messages)]
        size = sum(len(text.encode()) + 2 for text in texts)
        # A token has a byte at least, and a price is for a million of them.
        self._orders[signed.id] = _Order(
            number, provider, 1 + -(-size * quote.price_in // 1_000_000)
        )
        channel = self._channels.setdefault(number, _Channel(provider, signed.signer))
        channel.window = max(channel.window, quote.window_chunks)
        life = self._shelf.life(provider)
        if channel.life != life:
            channel.life, channel.delivered = life, self._shelf.on_disk(provider, number)
        channel.orders.append(signed.id)
        if order.voucher is not None:
            voucher = decode(order.voucher.body, Voucher, FRAME_BYTES_MAX)
            self._paid(signed.signer, voucher)

    def _delivered(self, sender: NodeId, chunk: Chunk) -> None:
        order = self._orders.get(chunk.order)
        if order is None or sender != order.provider:
            return
        self.chunks += 1
        before, order.cost = order.cost, max(order.cost, chunk.cost)
        if self._is_honest(sender):
            self._charged(order, chunk, before)

    def _charged(self, order: _Order, chunk: Chunk, before: int) -> None:
        known = order.chunks.setdefault(chunk.first_t, chunk.cost)
        if known != chunk.cost:
            raise Broken(f"M6: a chunk at token {chunk.first_t} costs {known} and {chunk.cost}")
        if chunk.cost < before:
            raise Broken(f"M6: the cost of an order falls from {before} to {chunk.cost}")
        channel, added = self._channels[order.channel], chunk.cost - before
        held = self._shelf.on_disk(channel.provider, order.channel)
        counted = self._shelf.counted(channel.provider, order.channel)
        if counted > held:
            raise Broken(f"M4: a payee counts {counted} of a channel and has {held} on disk")
        channel.delivered += added
        channel.chunk_cost_max = max(channel.chunk_cost_max, added)
        unpaid = channel.delivered - held
        if unpaid > channel.window * channel.chunk_cost_max:
            raise Broken(
                f"M5: {unpaid} is delivered and not paid; {channel.window} chunks of at most "
                f"{channel.chunk_cost_max} may be"
            )

    def _paid(self, payer: NodeId, voucher: Voucher) -> None:
        self.vouchers += 1
        channel = self._channels.get(voucher.channel)
        if channel is None or payer != channel.payer or not self._is_honest(payer):
            return
        channel.signed = max(channel.signed, voucher.cumulative)
        most = self.paid_for(voucher.channel)
        if voucher.cumulative > most:
            raise Broken(f"M5, M6: a payer signs {voucher.cumulative}; it got or ordered {most}")
