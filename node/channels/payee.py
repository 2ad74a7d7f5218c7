"""A provider's channels: vouchers are checked, on disk, and only then counted."""

from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from node.channels import policy
from node.channels.base import Earning, Payee, PayTerms
from node.channels.book import Book, TimedWindow
from node.channels.own import Around
from node.ledger.base import ChannelFacts, Vouchers
from node.ledger.keeper import Steps, no_steps
from node.ledger.signal import Signal
from node.storage.channels import Counted, Loss, Past, VoucherStore
from node.telemetry.logs import Log
from protocol.envelope import Signed
from protocol.errors import Code, LocalError, RemoteError
from protocol.ids import MessageId, NodeId, short
from protocol.ledger.voucher import voucher_opened
from protocol.limits import WINDOW_CHUNKS_STRANGER
from protocol.units import Microcredits, credits_text

CHANNELS_PER_PAYER_MAX: Final = 64  # An honest one uses one, and after a quarrel another.
TURNAROUNDS_MAX: Final = 4096  # Payers whose pace is remembered; the least seen go first.
RETRY_SETTLED_MS: Final = 5_000  # The payer opens another channel, which takes so long.
RETRY_DISK_MS: Final = 30_000  # Somebody has to make room.
AGAIN_SECONDS: Final = 5.0  # After a change that the disk has refused.

_log = Log("channels.payee")


class OwnPayee(Payee, Vouchers):
    """Implements `node.channels.base.Payee` and `node.ledger.base.Vouchers`; made by `open_payee`.
    `run` must run for losses to be written down and what is over to be forgotten."""

    def __init__(
        self,
        around: Around,
        store: VoucherStore,
        chunk_cost: Callable[[], int],
        steps: Steps = no_steps,
    ) -> None:
        """`chunk_cost` is what a chunk of this node costs at most, in microcredits: the first one
        of an answer, which bears the price of its prompt."""
        self._around, self._store, self._steps = around, store, steps
        self._chunk_cost = chunk_cost
        self._books: dict[MessageId, Book] = {}
        self._counted: dict[MessageId, Counted] = {}  # Of channels not told of by the ledger yet.
        self._losses: dict[MessageId, Loss] = {}
        self._paid: Counter[NodeId] = Counter()  # By channels that are forgotten.
        self._lost: Counter[NodeId] = Counter()  # On those.
        self._turnaround_ms: OrderedDict[NodeId, int] = OrderedDict()
        self._unwritten: set[MessageId] = set()  # Channels whose loss on disk is not that of now.
        self._over: dict[MessageId, ChannelFacts] = {}  # Claimed, and to be forgotten.
        self._work = Signal()
        self.old_until_ms = 0
        """Channels that expire until then are from before this node lost its disk: it may have
        signed their settlement and forgotten it, so they take no more work."""
        self.watchers: list[Callable[[], None]] = []
        """Called when there may be something to settle; they must not wait."""

    def load(
        self, vouchers: Iterable[Counted], losses: Iterable[Loss], pasts: Iterable[Past]
    ) -> None:
        """Take up what is on disk, and then what the ledger knows."""
        self._counted = {one.channel: one for one in vouchers}
        self._losses = {one.channel: one for one in losses}
        for past in pasts:
            self._paid[past.payer], self._lost[past.payer] = past.paid, past.lost
        ledger = self._around.ledger
        ledger.watch_channels(self._heard)
        for settling in ledger.settling():
            if settling.turn and settling.channel in self._books:
                self._books[settling.channel].is_closing = True
        ledger.keep_vouchers(self)

    # As `node.channels.base.Payee`.

    def terms(self, requester: NodeId) -> PayTerms:
        """As `Payee.terms`."""
        paid, chunk_cost = self.paid_by(requester), self._chunk_cost()
        turnaround_ms = self._turnaround_ms.get(requester, 0)
        if self._around.ledger.contradicted(requester):
            # It signed two entries for one place: whatever it has paid, it is met as a stranger.
            paid, turnaround_ms = 0, 0
        chunks = policy.window_chunks(paid, chunk_cost, turnaround_ms)
        return PayTerms(chunks, policy.is_stranger(paid, chunk_cost))

    def earn(
        self,
        requester: NodeId,
        channel: MessageId,
        window_chunks: int = WINDOW_CHUNKS_STRANGER,
    ) -> AbstractAsyncContextManager[Earning]:
        """As `Payee.earn`."""
        return self._earn(requester, channel, window_chunks)

    # As `node.ledger.base.Vouchers`.

    def best(self, channel: MessageId) -> Signed | None:
        """As `Vouchers.best`."""
        book = self._books.get(channel)
        counted = self._counted.get(channel) if book is None else book.counted
        return None if counted is None else counted.voucher

    def wanted(self, channel: MessageId) -> None:
        """As `Vouchers.wanted`."""
        book = self._books.get(channel)
        if book is not None and book.wanted_at_ms is None:
            book.wanted_at_ms = self._around.wall_ms()
            self._tell()

    # For the keeper and for people.

    @property
    def books(self) -> Sequence[Book]:
        """The channels that pay this node and are not forgotten, in no order."""
        return list(self._books.values())

    def paid_by(self, payer: NodeId) -> int:
        """What an account has paid us by vouchers, ever, in microcredits."""
        now = sum(book.held for book in self._books.values() if book.facts.payer == payer)
        return self._paid[payer] + now

    @property
    def lost(self) -> int:
        """What was delivered and never paid, on all channels ever, in microcredits."""
        return sum(self._lost.values()) + sum(book.window.lost for book in self._books.values())

    async def settle(self, channel: MessageId) -> None:
        """Settle a channel by its best voucher. Vouchers that are on their way to the disk are
        waited for and count; none does after that, and no order begins.

        Raises LocalError NOT_FOUND for no such channel; UNAVAILABLE where the disk fails: then it
        stays closed, since its value may be signed, and this is to be called again.
        """
        book = self._books.get(channel)
        if book is None:
            raise LocalError(
                Code.NOT_FOUND, f"No channel {channel.hex()[:16]} pays this node and is open."
            )
        book.is_closing = True
        book.changed.set()
        while book.counting:
            await book.changed.wait()
        await self._around.ledger.settle(channel)

    # The task.

    async def run(self) -> None:
        """Write losses down and forget what is over, until cancelled. Money waits for neither."""
        while True:
            coming = self._work.coming()
            try:
                await self._write()
                await coming.wait()
            except LocalError as error:
                _log.warning("losses.unwritten", code=error.code)
                await trio.sleep(AGAIN_SECONDS)

    async def _write(self) -> None:
        while self._unwritten:
            channels = sorted(self._unwritten)
            losses = [self._books[one].loss for one in channels if one in self._books]
            await self._store.lose(losses)
            # What has changed meanwhile is written once more.
            done = {one.channel for one in losses if self._books[one.channel].loss == one}
            self._unwritten -= done | {one for one in channels if one not in self._books}
            await self._steps("loss.stored")
        while self._over:
            channel, facts = next(iter(self._over.items()))
            past = await self._store.forget(channel, facts.payer, facts.settled or 0)
            self._forgotten(channel, past)

    def _forgotten(self, channel: MessageId, past: Past) -> None:
        del self._over[channel]
        for known in (self._books, self._counted, self._losses):
            known.pop(channel, None)
        self._paid[past.payer], self._lost[past.payer] = past.paid, past.lost

    # Within.

    @asynccontextmanager
    async def _earn(
        self, requester: NodeId, channel: MessageId, window_chunks: int
    ) -> AsyncIterator[Earning]:
        book = self._book_of(requester, channel)
        self._check_open(book, LocalError)
        if self._store.trouble:  # What cannot be written cannot count, so nothing is delivered.
            raise LocalError(
                Code.UNAVAILABLE,
                "This node cannot write to its disk now, so it can be paid for nothing.",
                RETRY_DISK_MS,
            )
        window = book.window
        window.chunks_max = max([window_chunks, *book.windows])
        if window.is_spent or not book.room:
            what = (
                f"{credits_text(window.lost)} credits that this node delivered on it were not paid"
                if window.is_spent
                else f"all its {credits_text(book.facts.funding)} credits are used"
            )
            raise LocalError(
                Code.UNPAID,
                f"The channel {channel.hex()[:16]} takes no more orders: {what}. Open another.",
            )
        await trio.lowlevel.checkpoint()
        book.windows.append(window_chunks)
        try:
            yield _OwnEarning(self, book)
        finally:
            book.windows.remove(window_chunks)
            # A wide window was for the orders that it was quoted to, and ends with them.
            window.chunks_max = max(book.windows, default=window.chunks_max)
            book.used_ms = self._around.wall_ms()
            self._measured(requester, window)
            self._tell()

    def _book_of(self, requester: NodeId, channel: MessageId) -> Book:
        book = self._books.get(channel)
        if book is None or book.facts.payer != requester:
            raise LocalError(
                Code.NO_CHANNEL,
                f"This node knows of no channel {channel.hex()[:16]} of yours to it: show it the "
                "certified entry that opens it.",
            )
        return book

    def _check_open(self, book: Book, kind: type[LocalError] | type[RemoteError]) -> None:
        facts, around = book.facts, self._around
        if facts.settled is not None or book.is_closing:
            why = "it is settled" if facts.settled is not None else "it settles"
        elif facts.expiry_ms <= self.old_until_ms:
            why = "it is from before this node lost its disk"
        elif not policy.counts(facts.expiry_ms, around.wall_ms(), around.charter):
            why = "it nears its expiry"
        else:
            return
        raise kind(
            Code.CHANNEL_CLOSED,
            f"The channel {facts.id.hex()[:16]} takes no more vouchers: {why}. Open another.",
            RETRY_SETTLED_MS,
        )

    async def count(self, book: Book, signed: Signed) -> None:
        """As `Earning.count`."""
        facts = book.facts
        voucher = voucher_opened(signed, facts.payer, self._around.charter.network).value
        if voucher.channel != facts.id or voucher.cumulative > facts.funding:
            what = (
                f"is of channel {voucher.channel.hex()[:16]}"
                if voucher.channel != facts.id
                else f"says {credits_text(voucher.cumulative)} credits, of "
                f"{credits_text(facts.funding)} that are certified"
            )
            raise RemoteError(
                Code.BAD_VOUCHER, f"A voucher for channel {facts.id.hex()[:16]} {what}."
            )
        self._check_open(book, RemoteError)
        if voucher.cumulative <= book.held:
            await trio.lowlevel.checkpoint()
            return
        counted = Counted(facts.id, facts.payer, voucher.cumulative, signed, self._around.wall_ms())
        book.counting += 1
        # What is on disk is counted too, even if whoever brought it has gone.
        with trio.CancelScope(shield=True):
            try:
                await self._store.put(counted)
            finally:
                book.counting -= 1
                book.changed.set()
            lost = book.window.lost
            book.take(counted)
            if book.window.lost != lost:
                self.book_loss(book)
            await self._steps("voucher.stored")

    def book_loss(self, book: Book) -> None:
        """What is lost on a channel is another sum than before: it is written down soon."""
        self._unwritten.add(book.facts.id)
        self._work.set()

    def _heard(self, facts: ChannelFacts) -> None:
        if facts.payee != self._around.identity.node:
            return
        book = self._books.get(facts.id)
        if book is None:
            counted, loss = self._counted.get(facts.id), self._losses.get(facts.id)
            if counted is not None and counted.payer != facts.payer:
                counted = None  # A second copy that was meddled with; it would be refused anyway.
            if facts.is_claimed and counted is None and loss is None:
                return  # It was forgotten before.
            if counted is None and loss is None and self._has_too_many(facts.payer):
                return  # Its payer settles it after its expiry.
            book = self._books[facts.id] = Book(facts, counted, loss, self._around.wall_ms())
        book.facts = facts
        book.changed.set()
        if facts.is_claimed:
            self._over[facts.id] = facts
            self._work.set()
        self._tell()

    def _has_too_many(self, payer: NodeId) -> bool:
        """Channels cost their payer next to nothing, and each costs us memory, and looks at it."""
        ours = [book for book in self._books.values() if book.facts.payer == payer]
        return len(ours) >= CHANNELS_PER_PAYER_MAX

    def _measured(self, payer: NodeId, window: TimedWindow) -> None:
        if window.turnaround_ms:
            self._turnaround_ms[payer] = window.turnaround_ms
            self._turnaround_ms.move_to_end(payer)
            if len(self._turnaround_ms) > TURNAROUNDS_MAX:
                self._turnaround_ms.popitem(last=False)

    def _tell(self) -> None:
        for watcher in self.watchers:
            watcher()


class _OwnEarning(Earning):
    """One order's use of a channel."""

    def __init__(self, payee: OwnPayee, book: Book) -> None:
        self._payee, self._book = payee, book
        self._seen = book.version

    @property
    def window(self) -> TimedWindow:
        return self._book.window

    async def count(self, voucher: Signed) -> None:
        await self._payee.count(self._book, voucher)

    async def changed(self) -> None:
        while self._book.version == self._seen:
            await self._book.changed.wait()
        self._seen = self._book.version

    def lost(self, amount: Microcredits, chunks: int) -> None:
        assert amount > 0
        assert chunks > 0
        self._payee.book_loss(self._book)
        _log.info(
            "delivered.unpaid", channel=short(self._book.facts.id), microcredits=amount,
            chunks=chunks,
        )  # fmt: skip


async def open_payee(
    around: Around,
    store: VoucherStore,
    chunk_cost: Callable[[], int],
    steps: Steps = no_steps,
) -> OwnPayee:
    """The payee as its database has it; before this no job may be served for vouchers. Raises
    LocalError UNAVAILABLE where the disk fails."""
    payee = OwnPayee(around, store, chunk_cost, steps)
    payee.load(await store.vouchers(), await store.losses(), await store.pasts())
    return payee
