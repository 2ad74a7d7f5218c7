"""Parties and witnesses of a channel die between any two steps: no credit is lost or made."""

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import LocalError
from protocol.ids import MessageId
from tests.node.ledger.channels import hold, shared_out, sums
from tests.node.ledger.village import (
    ANNA,
    BRUNO,
    CLARA,
    START,
    WITNESSES,
    CrashAt,
    Home,
    open_village,
    until,
)

Clock = trio.testing.MockClock
PAYER, PAYEE, FIRST, SECOND = 4, 5, 0, 1  # Places among the homes.
LIFE_MS = 120_000


def slow(place: int, step: str, count: int) -> object:
    """One that is much like another, so it comes with the slow tests."""
    return pytest.param(place, step, count, marks=pytest.mark.slow)


CRASHES = [
    (PAYER, "open.queued", 1),
    (PAYER, "entry.signed", 1),
    (PAYER, "channel.stored", 1),
    (PAYER, "entry.certified", 1),
    (PAYER, "payee.told", 1),
    (PAYER, "topup.queued", 1),
    slow(PAYER, "entry.signed", 2),
    slow(PAYER, "entry.certified", 2),
    (PAYER, "settlement.stored", 1),
    slow(PAYER, "entry.signed", 3),
    (PAYEE, "channel.stored", 1),
    slow(PAYEE, "channel.stored", 2),
    (PAYEE, "proposal.stored", 1),
    (PAYEE, "prepare.made", 1),
    (PAYEE, "settlement.stored", 1),
    (PAYEE, "payee.told", 1),
    (PAYEE, "entry.signed", 1),
    (PAYEE, "entry.certified", 1),
    (FIRST, "vote.stored", 1),
    (FIRST, "seat.stored", 1),
    slow(FIRST, "seat.stored", 2),
    (FIRST, "settlement.stored", 1),
    (SECOND, "seat.stored", 2),
]


@pytest.mark.parametrize(("place", "step", "count"), CRASHES)
async def test_a_crash_after_a_step_changes_nothing(
    tmp_path: Path, autojump_clock: Clock, place: int, step: str, count: int
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        payer, payee = homes[PAYER], homes[PAYEE]
        await until(lambda: all(home.ledger.ready for home in homes))
        crash = homes[place].at_step = CrashAt(homes[place], step, count)
        channel = await funded(payer, payee)
        hold(payer, payee, channel, 60)
        await settled(payee, channel)
        await shared_out(payer, payee, channel)
        await crash.back.wait()
        await until(lambda: all(home.is_up and home.ledger.ready for home in homes))
        await until(lambda: not payer.ledger.standing().pending)
        assert payee.channels[channel].settled == 60
        assert (payer.balance, payee.balance) == (START - 60, 60)
        await sums(village, homes)


async def funded(payer: Home, payee: Home) -> MessageId:
    """A channel and its top-up, of a payer that may die meanwhile: it looks what it has before it
    tries again, as whoever opens channels does."""
    while True:
        await until(lambda: payer.is_up)
        with trio.move_on_after(8), suppress(LocalError):
            if not payer.channels and not payer.ledger.waiting():
                await payer.ledger.open_channel(payee.node, 100, payer.wall_ms() + LIFE_MS)
            await until(lambda: bool(payer.is_up and payer.channels))
            break
    (channel,) = payer.channels
    while True:
        await until(lambda: payer.is_up and channel in payer.channels)
        with trio.move_on_after(8), suppress(LocalError):
            if not payer.channels[channel].topups and not payer.ledger.waiting():
                await payer.ledger.top_up(channel, 20)
            await until(lambda: payer.is_up and payer.channels[channel].topups == 1)
            break
    await until(lambda: payee.is_up and channel in payee.channels)
    await until(lambda: payee.is_up and payee.channels[channel].funding == 120)
    return channel


async def settled(payee: Home, channel: MessageId) -> None:
    """Ask for the settlement until the proposal is on disk, whoever dies."""
    while True:
        await until(lambda: payee.is_up and channel in payee.channels)
        with trio.move_on_after(3), suppress(LocalError):
            await payee.ledger.settle(channel)
            return


crashes = st.tuples(st.integers(0, 6), st.integers(1, 14))
channels = st.tuples(
    st.integers(0, 2), st.integers(0, 2), st.integers(1, 200), st.integers(0, 200), st.booleans()
)


LIVES = st.tuples(
    st.lists(channels, min_size=1, max_size=4), st.lists(crashes, max_size=4), st.integers(0, 99)
)
Life = tuple[list[tuple[int, int, int, int, bool]], list[tuple[int, int]], int]


@settings(max_examples=settings.default.max_examples // 20)  # Half a second each.
@given(LIVES)
def test_random_channels_and_crashes_keep_the_sum(life: Life) -> None:
    lived(*life)


@pytest.mark.slow
@settings(max_examples=settings.default.max_examples)
@given(LIVES)
def test_many_random_channels_and_crashes_keep_the_sum(life: Life) -> None:
    lived(*life)


def lived(
    moves: list[tuple[int, int, int, int, bool]], orders: list[tuple[int, int]], seed: int
) -> None:
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
    folder: Path,
    moves: list[tuple[int, int, int, int, bool]],
    orders: list[tuple[int, int]],
    seed: int,
) -> None:
    """Channels among three, some settled in the first turn and some left to expire, while homes
    die at steps that the draw says."""
    async with open_village(folder, seed) as village:
        homes = await village.up(*WITNESSES, ANNA, BRUNO, CLARA)
        people = homes[4:]
        await until(lambda: all(home.ledger.ready for home in homes))
        crashed = []
        for place, steps in orders:
            home = homes[place]
            if home.at_step is None:
                home.at_step = CountedCrash(home, steps, away_seconds=village.chance.random() * 20)
                crashed.append(home)
        for payer_place, payee_place, deposit, voucher, is_prompt in moves:
            payer, payee = people[payer_place], people[payee_place]
            await until(lambda: all(home.is_up for home in homes))
            await used(payer, payee, deposit, min(deposit, voucher), is_prompt=is_prompt)
        for home in crashed:
            assert isinstance(home.at_step, CountedCrash)
            await home.at_step.over()
        await until(lambda: all(home.is_up and home.ledger.ready for home in homes))
        for home in people:
            await until(lambda home=home: all(one.is_claimed for one in home.channels.values()))
            await until(lambda home=home: not home.ledger.waiting())
        for home in people:
            for channel, facts in home.channels.items():
                for other in people:
                    if channel in other.channels:
                        assert other.channels[channel].settled == facts.settled
        await sums(village, homes)


async def used(payer: Home, payee: Home, deposit: int, voucher: int, *, is_prompt: bool) -> None:
    """Open a channel, hold a voucher of it and perhaps settle, from homes that may die."""
    before = set(payer.channels)
    with trio.move_on_after(20), suppress(LocalError):
        await payer.ledger.open_channel(payee.node, deposit, payer.wall_ms() + 30_000)
        await until(lambda: bool(payer.is_up and set(payer.channels) - before))
        (channel, *_) = set(payer.channels) - before
        await until(lambda: payee.is_up and channel in payee.channels)
        if voucher:
            hold(payer, payee, channel, voucher)
        if is_prompt:
            await payee.ledger.settle(channel)


class CountedCrash:
    """Dies at its n-th step, whichever that is, and comes back after a while."""

    def __init__(self, home: Home, steps: int, away_seconds: float) -> None:
        self.home, self.left, self.away_seconds = home, steps, away_seconds
        self.crash: CrashAt | None = None

    async def __call__(self, name: str) -> None:
        self.left -= 1
        if self.left == 0:
            self.crash = CrashAt(self.home, name, away_seconds=1 + self.away_seconds)
            await self.crash(name)

    async def over(self) -> None:
        """No crash is to come any more, and what was begun is over."""
        self.left = -1
        if self.crash is not None:
            await self.crash.back.wait()
