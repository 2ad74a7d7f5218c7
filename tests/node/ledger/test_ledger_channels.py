"""Channels between nodes: opened, topped up, shown, settled in whichever turn, and claimed."""

from collections.abc import Awaitable
from pathlib import Path

import pytest
import trio
import trio.testing

from node.storage.ledger import LedgerStore
from node.storage.ledger_channels import Proposed
from protocol.errors import Code, LocalError
from protocol.ids import MessageId
from tests.node.ledger.channels import LIFE_MS, hold, opened, shared_out, sums
from tests.node.ledger.village import (
    ANNA,
    BRUNO,
    CLARA,
    EPOCH_MS,
    GRACE_MS,
    START,
    WINDOW_MS,
    WITNESSES,
    CrashAt,
    Home,
    open_village,
    until,
)

Clock = trio.testing.MockClock


async def test_a_channel_is_opened_topped_up_and_settled(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        facts = clara.channels[channel]
        assert (facts.payer, facts.payee, facts.funding) == (ANNA.node, CLARA.node, 100)
        assert anna.balance == START - 100
        await anna.ledger.top_up(channel, 50)
        await until(lambda: clara.channels[channel].funding == 150)
        assert clara.channels[channel].topups == 1
        await anna.ledger.show_channel(channel)
        hold(anna, clara, channel, 120)
        assert await anna.ledger.ask_voucher(channel) == clara.vouchers.held[channel]
        await anna.ledger.want_settlement(channel)
        assert clara.vouchers.asked == [channel]
        await until(lambda: clara.ledger.ready)
        await clara.ledger.settle(channel)
        await shared_out(anna, clara, channel)
        assert (anna.balance, clara.balance) == (START - 120, 120)
        assert anna.channels[channel].settled == 120
        assert not clara.ledger.settling()
        await sums(village, homes)


async def test_an_expired_channel_comes_back_to_its_payer(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Its payee is gone for good; the payer takes the second turn, and all of the deposit."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        hold(anna, clara, channel, 60)
        await clara.crash()
        await until(lambda: anna.channels[channel].is_claimed)
        assert anna.wall_ms() > anna.channels[channel].expiry_ms + GRACE_MS
        assert (anna.channels[channel].settled, anna.balance) == (0, START)
        await clara.up()
        await until(lambda: clara.channels[channel].is_claimed)
        assert (clara.channels[channel].settled, clara.balance) == (0, 0)
        await sums(village, homes)


async def test_a_payee_takes_its_turn_when_the_payer_is_gone(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Nobody settled before the expiry; the third turn is the payee's, with its best voucher."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        hold(anna, clara, channel, 60)
        await anna.crash()
        await trio.sleep((LIFE_MS + GRACE_MS) / 1000)
        (waits,) = clara.ledger.settling()
        assert (waits.channel, waits.turn, waits.stage) == (channel, 0, "wanted")
        begins_ms = clara.channels[channel].expiry_ms + GRACE_MS + WINDOW_MS
        assert waits.next_ms == begins_ms + WINDOW_MS // 10
        await until(lambda: clara.channels[channel].is_claimed)
        assert clara.balance == 60
        await anna.up()
        await shared_out(anna, clara, channel)
        assert anna.balance == START - 60
        await sums(village, homes)


async def test_who_was_away_for_long_takes_what_others_settled(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        hold(anna, clara, channel, 60)
        await until(lambda: clara.ledger.ready)
        await anna.crash()
        await clara.ledger.settle(channel)
        await until(lambda: clara.channels[channel].is_claimed)
        await clara.crash()
        await trio.sleep(20 * LIFE_MS / 1000)
        await anna.up()
        await until(lambda: anna.channels[channel].is_claimed)
        assert anna.balance == START - 60
        await clara.up()
        await sums(village, homes)


async def test_a_start_looks_up_what_was_settled(tmp_path: Path, autojump_clock: Clock) -> None:
    """Long before the expiry, and the payee is gone before it claims: the witnesses tell."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara, life_ms=1_000 * LIFE_MS)
        hold(anna, clara, channel, 60)
        await until(lambda: clara.ledger.ready)
        await anna.crash()
        await clara.ledger.settle(channel)
        await until(lambda: clara.channels[channel].settled is not None)
        await trio.sleep(1)  # The witnesses are told.
        assert not clara.channels[channel].is_claimed
        await clara.crash()
        await anna.up()
        await until(lambda: anna.channels[channel].is_claimed)
        assert anna.wall_ms() < anna.channels[channel].expiry_ms - 900 * LIFE_MS
        assert anna.balance == START - 60


@pytest.mark.parametrize("seed", range(4))
async def test_both_race_and_one_value_stands(
    tmp_path: Path, autojump_clock: Clock, seed: int
) -> None:
    """The payee settles as the first turn ends, and the witnesses' clocks differ by windows."""
    async with open_village(tmp_path, seed) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        for home in homes:
            home.skew_ms = village.chance.randrange(-GRACE_MS, GRACE_MS)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        hold(anna, clara, channel, 60)
        ends_ms = anna.channels[channel].expiry_ms + GRACE_MS - EPOCH_MS
        await trio.sleep_until(ends_ms / 1000 + village.chance.random() - 0.5)
        await clara.ledger.settle(channel)
        await shared_out(anna, clara, channel)
        assert anna.channels[channel].settled == clara.channels[channel].settled
        assert anna.channels[channel].settled in (0, 60)
        await sums(village, homes)


async def test_a_lock_forces_the_value_of_later_turns(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """The payee dies with the settlement on its disk and nowhere else. The payer, that would have
    taken all, finds the locks, and proposes what they say."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        hold(anna, clara, channel, 60)
        await until(lambda: clara.ledger.ready)
        crash = clara.at_step = CrashAt(clara, "settlement.stored", away_seconds=1_000)
        await clara.ledger.settle(channel)
        await until(lambda: anna.channels[channel].settled is not None)
        assert not crash.back.is_set()
        assert anna.channels[channel].settled == 60
        await crash.back.wait()
        await shared_out(anna, clara, channel)
        assert (anna.balance, clara.balance) == (START - 60, 60)
        await sums(village, homes)


async def test_there_is_one_proposal_for_a_turn(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        hold(anna, clara, channel, 60)
        await until(lambda: clara.ledger.ready)
        for witness in homes[1:3]:
            await witness.crash()
        await clara.ledger.settle(channel)
        proposed = await proposal(clara, channel)
        assert (proposed.turn, proposed.value) == (1, 60)
        hold(anna, clara, channel, 90)
        await clara.ledger.settle(channel)
        await clara.crash_and_lose()
        await clara.up()
        await until(lambda: bool(clara.ledger.settling()))
        await clara.ledger.settle(channel)
        assert await proposal(clara, channel) == proposed
        await trio.sleep(5)
        (line,) = clara.ledger.settling()
        assert (line.turn, line.stage, line.seals, line.quorum) == (1, "proposing", 2, 3)
        for witness in homes[1:3]:
            await witness.up()
        await shared_out(anna, clara, channel)
        assert clara.balance == 60
        await sums(village, homes)


async def proposal(home: Home, channel: MessageId) -> Proposed:
    store = LedgerStore(home.database, home.village.charter)
    found = await store.read(lambda chains: chains.proposed(channel))
    assert found is not None
    return found


async def test_one_witness_away_and_two(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES[:3], ANNA, CLARA)
        anna, clara = homes[-2:]
        first, second = await opened(anna, clara, 100), await opened(anna, clara, 50)
        for channel in (first, second):
            hold(anna, clara, channel, 20)
        await until(lambda: clara.ledger.ready)
        await clara.ledger.settle(first)
        await shared_out(anna, clara, first)
        await homes[0].crash()
        await clara.ledger.settle(second)
        await trio.sleep(200)
        # What was proposed in the first turn is repeated; later turns wait for their windows.
        assert [line.channel for line in clara.ledger.settling()] == [second]
        assert clara.channels[second].settled is None
        await homes[0].up()
        await shared_out(anna, clara, second)
        late = village.home(WITNESSES[3])
        await late.up()
        await until(lambda: late.ledger.ready)
        await sums(village, homes)


async def test_a_witness_with_a_doubtful_clock_begins_no_turn(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        for witness in homes[:2]:
            witness.is_clock_trusted = False
        await trio.sleep(2 * LIFE_MS / 1000)
        assert anna.channels[channel].settled is None
        homes[0].is_clock_trusted = True
        await shared_out(anna, clara, channel)
        assert anna.balance == START
        await sums(village, homes)


@pytest.mark.parametrize("hours", [-24, 24])
async def test_a_clock_that_jumps_by_a_day_loses_nothing(
    tmp_path: Path, autojump_clock: Clock, hours: int
) -> None:
    """The payee's clock jumps while its proposal waits for witnesses, and back again later."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara, life_ms=3 * LIFE_MS)
        hold(anna, clara, channel, 60)
        await until(lambda: clara.ledger.ready)
        for witness in homes[:2]:
            await witness.crash()
        await clara.ledger.settle(channel)
        clara.skew_ms = hours * 3_600_000
        await trio.sleep(2 * LIFE_MS / 1000)
        for witness in homes[:2]:
            await witness.up()
        await trio.sleep(LIFE_MS / 1000)
        clara.skew_ms = 0
        await shared_out(anna, clara, channel)
        assert anna.channels[channel].settled in (0, 60)
        await sums(village, homes)


async def test_an_old_copy_of_a_payee_settles_what_witnesses_know(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Restored to before its proposal, with a lower voucher: the value that was locked stands."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        await until(lambda: clara.ledger.ready)
        backup = clara.copy("backup")
        hold(anna, clara, channel, 60)
        clara.at_step = CrashAt(clara, "settlement.stored", away_seconds=10**9)
        await clara.ledger.settle(channel)
        await until(lambda: not clara.is_up)
        clara.at_step = None
        clara.restore(backup)
        hold(anna, clara, channel, 30)
        await clara.up()
        await until(lambda: clara.ledger.ready)
        await clara.ledger.settle(channel)
        await shared_out(anna, clara, channel)
        assert (anna.balance, clara.balance) == (START - 60, 60)
        await sums(village, homes)


async def test_what_cannot_be_done_says_why(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, BRUNO, CLARA)
        anna, bruno, clara = homes[-3:]
        channel = await opened(anna, clara)
        assert await refused(anna.ledger.open_channel(ANNA.node, 1, 1)) is Code.BAD_REQUEST
        assert await refused(anna.ledger.open_channel(CLARA.node, 0, 1)) is Code.BAD_REQUEST
        assert await refused(anna.ledger.open_channel(CLARA.node, START, 1)) is Code.OVERDRAWN
        assert await refused(anna.ledger.top_up(channel, START)) is Code.OVERDRAWN
        assert await refused(bruno.ledger.top_up(channel, 1)) is Code.NOT_FOUND
        assert await refused(clara.ledger.top_up(channel, 1)) is Code.NOT_FOUND
        assert await refused(bruno.ledger.settle(channel)) is Code.NOT_FOUND
        assert await refused(clara.ledger.ask_voucher(channel)) is Code.NOT_FOUND
        await anna.ledger.settle(channel)  # The payer's turns come by themselves.
        assert not anna.ledger.settling()
        await clara.crash()
        assert await refused(anna.ledger.ask_voucher(channel)) is Code.UNAVAILABLE
        assert await refused(anna.ledger.show_channel(channel)) is Code.UNAVAILABLE
        await clara.up()
        await until(lambda: clara.ledger.ready)
        await clara.ledger.settle(channel)
        await shared_out(anna, clara, channel)
        assert (anna.channels[channel].settled, anna.balance) == (0, START)
        assert await refused(anna.ledger.top_up(channel, 1)) is Code.CHANNEL_CLOSED
        await clara.ledger.settle(channel)  # A repeat changes nothing.
        await sums(village, homes)


async def refused(call: Awaitable[object]) -> Code:
    with pytest.raises(LocalError) as caught:
        await call
    return caught.value.code


async def test_nothing_is_proposed_before_the_witnesses_agree(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        await clara.crash()
        for witness in homes[:2]:
            await witness.crash()
        await clara.up()
        assert await refused(clara.ledger.settle(channel)) is Code.UNAVAILABLE
        for witness in homes[:2]:
            await witness.up()
        await until(lambda: clara.ledger.ready)
        await clara.ledger.settle(channel)
        await shared_out(anna, clara, channel)


async def test_many_channels_settle_side_by_side(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, BRUNO)
        anna, bruno = homes[-2:]
        ours = [await opened(anna, bruno, 10 + number) for number in range(5)]
        theirs = [await opened(bruno, anna, 10 + number) for number in range(5)]
        for payer, payee, channels in ((anna, bruno, ours), (bruno, anna, theirs)):
            for number, channel in enumerate(channels):
                hold(payer, payee, channel, number + 1)
        await until(lambda: all(home.ledger.ready for home in homes))
        async with trio.open_nursery() as nursery:
            for channel in ours:
                nursery.start_soon(bruno.ledger.settle, channel)
            for channel in theirs[1:]:
                nursery.start_soon(anna.ledger.settle, channel)
        for channel in ours:
            await shared_out(anna, bruno, channel)
        for channel in theirs:
            await shared_out(bruno, anna, channel)
        # The one that nobody asked to settle expired, and went back to its payer.
        assert anna.balance == START - 15 + 14
        await sums(village, homes)


async def test_threads_and_the_real_clock(tmp_path: Path) -> None:
    """The same with the database's threads, each reader of one moment of its own."""
    async with open_village(tmp_path, inline=False) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        with trio.fail_after(60):
            channel = await opened(anna, clara, life_ms=3_600_000)
            hold(anna, clara, channel, 60)
            await until(lambda: clara.ledger.ready)
            await clara.ledger.settle(channel)
            await until(lambda: clara.channels[channel].settled == 60)
            await until(lambda: anna.channels[channel].settled == 60)
            anna.ledger.claim_now()
            clara.ledger.claim_now()
            await shared_out(anna, clara, channel)
        await sums(village, homes)
