"""Two nodes, their channels and orders in any order, with words lost and restarts on both sides."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random

import pytest
import trio

from node.ledger.scripted import ScriptedLedgers
from protocol import codec
from protocol.errors import AyniError, Code
from protocol.identity import digest
from protocol.ids import MessageId
from protocol.ledger.voucher import VOUCHER_BYTES_MAX, Voucher
from tests.node.channels.pair import (
    ANNA,
    BRUNO,
    LIMITS,
    QUOTE,
    RICH,
    Clock,
    Home,
    open_one,
    quiet,
)

A, B = ANNA.node, BRUNO.node
ORDERS_MAX = 4
FEW, MANY = 12, 100
POOR = 30_000
CHUNK_MAX = 200  # Microcredits that one brings.


class Life:
    """One node's process: it ends and begins again, its disk stays."""

    def __init__(self, world, identity, tmp_path, clock, nursery) -> None:
        self.world, self.identity, self.tmp_path, self.clock = world, identity, tmp_path, clock
        self.nursery = nursery
        self.home: Home
        self._stop, self._over = trio.Event(), trio.Event()

    async def begin(self) -> None:
        self._stop, self._over = trio.Event(), trio.Event()
        await self.nursery.start(self._live)

    async def _live(self, task_status) -> None:
        async with open_one(self.world, self.identity, self.tmp_path, self.clock) as self.home:
            task_status.started()
            await self._stop.wait()
        self._over.set()

    async def end(self) -> None:
        self._stop.set()
        await self._over.wait()


@dataclass
class Order:
    id: MessageId
    stack: AsyncExitStack
    spending: object
    earning: object
    worst: int
    delivered: int = 0  # By the payee.
    received: int = 0  # By the payer, and signed for.
    paid: int = 0  # As far as its own vouchers were counted.
    chunks_unpaid: int = 0


class Walk:
    def __init__(self, seed, world, clock, anna, bruno) -> None:
        self.chance, self.world, self.clock = Random(seed), world, clock
        self.anna, self.bruno = anna, bruno
        self.orders: list[Order] = []
        self.highest: dict[MessageId, int] = {}  # That Bruno has counted.
        self.number = 0
        self.refusals: set[Code] = set()

    async def step(self) -> None:
        steps = {
            self.order: 6,
            self.deliver: 14,
            self.finish: 4,
            self.restart_payer: 1,
            self.restart_payee: 1,
            self.settle: 1,
            self.wait: 2,
        }
        (step,) = self.chance.choices(list(steps), list(steps.values()))
        await step()
        self.check()

    async def order(self) -> None:
        if len(self.orders) == ORDERS_MAX:
            return
        worst = self.chance.randint(10, 3_000)
        stack, channel = AsyncExitStack(), None
        try:
            spending = await stack.enter_async_context(self.anna.home.payer.spend(B, worst))
            channel = spending.channel
            earn = self.bruno.home.payee.earn(A, channel)
            earning = await stack.enter_async_context(earn)
            self.number += 1
            number = MessageId(digest(self.number.to_bytes(8, "big")))
            order = Order(number, stack, spending, earning, worst)
            if self.bruno.home.payee.terms(A).is_prompt_first:
                await self.count(order, spending.prompt_voucher(QUOTE, self.chance.randint(1, 10)))
        except AyniError as error:
            self.refusals.add(error.code)
            await stack.aclose()
            if channel is not None:
                await self.anna.home.payer.mistrusted(channel, f"{error.code}: so it says.")
            return
        self.orders.append(order)

    async def deliver(self) -> None:
        if not self.orders:
            return
        order = self.chance.choice(self.orders)
        window = order.earning.window
        cost = min(self.chance.randint(1, CHUNK_MAX), order.worst - order.delivered)
        if not cost or not window.has_room:
            return
        window.begin(order.id)
        window.close(order.id, cost)
        order.delivered += cost
        order.chunks_unpaid += 1
        if self.chance.random() < 0.15:
            return  # The chunk is lost on its way.
        order.received = order.delivered
        voucher = order.spending.voucher(order.id, order.received, order.received)
        if voucher is None or self.chance.random() < 0.15:
            return  # Covered already, or lost on its way.
        try:
            await self.count(order, voucher)
        except AyniError as error:
            self.refusals.add(error.code)
            return
        order.paid, order.chunks_unpaid = order.received, 0

    async def count(self, order: Order, voucher) -> None:
        await order.earning.count(voucher)
        said = codec.decode(voucher.body, Voucher, VOUCHER_BYTES_MAX)
        assert said.channel == order.spending.channel
        self.highest[said.channel] = max(said.cumulative, self.highest.get(said.channel, 0))

    async def finish(self) -> None:
        if self.orders:
            await self.end(self.orders.pop(self.chance.randrange(len(self.orders))))

    async def end(self, order: Order) -> None:
        window, chunks = order.earning.window, order.chunks_unpaid
        window.drop(order.id)
        chunks = min(chunks, window.chunks_max - window.lost_chunks)
        if chunks:
            lost = window.lose(order.id, order.delivered - order.paid, chunks)
            if lost:
                order.earning.lost(lost, chunks)
        await order.stack.aclose()

    async def restart_payer(self) -> None:
        while self.orders:
            await self.end(self.orders.pop())  # The payee sees its streams break.
        await self.anna.end()
        await self.anna.begin()

    async def restart_payee(self) -> None:
        for order in self.orders:
            await order.stack.aclose()
        self.orders.clear()
        await self.bruno.end()
        await self.bruno.begin()

    async def settle(self) -> None:
        for line in self.bruno.home.channels.lines():
            await self.bruno.home.channels.settle(line.id)

    async def wait(self) -> None:
        await trio.sleep(self.chance.choice((1, 10, LIMITS.idle_ms / 2000)))

    def check(self) -> None:
        for facts in self.world.channels.values():
            assert self.highest.get(facts.id, 0) <= facts.funding
            if facts.settled is not None:
                assert facts.settled == self.highest.get(facts.id, 0)
        for book in self.bruno.home.payee.books:
            assert book.held == self.highest.get(book.facts.id, 0)
            assert book.window.unpaid <= book.window.chunks_max * CHUNK_MAX  # M5.
        for own in self.anna.home.payer.own:
            if own.is_recalled:
                assert self.highest.get(own.facts.id, 0) <= own.signed <= own.facts.funding
        assert self.anna.home.payer.locked >= 0


async def walked(seed: int, tmp_path, steps: int) -> Walk:
    wealth = POOR if seed % 2 else RICH  # Who is poor has channels that are full to the brim.
    world, clock = ScriptedLedgers({A: wealth, B: RICH}), Clock()
    async with trio.open_nursery() as nursery:
        lives = [Life(world, one, tmp_path, clock, nursery) for one in (ANNA, BRUNO)]
        for life in lives:
            await life.begin()
        walk = Walk(seed, world, clock, *lives)
        for _ in range(steps):
            await walk.step()
        while walk.orders:
            await walk.finish()
        # Left alone, everything comes back by itself.
        await trio.sleep(2 * LIMITS.life_ms / 1000)
        await quiet()
        walk.check()
        assert all(facts.settled is not None for facts in world.channels.values())
        earned = sum(walk.highest.values())
        assert (world.balance(A), world.balance(B)) == (wealth - earned, RICH + earned)
        assert lives[0].home.payer.locked == 0
        assert list(lives[1].home.channels.lines()) == []
        assert lives[1].home.payee.paid_by(A) == earned
        for life in lives:
            await life.end()
    return walk


@pytest.mark.parametrize("seed", range(FEW))
async def test_whatever_happens_vouchers_are_worth_what_they_say(
    seed, tmp_path, autojump_clock
) -> None:
    await walked(seed, tmp_path, 120)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FEW, MANY))
async def test_whatever_happens_vouchers_are_worth_what_they_say_at_length(
    seed, tmp_path, autojump_clock
) -> None:
    await walked(seed, tmp_path, 400)
