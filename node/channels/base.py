"""What jobs ask of channels: a way to pay for one order, and a way to be paid for one.

Implementations: `node.channels.payer` and `node.channels.payee` (the real ones), and
`node.channels.scripted` (in tests).
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from protocol.envelope import Signed
from protocol.ids import MessageId, NodeId
from protocol.job.window import Window
from protocol.limits import WINDOW_CHUNKS_STRANGER
from protocol.units import Microcredits


@dataclass(frozen=True, slots=True)
class PayTerms:
    """How a provider is paid by one requester; it goes into the quote."""

    window_chunks: int
    is_prompt_first: bool
    """Whether the order must carry the voucher for the prompt: of a stranger it is asked."""


class Spending(Protocol):
    """One order's use of a channel, from the payer's side. Signing needs no disk and no wait."""

    @property
    def channel(self) -> MessageId: ...

    def prompt_voucher(self, quote: MessageId, amount: int) -> Signed:
        """The voucher that goes with the order: it pays `amount` microcredits ahead, which later
        vouchers of this order count as paid."""

    def voucher(self, order: MessageId, first_t: int, cost: int) -> Signed | None:
        """The voucher after a chunk that was received and checked: `cost` is what the order has
        cost so far in all, `first_t` the first token not yet paid. None where what was signed
        before covers it (vouchers of other orders and what was paid ahead count).

        Raises LocalError OVERDRAWN where the channel's funding does not cover it: the caller holds
        more than it asked for.
        """

    def return_ahead(self) -> None:
        """What was paid ahead and is more than the order has cost counts for the next order: the
        payee has refused this one before it read the prompt, or has the countersigned receipt and
        is done with it. Without this call it is spent when the order ends: a payee that has read
        the prompt, or delivered what never came, counts it so, too."""
        return


class Payer(Protocol):
    """A requester's channels."""

    @property
    def spendable(self) -> int:
        """What an order may cost now, in microcredits: free balance, or room in some channel."""

    def has_room(self, payee: NodeId, cost_worst: int) -> bool:
        """Whether an order of this cost needs no witness before it starts."""

    def spend(self, payee: NodeId, cost_worst: int) -> AbstractAsyncContextManager[Spending]:
        """Hold `cost_worst` of a channel to `payee` for one order, until the context ends. Opens or
        tops up a channel where there is not so much room, which waits for witnesses; else it is
        immediate. The payee has been shown the channel when this enters.

        Raises LocalError OVERDRAWN (with what is asked, what there is and what to do) or
        UNAVAILABLE (the witnesses or the payee do not answer in time: what waits is named).
        """

    def expect(self, payees: list[tuple[NodeId, int]]) -> None:
        """These providers are likely to be asked soon, and the dearest job there costs so much:
        open channels ahead of need, as far as the policy allows. It does not wait."""

    async def mistrusted(self, channel: MessageId, sentence: str) -> None:
        """The payee refuses this channel; the sentence begins with the code: for NO_CHANNEL show it
        again, for UNPAID, CHANNEL_CLOSED and BAD_VOUCHER (the two count it differently) settle it
        and use another."""


class Earning(Protocol):
    """One order's use of a channel, from the payee's side."""

    @property
    def window(self) -> Window:
        """The channel's: shared with every other order on it."""

    async def count(self, voucher: Signed) -> None:
        """Check a voucher and count it: it is on disk when this returns, and the window knows of
        it. Vouchers that come at the same time share one wait for the disk. One that is not
        higher than what is held changes nothing.

        Raises RemoteError: as `voucher_opened`, BAD_VOUCHER for one of another channel or beyond
        the funding, CHANNEL_CLOSED; LocalError UNAVAILABLE where the disk fails: then it does not
        count.
        """

    async def changed(self) -> None:
        """Wait until a voucher of any order of this channel has been counted since the last call
        of `changed` by this order returned."""

    def lost(self, amount: Microcredits, chunks: int) -> None:
        """The order is over and so much of what it delivered has no voucher: book it as lost. The
        window keeps counting it, so that a channel loses its window once."""


class Payee(Protocol):
    """A provider's channels."""

    def terms(self, requester: NodeId) -> PayTerms:
        """For the quote: more trust for who has paid for more, within limits.py."""

    def earn(
        self,
        requester: NodeId,
        channel: MessageId,
        window_chunks: int = WINDOW_CHUNKS_STRANGER,
    ) -> AbstractAsyncContextManager[Earning]:
        """One order is served on this channel, until the context ends. `window_chunks` is what its
        quote says: the window is the widest of the orders that run on the channel (M5).

        Raises LocalError NO_CHANNEL (not known here, or of others), CHANNEL_CLOSED (nears its
        expiry, settles or is settled), UNPAID (its window is full of what was never paid).
        """
