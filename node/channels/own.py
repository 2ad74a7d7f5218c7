"""One channel of ours to a provider: what is known of it, what is left, and signing for it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from node.channels import policy
from node.channels.base import Spending
from node.channels.drawn import Drawn
from node.ledger.base import ChannelFacts, Ledger
from protocol.envelope import Signed
from protocol.errors import Code, LocalError, RemoteError
from protocol.identity import Identity
from protocol.ids import MessageId, NodeId, node_text
from protocol.ledger.charter import Charter
from protocol.ledger.voucher import Voucher, voucher_note, voucher_opened, voucher_signed

RECALL_SECONDS_MAX: Final = 10.0
NO_LOCK: Final = b""


@dataclass(frozen=True, slots=True)
class Around:
    """What channels need of their node; `wall_ms` is the wall clock, which may jump."""

    identity: Identity
    charter: Charter
    ledger: Ledger
    wall_ms: Callable[[], int]
    limits: policy.Limits


class OwnChannel:
    """Of which this node is the payer."""

    def __init__(self, around: Around, facts: ChannelFacts, *, is_new: bool) -> None:
        """`is_new`: this very process has opened it, so nothing was signed on it before."""
        self._around = around
        self.facts = facts
        self.used_ms = around.wall_ms()
        """When an order on it was last over, by the wall clock; at first, since when it is here."""
        self.bad = ""
        """Why no order is placed on it any more; "" for none."""
        self.is_wanted_settled = False
        """Its settlement is to be asked for, and the payee has not answered yet."""
        self.was_shown_again = False
        """The payee said that it does not know it, and was shown it anew."""
        self._drawn = Drawn(facts.funding, 0) if is_new else None
        self._shown = 0  # With what funding the payee has been shown it, since this start.
        self._lock = trio.Lock()

    @property
    def signed(self) -> int | None:
        """The highest sum signed; None while only the payee knows."""
        return None if self._drawn is None else self._drawn.signed

    @property
    def is_recalled(self) -> bool:
        """Whether it is known what was signed before."""
        return self._drawn is not None

    @property
    def is_shown(self) -> bool:
        """Whether the payee knows it with all its top-ups."""
        return self._shown >= self.facts.funding

    @property
    def orders(self) -> int:
        """How many of ours run on it."""
        return 0 if self._drawn is None else self._drawn.orders

    @property
    def left(self) -> int:
        """What a new order may cost, in microcredits; 0 while that is not known."""
        return 0 if self._drawn is None else max(0, self._drawn.left)

    @property
    def unspent(self) -> int:
        """Of the funding, what is not signed away; 0 while that is not known."""
        return 0 if self._drawn is None else self._drawn.unspent

    @property
    def locked(self) -> int:
        """Of the funding, what is neither spent nor back. All of it until the payee has said what
        it holds."""
        facts = self.facts
        if facts.is_claimed:
            return 0
        taken = self.signed if facts.settled is None else facts.settled
        return facts.funding - min(facts.funding, taken or 0)

    @property
    def is_usable(self) -> bool:
        """Whether an order may begin on it."""
        facts, around = self.facts, self._around
        return (
            facts.settled is None
            and not self.bad
            and policy.can_be_used(facts.expiry_ms, around.wall_ms(), around.charter)
        )

    def heard(self, facts: ChannelFacts) -> None:
        """Certificates say more of it."""
        self.facts = facts
        if self._drawn is not None:
            self._drawn.funding = max(self._drawn.funding, facts.funding)

    async def recall(self) -> None:
        """Take back from the payee what an earlier process of this node has signed last: that is
        kept nowhere else. A payee that tells of less than it holds cheats itself alone.

        Raises LocalError UNAVAILABLE where the payee does not answer.
        """
        async with self._lock:
            if self._drawn is not None:
                return
            with trio.move_on_after(RECALL_SECONDS_MAX) as waited:
                signed = await self._around.ledger.ask_voucher(self.facts.id)
            if waited.cancelled_caught:
                raise _silent(self.facts.payee)
            self._drawn = Drawn(self.facts.funding, 0 if signed is None else self._sum_of(signed))

    def _sum_of(self, signed: Signed) -> int:
        identity, network = self._around.identity, self._around.charter.network
        try:
            voucher = voucher_opened(signed, identity.node, network).value
        except RemoteError:
            return 0
        return voucher.cumulative if voucher.channel == self.facts.id else 0

    async def show(self, *, again: bool = False) -> None:
        """Have the payee know it. Raises LocalError UNAVAILABLE where it does not answer."""
        async with self._lock:
            funding = self.facts.funding
            if again or self._shown < funding:
                await self._around.ledger.show_channel(self.facts.id)
                self._shown = max(self._shown, funding)

    @asynccontextmanager
    async def spend(self, cost_worst: int) -> AsyncIterator[Spending]:
        """Hold so much, of what is left, for one order, until the context ends. Raises LocalError
        UNAVAILABLE where the payee cannot be shown the channel."""
        drawn = self._drawn
        assert drawn is not None
        number = drawn.hold(cost_worst)
        try:
            if not self.is_shown:
                await self.show()
            yield _OwnSpending(self._around, self.facts.id, drawn, number)
        finally:
            drawn.release(number)
            self.used_ms = self._around.wall_ms()


class _OwnSpending(Spending):
    """One order's use of a channel. Signing waits for nothing: the payee keeps vouchers."""

    def __init__(self, around: Around, channel: MessageId, drawn: Drawn, number: int) -> None:
        self._identity, self._network = around.identity, around.charter.network
        self._channel, self._drawn, self._number = channel, drawn, number

    @property
    def channel(self) -> MessageId:
        return self._channel

    def prompt_voucher(self, quote: MessageId, amount: int) -> Signed:
        # The least that a voucher can say is one microcredit; it counts for what comes after.
        return self._signed(self._drawn.prepay(self._number, max(1, amount)), quote, 0)

    def voucher(self, order: MessageId, first_t: int, cost: int) -> Signed | None:
        cumulative = self._drawn.charge(self._number, cost)
        return None if cumulative is None else self._signed(cumulative, order, first_t)

    def return_ahead(self) -> None:
        self._drawn.return_ahead(self._number)

    def _signed(self, cumulative: int, order: MessageId, first_t: int) -> Signed:
        voucher = Voucher(self._channel, cumulative, voucher_note(order, first_t), NO_LOCK)
        return voucher_signed(self._identity, voucher, self._network)


def _silent(payee: NodeId) -> LocalError:
    return LocalError(
        Code.UNAVAILABLE,
        f"{node_text(payee)} does not say which voucher of this channel it holds; it is asked "
        "again before the next order there.",
    )
