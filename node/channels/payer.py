"""A requester's channels: for each order one is chosen, and topped up or opened where it must."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from node.channels import policy
from node.channels.base import Payer, Spending
from node.channels.own import Around, OwnChannel
from node.ledger.base import ChannelFacts
from node.ledger.signal import Signal
from node.telemetry.logs import Log
from protocol.errors import AyniError, Code, LocalError
from protocol.ids import MessageId, NodeId, node_text, short
from protocol.units import credits_text

WITNESSES_SECONDS_MAX: Final = 20.0  # That an order waits for an open or a top-up.
EXPECTED_MAX: Final = 8  # Providers to which channels are opened ahead of need.
LOOK_SECONDS: Final = 60.0  # Between looks at what to open or top up, where nothing changes.

_log = Log("channels.payer")


@dataclass(frozen=True, slots=True)
class _Asked:
    """An open or top-up that is queued at the ledger and of which nothing was heard since."""

    amount: int
    expiry_ms: int  # Of an open; 0 for a top-up.


@dataclass(frozen=True, slots=True)
class _Likely:
    """A payee that is likely to be asked again: what the dearest job there costs, and when one was
    thought of last, by the wall clock."""

    dearest: int
    at_ms: int


class OwnPayer(Payer):
    """Implements `node.channels.base.Payer`. `run` must run for channels to be opened and topped
    up ahead of need; orders wait for it nowhere."""

    def __init__(self, around: Around) -> None:
        self._around, self._ledger, self._limits = around, around.ledger, around.limits
        self._own: dict[MessageId, OwnChannel] = {}
        self._opening: dict[NodeId, _Asked] = {}
        self._topping: dict[MessageId, _Asked] = {}
        self._likely: OrderedDict[NodeId, _Likely] = OrderedDict()
        self._unneeded: set[NodeId] = set()
        """Payees whose channel was settled without a voucher on it: until an order is at hand for
        one, no other is opened to it ahead of need, or the same would be done again for ever."""
        self._changed = Signal()
        self._wake = Signal()
        self.watchers: list[Callable[[], None]] = []
        """Called when there may be something to ask to be settled; they must not wait."""
        self._ledger.watch_channels(self._heard)

    # As `node.channels.base.Payer`.

    @property
    def spendable(self) -> int:
        """As `Payer.spendable`."""
        free = self._means().spendable
        return free + max((own.left for own in self._own.values() if own.is_usable), default=0)

    def has_room(self, payee: NodeId, cost_worst: int) -> bool:
        """As `Payer.has_room`."""
        own = self._with_room(payee, cost_worst)
        return own is not None and own.is_shown

    def spend(self, payee: NodeId, cost_worst: int) -> AbstractAsyncContextManager[Spending]:
        """As `Payer.spend`."""
        return self._spend(payee, cost_worst)

    def expect(self, payees: list[tuple[NodeId, int]]) -> None:
        """As `Payer.expect`; of all that were ever named, the last EXPECTED_MAX."""
        for payee, dearest in reversed(payees[:EXPECTED_MAX]):
            if payee not in self._unneeded:
                self._expect(payee, dearest)
        self._wake.set()

    async def mistrusted(self, channel: MessageId, sentence: str) -> None:
        """As `Payer.mistrusted`; the sentence begins with the code of the refusal."""
        own = self._own.get(channel)
        if own is None or own.bad:
            return
        if sentence.startswith(Code.NO_CHANNEL) and not own.was_shown_again:
            own.was_shown_again = True  # It may have lost it; once more it is not believed.
            try:
                await own.show(again=True)
                return
            except LocalError as error:
                sentence = error.sentence
        own.bad = sentence or "its payee refuses it"
        _log.info("channel.left", channel=short(channel))
        await self.want_settled(channel)
        self._wake.set()

    # For the keeper and for people.

    @property
    def own(self) -> Sequence[OwnChannel]:
        """Our channels as payer, in no order."""
        return list(self._own.values())

    def unexpect(self, payee: NodeId) -> None:
        """Open nothing to it ahead of need, until an order is at hand again."""
        self._likely.pop(payee, None)

    @property
    def locked(self) -> int:
        """Microcredits in own channels or on their way there, and neither spent nor back."""
        return sum(own.locked for own in self._own.values()) + self._on_its_way()

    async def want_settled(self, channel: MessageId) -> None:
        """Ask the payee to settle; no order is placed on the channel any more. Where it does not
        answer, the keeper asks again."""
        own = self._own.get(channel)
        if own is None or own.facts.settled is not None:
            return
        own.bad = own.bad or "its settlement was asked for"
        own.is_wanted_settled = True
        try:
            await self._ledger.want_settlement(channel)
            own.is_wanted_settled = False
        except LocalError as error:
            _log.info("settlement.unasked", channel=short(channel), code=error.code)
        self._tell()

    # The task.

    async def run(self) -> None:
        """Open and top up ahead of need, until cancelled."""
        while True:
            coming = self._wake.coming()
            now_ms = self._around.wall_ms()
            for payee, likely in list(self._likely.items()):
                if now_ms - likely.at_ms >= self._limits.idle_ms:
                    del self._likely[payee]  # Nobody has asked it for anything for so long.
            ours = sorted({own.facts.payee for own in self._own.values()} - set(self._likely))
            # Side by side, since one that is away keeps us waiting.
            async with trio.open_nursery() as nursery:
                for payee in [*self._likely, *ours]:
                    nursery.start_soon(self._try_to_prepare, payee)
            with trio.move_on_after(LOOK_SECONDS):
                await coming.wait()

    async def _try_to_prepare(self, payee: NodeId) -> None:
        try:
            await self._prepare(payee)
        except AyniError as error:  # An order at hand says why; here it is tried again.
            _log.info("channel.not_ready", peer=short(payee), code=error.code)

    async def _prepare(self, payee: NodeId) -> None:
        usable, likely = self._usable(payee), self._likely.get(payee)
        for own in usable:
            if not own.is_recalled:
                await self._recall(own)
            if not own.is_shown:
                await own.show()
        if likely is None:
            return  # It has what there is, and no more is put into it.
        if not usable:
            amount = policy.deposit(self._limits, self._means(), likely.dearest)
            if amount and payee not in self._opening and not self._is_queued(payee):
                await self._open(payee, amount)
            return
        fullest = max(usable, key=lambda own: own.left)
        if not self._is_topped_up(fullest) and policy.may_top_up(fullest.facts.topups):
            amount = policy.top_up(self._limits, self._means(), likely.dearest, fullest.unspent)
            if amount:
                await self._top_up(fullest, amount)

    # Within.

    @asynccontextmanager
    async def _spend(self, payee: NodeId, cost_worst: int) -> AsyncIterator[Spending]:
        self._unneeded.discard(payee)
        self._expect(payee, cost_worst)
        # From finding a channel to holding its room nothing waits, so two orders never share it.
        own = await self._found(payee, cost_worst)
        try:
            async with own.spend(cost_worst) as spending:
                yield spending
        finally:
            self._changed.set()
            self._wake.set()  # It may be time to top up.

    async def _found(self, payee: NodeId, cost_worst: int) -> OwnChannel:
        """A channel with so much room. Raises LocalError as `Payer.spend`."""
        with trio.move_on_after(WITNESSES_SECONDS_MAX):
            while True:
                coming = self._changed.coming()
                own = self._with_room(payee, cost_worst)
                if own is not None:
                    return own
                forgotten = [one for one in self._usable(payee) if not one.is_recalled]
                for one in forgotten:
                    await self._recall(one)
                if not forgotten:
                    await self._fund(payee, cost_worst)
                    await coming.wait()
        raise self._waits(payee, cost_worst)

    async def _fund(self, payee: NodeId, cost_worst: int) -> None:
        """Have a channel opened or topped up, so that an order of this cost has room, unless that
        is on its way. Raises LocalError OVERDRAWN."""
        asked = self._opening.get(payee)
        if (asked is not None and asked.amount >= cost_worst) or self._is_queued(payee, cost_worst):
            return
        means, likely = self._means(), self._likely.get(payee)
        dearest = cost_worst if likely is None else likely.dearest
        own = max(self._usable(payee), key=lambda one: one.left, default=None)
        if own is not None and policy.may_top_up(own.facts.topups):
            lack = cost_worst - own.left
            if self._is_topped_up(own, lack):
                return
            if lack <= means.spendable:
                ahead = policy.top_up(self._limits, means, dearest, own.unspent)
                await self._top_up(own, max(lack, ahead))
                return
        amount = policy.deposit_now(self._limits, means, dearest, cost_worst)
        if not amount:
            raise _overdrawn(cost_worst, means)
        await self._open(payee, amount)

    async def _open(self, payee: NodeId, amount: int) -> None:
        life_ms = policy.life_ms(self._limits, self._around.charter)
        asked = _Asked(amount, self._around.wall_ms() + life_ms)
        self._opening[payee] = asked
        try:
            await self._ledger.open_channel(payee, amount, asked.expiry_ms)
        except BaseException:
            if self._opening.get(payee) is asked:
                del self._opening[payee]
            raise
        _log.info("channel.opening", peer=short(payee), microcredits=amount)

    async def _top_up(self, own: OwnChannel, amount: int) -> None:
        asked = _Asked(amount, 0)
        self._topping[own.facts.id] = asked
        try:
            await self._ledger.top_up(own.facts.id, amount)
        except BaseException:
            if self._topping.get(own.facts.id) is asked:
                del self._topping[own.facts.id]
            raise

    async def _recall(self, own: OwnChannel) -> None:
        await own.recall()
        self._changed.set()

    def _heard(self, facts: ChannelFacts) -> None:
        if facts.payer != self._around.identity.node:
            return
        own = self._own.get(facts.id)
        if own is None:
            if facts.is_claimed:
                return
            # Only what this very process has asked for is known to be unused: after a restore old
            # channels come as news.
            asked = self._opening.get(facts.payee)
            is_new = asked is not None and asked.expiry_ms == facts.expiry_ms
            own = self._own[facts.id] = OwnChannel(self._around, facts, is_new=is_new)
            if is_new:
                del self._opening[facts.payee]
        if facts.funding > own.facts.funding or facts.settled is not None:
            self._topping.pop(facts.id, None)
        if facts.settled == 0 and own.facts.settled is None:
            self._unneeded.add(facts.payee)
            self.unexpect(facts.payee)
        own.heard(facts)
        if facts.is_claimed:
            del self._own[facts.id]
        self._changed.set()
        self._wake.set()
        self._tell()

    def _tell(self) -> None:
        for watcher in self.watchers:
            watcher()

    def _expect(self, payee: NodeId, dearest: int) -> None:
        before = self._likely.pop(payee, None)
        dearest = max(dearest, 0 if before is None else before.dearest)
        self._likely[payee] = _Likely(dearest, self._around.wall_ms())
        if len(self._likely) > EXPECTED_MAX:
            self._likely.popitem(last=False)

    def _usable(self, payee: NodeId) -> list[OwnChannel]:
        return [one for one in self._own.values() if one.facts.payee == payee and one.is_usable]

    def _with_room(self, payee: NodeId, cost_worst: int) -> OwnChannel | None:
        """Of channels with room the one that expires first, so that none is left half used."""
        fitting = [one for one in self._usable(payee) if one.is_recalled and one.left >= cost_worst]
        return min(fitting, key=lambda own: (own.facts.expiry_ms, own.facts.id), default=None)

    def _on_its_way(self) -> int:
        waiting = self._ledger.waiting()
        return sum(one.amount for one in waiting if one.kind in ("open", "topup"))

    def _is_queued(self, payee: NodeId, amount: int = 0) -> bool:
        """Whether an open to this payee waits at the ledger, perhaps from before a restart."""
        return any(
            one.kind == "open" and one.to == payee and one.amount >= amount
            for one in self._ledger.waiting()
        )

    def _is_topped_up(self, own: OwnChannel, amount: int = 0) -> bool:
        """Whether a top-up of so much is on its way; of one from before a restart, whether any is:
        then it is seen how much it brings."""
        asked = self._topping.get(own.facts.id)
        if asked is not None:
            return asked.amount >= amount
        waiting = self._ledger.waiting()
        return any(one.kind == "topup" and one.to in (own.facts.payee, None) for one in waiting)

    def _means(self) -> policy.Means:
        standing = self._ledger.standing()
        spendable = max(0, standing.spendable - self._around.charter.entry_fee)
        return policy.Means(standing.balance, spendable, self.locked)

    def _waits(self, payee: NodeId, cost_worst: int) -> LocalError:
        retry_ms = round(WITNESSES_SECONDS_MAX * 1000)
        for one in self._ledger.waiting():
            if one.seq and one.seals < one.quorum:
                return LocalError(
                    Code.UNAVAILABLE,
                    f"A channel for this job waits for {one.quorum - one.seals} of {one.quorum} "
                    "witnesses. It is ready as soon as they answer; orders in channels that are "
                    "open go on. `ayni wallet` shows what waits.",
                    retry_ms,
                )
        return LocalError(
            Code.UNAVAILABLE,
            f"No channel to {node_text(payee)} with room for {credits_text(cost_worst)} credits "
            "was ready in time. `ayni wallet` shows what waits.",
            retry_ms,
        )


def _overdrawn(cost_worst: int, means: policy.Means) -> LocalError:
    return LocalError(
        Code.OVERDRAWN,
        f"This job may cost {credits_text(cost_worst)} credits; "
        f"{credits_text(means.spendable)} can be spent, and {credits_text(means.locked)} are in "
        "channels to providers (`ayni wallet channels`). Share a model to earn some, have some "
        "sent to you, or set a lower cap on the cost.",
    )
