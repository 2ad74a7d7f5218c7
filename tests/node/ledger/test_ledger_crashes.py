"""Processes that die between any two steps: after the restart the balances are the same."""

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import LocalError
from protocol.ids import NodeId
from tests.node.ledger.village import (
    ANNA,
    BRUNO,
    CLARA,
    NOTHING,
    START,
    WITNESSES,
    CrashAt,
    Home,
    Village,
    open_village,
    until,
    verified,
)

Clock = trio.testing.MockClock
PAYER, PAYEE, FIRST, SECOND = 4, 5, 0, 1  # Places among the homes.
CRASHES = [
    (PAYER, "pay.queued", 1),
    (PAYER, "entry.signed", 1),
    (PAYER, "entry.certified", 1),
    (PAYER, "payee.told", 1),
    pytest.param(PAYER, "entry.signed", 2, marks=pytest.mark.slow),
    (PAYEE, "income.stored", 1),
    pytest.param(PAYEE, "income.stored", 2, marks=pytest.mark.slow),
    (PAYEE, "entry.signed", 1),
    (PAYEE, "entry.certified", 1),
    (FIRST, "vote.stored", 1),
    pytest.param(FIRST, "vote.stored", 2, marks=pytest.mark.slow),
    (SECOND, "vote.stored", 3),
]


@pytest.mark.parametrize(("place", "step", "count"), CRASHES)
async def test_a_crash_after_a_step_changes_nothing(
    tmp_path: Path, autojump_clock: Clock, place: int, step: str, count: int
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        payer, payee = homes[PAYER], homes[PAYEE]
        await until(lambda: all(home.ledger.ready for home in homes))
        crash = CrashAt(homes[place], step, count)
        homes[place].at_step = crash
        for number in (1, 2):
            # Whoever is not sure that it is on disk says it again, as a job's bill does.
            await owed(payer, CLARA.node, 10 * number, bytes([number]) * 32)
        await crash.back.wait()
        for number in (1, 2):
            await owed(payer, CLARA.node, 10 * number, bytes([number]) * 32)
        await until(lambda: payee.is_up and payee.balance == 30)
        await until(lambda: payer.is_up and payer.balance == START - 30)
        await until(lambda: not payer.ledger.standing().pending)
        assert sorted(one.amount for one in payee.incomes) == [10, 20]
        await verified(homes)
        assert await village.total() == village.charter.supply


async def owed(payer: Home, to: NodeId, amount: int, reference: bytes) -> None:
    """Pay from a process that may die while it does, and then answers nothing."""
    await until(lambda: payer.is_up)
    with trio.move_on_after(3), suppress(LocalError):
        await payer.ledger.pay(to, amount, reference)


async def test_a_witness_that_crashed_votes_the_same(tmp_path: Path, autojump_clock: Clock) -> None:
    """With two of four away nothing is certified, so the vote of one that crashes is all there
    is of it; when it comes back it gives the same one."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        await until(lambda: anna.ledger.ready)
        for witness in homes[2:4]:
            await witness.crash()
        await anna.ledger.pay(CLARA.node, 10, b"1" * 32)
        await trio.sleep(10)
        before = anna.ledger.waiting()[0].seals
        await homes[0].crash_and_lose()
        await anna.crash_and_lose()
        for home in (homes[0], anna):
            await home.up()
        await until(lambda: bool(anna.ledger.waiting()))
        await until(lambda: anna.ledger.waiting()[0].seals == before)
        await homes[3].up()
        await until(lambda: clara.balance == 10)
        assert not await anna.ledger.views.proofs()


class Scramble:
    """Crashes homes again and again, each at the step that the draw says."""

    def __init__(self, village: Village, orders: list[tuple[int, int]]) -> None:
        self.village, self.orders = village, orders
        self.pending = 0

    def arm(self) -> None:
        homes = list(self.village.homes.values())
        for place, steps in self.orders:
            home = homes[place % len(homes)]
            earlier = home.at_step
            if earlier is None:
                home.at_step = _Countdown(self, home, steps)

    async def settled(self) -> None:
        await until(lambda: not self.pending)


class _Countdown:
    def __init__(self, scramble: Scramble, home: Home, steps: int) -> None:
        self.scramble, self.home, self.left = scramble, home, steps

    async def __call__(self, name: str) -> None:
        self.left -= 1
        if self.left:
            return
        self.scramble.pending += 1
        crash = CrashAt(
            self.home, name, away_seconds=1 + self.scramble.village.chance.random() * 40
        )
        self.scramble.village.nursery.start_soon(self._count, crash)
        await crash(name)

    async def _count(self, crash: CrashAt) -> None:
        await crash.back.wait()
        self.scramble.pending -= 1


pays = st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(1, 400))
crashes = st.tuples(st.integers(0, 6), st.integers(1, 6))


LIVES = st.tuples(
    st.lists(pays, min_size=1, max_size=6), st.lists(crashes, max_size=5), st.integers(0, 99)
)


@settings(max_examples=settings.default.max_examples // 25)  # A second each.
@given(LIVES)
def test_random_pays_and_crashes_keep_the_sum(
    life: tuple[list[tuple[int, int, int]], list[tuple[int, int]], int],
) -> None:
    lived(*life)


@pytest.mark.slow
@settings(max_examples=settings.default.max_examples)
@given(LIVES)
def test_many_random_pays_and_crashes_keep_the_sum(
    life: tuple[list[tuple[int, int, int]], list[tuple[int, int]], int],
) -> None:
    lived(*life)


def lived(moves: list[tuple[int, int, int]], orders: list[tuple[int, int]], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(
            scrambled,
            Path(folder),
            moves,
            orders,
            seed,
            clock=trio.testing.MockClock(autojump_threshold=0),
        )


async def scrambled(
    folder: Path, moves: list[tuple[int, int, int]], orders: list[tuple[int, int]], seed: int
) -> None:
    async with open_village(folder, seed) as village:
        homes = await village.up(*WITNESSES, ANNA, BRUNO, CLARA)
        payers = homes[4:]
        scramble = Scramble(village, orders)
        scramble.arm()
        expected = {home.node: village.charter.allocations.get(home.node, 0) for home in homes}
        for number, (payer, payee, amount) in enumerate(moves):
            one, other = payers[payer], homes[payee]
            if one is other:
                continue
            expected[one.node] -= amount
            expected[other.node] += amount
            for _ in range(2):  # The second says it again where the first met a crash.
                await until(lambda home=one: home.is_up)
                await owed(one, other.node, amount, bytes([number + 1]) * 32)
                await trio.sleep(village.chance.random() * 10)
        await trio.sleep(600)
        await scramble.settled()
        # Who owes more than it has waits with that, and with nothing else.
        if all(balance >= 0 for balance in expected.values()):
            await until(
                lambda: all(
                    home.balance == expected[home.node] and not home.ledger.standing().claimable
                    for home in homes
                )
            )
        else:
            await trio.sleep(600)
        for home in homes:
            assert home.balance >= 0
            assert not await home.ledger.views.proofs()
        await verified(homes)
        standings = [home.ledger.standing() for home in homes]
        assert await village.total() == village.charter.supply, standings


async def test_the_same_life_without_a_reference(tmp_path: Path, autojump_clock: Clock) -> None:
    """A send that was answered is on disk: it is paid once, though the process dies at once."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        await anna.ledger.pay(CLARA.node, 10, NOTHING)
        await anna.crash_and_lose()
        await anna.up()
        await until(lambda: clara.balance == 10)
        await trio.sleep(200)
        assert (anna.balance, clara.balance) == (START - 10, 10)
