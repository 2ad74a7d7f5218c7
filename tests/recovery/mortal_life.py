"""One life of a channel, with a payment beside it: what nodes do while others of them die.

Whoever drives it keeps an own account of what was promised to whom, from what the calls returned,
and holds the nodes to it. It says again what a dead process may not have heard, as a job or a
person would.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from node.ledger.base import ChannelFacts
from protocol.errors import LocalError, RemoteError
from protocol.ids import MessageId
from protocol.ledger.audit import Depth
from tests.recovery.mortal_world import CHUNK_COST, GRACE_MS, START, Home, World, until

LIFE_MS: Final = 3 * 86_400_000
SHORT_LIFE_MS: Final = 30 * GRACE_MS
DEPOSIT: Final = 1_000
TOP_UP: Final = 500
GIFT: Final = 7
CHUNKS: Final = 4
PATIENCE_SECONDS: Final = 120.0
PULLS_MAX: Final = 10


class Life:
    """`number` tells its entries from those of other lives in the same world."""

    def __init__(self, world: World, number: int, life_ms: int = LIFE_MS) -> None:
        self.world, self.number = world, number
        self.payer, self.payee = world.payer, world.payee
        self.expiry_ms = world.wall_ms() + life_ms + number
        self.counted = 0
        """The highest sum of a voucher that the payee said it has counted."""
        self.signed = 0
        """The highest that the payer has signed."""
        self.channel = MessageId(b"")

    # The deeds, each said again until its effect is there.

    async def pay(self) -> None:
        reference = self.number.to_bytes(32, "big")

        async def owe() -> None:
            await self.payer.ledger.pay(self.payee.node, GIFT, reference)

        # Saying it again with the same reference pays nothing twice.
        while not await self._said(self.payer, owe):
            await self._whole()
        await self._said(self.payer, owe)

    async def open(self) -> None:
        async def ask() -> None:
            if self.facts(self.payer) is None and not self._waits(self.payer, "open", DEPOSIT):
                await self.payer.ledger.open_channel(self.payee.node, DEPOSIT, self.expiry_ms)

        await self._until(self.payer, ask, lambda: self.facts(self.payer) is not None)
        facts = self.facts(self.payer)
        assert facts is not None
        self.channel = facts.id

    async def top_up(self) -> None:
        async def ask() -> None:
            facts = self.facts(self.payer)
            is_there = facts is not None and facts.topups
            if not is_there and not self._waits(self.payer, "topup", TOP_UP):
                await self.payer.ledger.top_up(self.channel, TOP_UP)

        def is_there() -> bool:
            facts = self.facts(self.payer)
            return facts is not None and facts.topups == 1

        await self._until(self.payer, ask, is_there)

    async def show(self) -> None:
        """The payee hears of it by itself; where it was away, the payer shows it."""

        async def ask() -> None:
            await self.payer.ledger.show_channel(self.channel)

        def is_known() -> bool:
            facts = self.facts(self.payee)
            return facts is not None and facts.funding == DEPOSIT + TOP_UP

        await self._until(self.payer, ask, is_known)

    async def work(self) -> None:
        """Two orders of a few chunks. One that meets a death is over for both sides."""
        for order in (1, 2):
            await self._whole()
            with trio.CancelScope() as scope:
                for home in (self.payer, self.payee):
                    home.ends_with_it.append(scope)
                with suppress(LocalError, RemoteError):
                    await self._serve(bytes([order]) * 32)

    async def _serve(self, order: bytes) -> None:
        spend = self.payer.channels.payer.spend(self.payee.node, CHUNKS * CHUNK_COST)
        async with spend as spending:
            assert spending.channel == self.channel
            earn = self.payee.channels.payee.earn(self.payer.node, spending.channel)
            async with earn as earning:
                for number in range(1, CHUNKS + 1):
                    voucher = spending.voucher(MessageId(order), number, number * CHUNK_COST)
                    assert voucher is not None
                    self.signed += CHUNK_COST
                    await earning.count(voucher)
                    self.counted = max(self.counted, self._held())

    def _held(self) -> int:
        books = self.payee.channels.payee.books
        return sum(book.held for book in books if book.facts.id == self.channel)

    async def settle(self) -> None:
        async def ask() -> None:
            facts = self.facts(self.payee)
            if facts is not None and facts.settled is None:
                await self.payee.channels.settle(self.channel)

        def is_settled() -> bool:
            facts = [self.facts(home) for home in (self.payer, self.payee)]
            return all(one is not None and one.settled is not None for one in facts)

        await self._until(self.payee, ask, is_settled)

    async def over(self) -> None:
        """Until each has its share."""

        def is_over() -> bool:
            facts = [self.facts(home) for home in (self.payer, self.payee)]
            return all(one is None or one.is_claimed for one in facts)

        await until(lambda: self._is_whole() and is_over(), "both claim their share")

    # How it is driven.

    def facts(self, home: Home) -> ChannelFacts | None:
        found = [one for one in home.ledger.channels() if one.expiry_ms == self.expiry_ms]
        return found[0] if found else None

    def _waits(self, home: Home, kind: str, amount: int) -> bool:
        return any(one.kind == kind and one.amount == amount for one in home.ledger.waiting())

    def _is_whole(self) -> bool:
        return all(home.is_whole for home in self.world.homes.values())

    async def _whole(self) -> None:
        await until(self._is_whole, "all nodes are back")

    async def _said(self, home: Home, ask: Callable[[], Awaitable[None]]) -> bool:
        """Whether a node lived to answer, and took it."""
        await self._whole()
        with trio.CancelScope() as scope:
            home.ends_with_it.append(scope)
            try:
                with trio.fail_after(PATIENCE_SECONDS):  # It answers, whatever befalls others.
                    await ask()
            except LocalError:
                return False
            return True
        return False

    async def _until(
        self, home: Home, ask: Callable[[], Awaitable[None]], holds: Callable[[], bool]
    ) -> None:
        end = trio.current_time() + 600
        while True:
            await self._said(home, ask)
            for _ in range(8):
                await self._whole()
                if holds():
                    return
                await trio.sleep(0.5)
            assert trio.current_time() < end, ask.__qualname__


async def settled_down(world: World) -> None:
    """Until nobody has anything left to sign or to tell."""

    def is_quiet() -> bool:
        return all(
            home.is_whole
            and home.ledger.ready
            and not home.ledger.waiting()
            and not home.ledger.standing().claimable
            for home in world.homes.values()
        )

    await until(is_quiet, "all is signed and claimed")


async def check_quiet(world: World, lives: list[Life]) -> None:
    """M1 to M6, by sums that call no rule of the ledger, once all is claimed."""
    earned = 0
    for life in lives:
        values = {one.settled for home in (life.payer, life.payee) if (one := life.facts(home))}
        assert len(values) == 1, "one channel, one value"
        [value] = values
        assert value is not None
        assert life.counted <= value, "what was counted is paid"
        assert value <= life.signed, "nobody pays for what it has not signed"
        earned += value
    gifts = GIFT * len(lives)
    for home in world.homes.values():
        standing = home.ledger.standing()
        assert (standing.pending, standing.claimable, standing.reserved) == (0, 0, 0)
        assert home.ledger.trouble == ""
        assert not await home.ledger.views.proofs(), "nobody has signed two things for one place"
    assert world.payer.ledger.standing().balance == START - earned - gifts, "nothing is paid twice"
    assert world.payee.ledger.standing().balance == START + earned + gifts


async def check_chains(world: World) -> None:
    """Every witness's store holds from its bytes on, and all have the same heads. What one was
    not told while it was away it pulls by itself, soon."""
    heads = set()
    for home in world.witnesses:
        for _ in range(PULLS_MAX):
            report = await home.ledger.views.verify(Depth.FULL)
            if report.ok:
                break
            await trio.sleep(30)
        assert report.ok, report.faults
        lines = await home.ledger.views.accounts()
        heads.add(tuple((line.account, line.seq, line.balance) for line in lines))
    assert len(heads) == 1
