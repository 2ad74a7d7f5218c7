"""Channels in memory, under trio's clock: for tests of jobs. They keep every promise of the real
ones: what is held, what counts and when, what is spent and what is lost."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import trio

from node.channels.base import Earning, Payee, Payer, PayTerms, Spending
from protocol.envelope import Signed
from protocol.errors import Code, LocalError, RemoteError
from protocol.identity import Identity, digest
from protocol.ids import MessageId, NetworkId, NodeId
from protocol.job.window import Window
from protocol.ledger.voucher import Voucher, voucher_note, voucher_opened, voucher_signed
from protocol.limits import WINDOW_CHUNKS_STRANGER
from protocol.units import Microcredits


@dataclass(slots=True)
class ScriptedChannel:
    """What outlives the nodes of one channel: its terms, and what its payee has on disk."""

    id: MessageId
    payer: NodeId
    payee: NodeId
    funding: int
    held: int = 0
    vouchers: list[Voucher] = field(default_factory=list)  # All that were counted.
    lost: list[tuple[int, int]] = field(default_factory=list)  # Microcredits and chunks.
    refusal: Code | None = None  # Why its payee takes no order on it.


class ScriptedChannels:
    """All channels of a test's world, and what each account may still put into new ones."""

    def __init__(self, network: NetworkId, balances: Mapping[NodeId, int]) -> None:
        self.network = network
        self.balances = dict(balances)
        self.channels: dict[MessageId, ScriptedChannel] = {}
        self.deposit = 1_000_000  # Of a new channel, or what the order may cost if that is more.
        self.open_seconds = 0.0
        self.count_seconds = 0.0
        self.terms = PayTerms(2, True)
        self.failure: LocalError | None = None  # Of the disk under a payee's vouchers.

    def opened(self, payer: NodeId, payee: NodeId, deposit: int) -> ScriptedChannel:
        """A new channel. Raises LocalError OVERDRAWN."""
        if deposit > self.balances[payer]:
            raise LocalError(Code.OVERDRAWN, f"{deposit} microcredits are not there.")
        self.balances[payer] -= deposit
        number = len(self.channels).to_bytes(8, "little")
        channel = ScriptedChannel(MessageId(digest(payer + number)), payer, payee, deposit)
        self.channels[channel.id] = channel
        return channel

    def between(self, payer: NodeId, payee: NodeId) -> list[ScriptedChannel]:
        """Their channels, the oldest first."""
        found = self.channels.values()
        return [one for one in found if (one.payer, one.payee) == (payer, payee)]


@dataclass(slots=True)
class _Drawn:
    over: int = 0  # What orders that are over have cost or paid ahead.
    signed: int = 0
    orders: list["_Spending"] = field(default_factory=list)


class ScriptedPayer(Payer):
    """The payer's side of one node."""

    def __init__(self, world: ScriptedChannels, identity: Identity) -> None:
        self._world = world
        self._identity = identity
        self._drawn: dict[MessageId, _Drawn] = {}
        self._bad: set[MessageId] = set()
        self.mistrust: list[str] = []
        self.expected: list[tuple[NodeId, int]] = []

    @property
    def spendable(self) -> int:
        me = self._identity.node
        rooms = [self._room(one) for one in self._world.channels.values() if one.payer == me]
        return max([self._world.balances.get(me, 0), *rooms])

    def has_room(self, payee: NodeId, cost_worst: int) -> bool:
        return any(self._room(one) >= cost_worst for one in self._usable(payee))

    def spend(self, payee: NodeId, cost_worst: int) -> AbstractAsyncContextManager[Spending]:
        return self._spend(payee, cost_worst)

    def expect(self, payees: list[tuple[NodeId, int]]) -> None:
        self.expected = payees

    async def mistrusted(self, channel: MessageId, sentence: str) -> None:
        self.mistrust.append(sentence)
        self._bad.add(channel)

    def signed(self, channel: MessageId) -> int:
        """The highest sum that this node has signed for in a channel."""
        return self._drawn[channel].signed

    @asynccontextmanager
    async def _spend(self, payee: NodeId, cost_worst: int) -> AsyncIterator[Spending]:
        fitting = [one for one in self._usable(payee) if self._room(one) >= cost_worst]
        if fitting:
            channel = fitting[0]
        else:
            await trio.sleep(self._world.open_seconds)
            deposit = max(cost_worst, min(self._world.deposit, self.spendable))
            channel = self._world.opened(self._identity.node, payee, deposit)
        drawn = self._of(channel)
        order = _Spending(self._identity, self._world.network, channel.id, drawn, cost_worst)
        drawn.orders.append(order)
        try:
            yield order
        finally:
            drawn.orders.remove(order)
            drawn.over += order.cost if order.is_returned else order.due

    def _of(self, channel: ScriptedChannel) -> _Drawn:
        # After a restart the payee says what it holds.
        return self._drawn.setdefault(channel.id, _Drawn(channel.held, channel.held))

    def _usable(self, payee: NodeId) -> list[ScriptedChannel]:
        ours = self._world.between(self._identity.node, payee)
        return [one for one in ours if one.id not in self._bad]

    def _room(self, channel: ScriptedChannel) -> int:
        drawn = self._of(channel)
        return channel.funding - drawn.over - sum(one.held for one in drawn.orders)


class _Spending(Spending):
    def __init__(
        self,
        identity: Identity,
        network: NetworkId,
        channel: MessageId,
        drawn: _Drawn,
        held: int,
    ) -> None:
        self._identity, self._network = identity, network
        self._channel, self._drawn, self.held = channel, drawn, held
        self._ahead = 0
        self.cost = 0
        self.is_returned = False

    @property
    def channel(self) -> MessageId:
        return self._channel

    @property
    def due(self) -> int:
        return max(self.cost, self._ahead)

    def prompt_voucher(self, quote: MessageId, amount: int) -> Signed:
        self._ahead = amount
        self._check()
        return self._sign(voucher_note(quote, 0))

    def voucher(self, order: MessageId, first_t: int, cost: int) -> Signed | None:
        assert self in self._drawn.orders, "what is not held any more cannot be signed for"
        self.cost = max(self.cost, cost)
        self._check()
        if self._sum <= self._drawn.signed:
            return None
        return self._sign(voucher_note(order, first_t))

    def return_ahead(self) -> None:
        assert self in self._drawn.orders, "what is not held any more cannot be given back"
        self.is_returned = True

    @property
    def _sum(self) -> int:
        return self._drawn.over + sum(one.due for one in self._drawn.orders)

    def _check(self) -> None:
        if self.due > self.held:
            raise LocalError(Code.OVERDRAWN, f"{self.due} of {self.held} microcredits are spent.")

    def _sign(self, note: bytes) -> Signed:
        self._drawn.signed = max(self._drawn.signed, self._sum)
        voucher = Voucher(self._channel, self._drawn.signed, note, b"")
        return voucher_signed(self._identity, voucher, self._network)


class ScriptedPayee(Payee):
    """The payee's side of one node, from one start to the next."""

    def __init__(self, world: ScriptedChannels, me: NodeId) -> None:
        self._world = world
        self._me = me
        self._windows: dict[MessageId, Window] = {}
        self._changed: dict[MessageId, trio.Event] = {}
        self.counted = 0

    def terms(self, requester: NodeId) -> PayTerms:
        return self._world.terms

    def window(self, channel: MessageId) -> Window:
        """The one that its orders share."""
        if channel not in self._windows:
            known = self._world.channels[channel]
            self._windows[channel] = Window(self._world.terms.window_chunks, known.held)
            self._changed[channel] = trio.Event()
        return self._windows[channel]

    @asynccontextmanager
    async def earn(
        self,
        requester: NodeId,
        channel: MessageId,
        window_chunks: int = WINDOW_CHUNKS_STRANGER,
    ) -> AsyncIterator[Earning]:
        known = self._world.channels.get(channel)
        if known is None or (known.payer, known.payee) != (requester, self._me):
            raise LocalError(Code.NO_CHANNEL, "This channel is not known here.")
        if known.refusal is not None:
            raise LocalError(known.refusal, "This channel takes no more orders.")
        if self.window(channel).is_spent:
            raise LocalError(Code.UNPAID, "The window of this channel is full of what was lost.")
        yield _Earning(self, self._world, known)

    def tell(self, channel: MessageId) -> None:
        """A voucher was counted."""
        self.counted += 1
        self._changed[channel].set()
        self._changed[channel] = trio.Event()

    def next_change(self, channel: MessageId) -> trio.Event:
        """Set when the next voucher is counted."""
        return self._changed[channel]


class _Earning(Earning):
    def __init__(self, payee: ScriptedPayee, world: ScriptedChannels, known: ScriptedChannel):
        self._payee, self._world, self._known = payee, world, known
        self._next = payee.next_change(known.id)

    @property
    def window(self) -> Window:
        return self._payee.window(self._known.id)

    async def count(self, voucher: Signed) -> None:
        known = self._known
        value = voucher_opened(voucher, known.payer, self._world.network).value
        if value.channel != known.id or value.cumulative > known.funding:
            raise RemoteError(Code.BAD_VOUCHER, "The voucher is of another channel, or too high.")
        await trio.sleep(self._world.count_seconds)
        if self._world.failure is not None:
            raise self._world.failure
        known.vouchers.append(value)
        known.held = max(known.held, value.cumulative)
        self.window.pay(value.cumulative)
        self._payee.tell(known.id)

    async def changed(self) -> None:
        await self._next.wait()
        self._next = self._payee.next_change(self._known.id)

    def lost(self, amount: Microcredits, chunks: int) -> None:
        self._known.lost.append((amount, chunks))
