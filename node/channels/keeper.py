"""The life of channels by themselves: when a payee settles, and when a payer asks for it.

Turns after the expiry and the claims that follow are the ledger's own.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from node.channels import policy
from node.channels.book import Book
from node.channels.own import Around, OwnChannel
from node.channels.payee import OwnPayee
from node.channels.payer import OwnPayer
from node.ledger.signal import Signal
from node.telemetry.logs import Log
from protocol.errors import AyniError
from protocol.ids import MessageId, short

LOOK_SECONDS_MAX: Final = 60.0  # Between looks, whatever the clock says: it may have jumped.
LOOK_SECONDS_MIN: Final = 0.25
WANTED_MS_MAX: Final = 60_000  # Running orders may end for so long after it was asked for.
WORTH_QUIET_MS: Final = 10_000  # A settlement ends the channel, so not in mid-conversation.
AGAIN_SECONDS: Final = 30.0  # After a payee that did not answer, or a disk that failed.

_log = Log("channels.keeper")


@dataclass(frozen=True, slots=True)
class Next:
    """What happens to a channel next by itself, and when by the wall clock."""

    why: str  # "wanted", "idle", "worth" or "expiry".
    at_ms: int


def next_of_book(book: Book, limits: policy.Limits, around: Around, balance: int) -> Next | None:
    """When and why this node, the payee, settles a channel; None where it does already."""
    if book.is_closing or book.facts.settled is not None:
        return None
    plans = [Next("expiry", policy.settle_at_ms(book.facts.expiry_ms, around.charter))]
    if book.wanted_at_ms is not None:
        plans.append(Next("wanted", book.wanted_at_ms + (WANTED_MS_MAX if book.orders else 0)))
    if not book.orders:
        plans.append(Next("idle", book.used_ms + limits.idle_ms))
        if policy.is_worth_settling(limits, book.held, balance):
            plans.append(Next("worth", book.used_ms + WORTH_QUIET_MS))
    return min(plans, key=lambda plan: plan.at_ms)


def next_of_own(own: OwnChannel, limits: policy.Limits) -> Next | None:
    """When and why this node, the payer, asks for a settlement; None where it has asked."""
    if own.facts.settled is not None:
        return None
    if own.is_wanted_settled:
        return Next("wanted", own.used_ms)
    if own.bad or own.orders:
        return None
    return Next("idle", own.used_ms + limits.idle_ms)


class ChannelKeeper:
    """Looks after the channels of both roles while `run` runs."""

    def __init__(self, around: Around, payer: OwnPayer, payee: OwnPayee) -> None:
        self._around, self._payer, self._payee = around, payer, payee
        self._wake = Signal()
        self._not_before: dict[MessageId, float] = {}
        """By trio's clock: when what failed is tried again."""
        payer.watchers.append(self._wake.set)
        payee.watchers.append(self._wake.set)

    async def run(self) -> None:
        """Settle and ask, until cancelled."""
        # Side by side: a payee of ours that does not answer must not keep us from settling, in
        # time, what others owe us.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_again_and_again, self._settle)
            nursery.start_soon(self._look_again_and_again, self._ask)

    async def _look_again_and_again(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            coming = self._wake.coming()
            await look()
            with trio.move_on_after(self._wait_seconds()):
                await coming.wait()

    async def _settle(self) -> None:
        """As the payee."""
        now_ms, limits = self._around.wall_ms(), self._around.limits
        balance = self._around.ledger.standing().balance
        for book in self._payee.books:
            plan = next_of_book(book, limits, self._around, balance)
            if self._is_stuck(book):
                await self._try_to_settle(book.facts.id, "again")
            elif plan is not None and plan.at_ms <= now_ms:
                await self._try_to_settle(book.facts.id, plan.why)
        self._forget()

    async def _ask(self) -> None:
        """As the payer."""
        now_ms, limits = self._around.wall_ms(), self._around.limits
        async with trio.open_nursery() as nursery:
            for own in self._payer.own:
                wish = next_of_own(own, limits)
                if wish is not None and wish.at_ms <= now_ms and self._is_time(own.facts.id):
                    self._later(own.facts.id)
                    nursery.start_soon(self._payer.want_settled, own.facts.id)

    def _forget(self) -> None:
        known = {book.facts.id for book in self._payee.books}
        known |= {own.facts.id for own in self._payer.own}
        for gone in set(self._not_before) - known:
            del self._not_before[gone]

    async def _try_to_settle(self, channel: MessageId, why: str) -> None:
        if not self._is_time(channel):
            return
        try:
            await self._payee.settle(channel)
            self._not_before.pop(channel, None)
            _log.info("channel.settles", channel=short(channel), why=why)
        except AyniError as error:
            _log.warning("settlement.waits", channel=short(channel), code=error.code)
            self._later(channel)

    def _is_stuck(self, book: Book) -> bool:
        """Whether it is closed to vouchers and its settlement is not on the ledger's disk."""
        if not book.is_closing or book.facts.settled is not None:
            return False
        settlings = self._around.ledger.settling()
        return not any(one.channel == book.facts.id and one.turn for one in settlings)

    def _is_time(self, channel: MessageId) -> bool:
        return trio.current_time() >= self._not_before.get(channel, 0)

    def _later(self, channel: MessageId) -> None:
        self._not_before[channel] = trio.current_time() + AGAIN_SECONDS

    def _wait_seconds(self) -> float:
        """Until the next thing is due. The wall clock may jump, so it is looked at often."""
        now_ms, limits = self._around.wall_ms(), self._around.limits
        balance = self._around.ledger.standing().balance
        plans = [
            (one.facts.id, next_of_book(one, limits, self._around, balance))
            for one in self._payee.books
        ]
        plans += [(one.facts.id, next_of_own(one, limits)) for one in self._payer.own]
        now = trio.current_time()
        due = [
            max((plan.at_ms - now_ms) / 1000, self._not_before.get(channel, 0) - now)
            for channel, plan in plans
            if plan is not None
        ]
        due += [AGAIN_SECONDS for one in self._payee.books if self._is_stuck(one)]
        return min([LOOK_SECONDS_MAX, *(max(LOOK_SECONDS_MIN, one) for one in due)])
