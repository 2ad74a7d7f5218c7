"""A requester's channels: opened, reused, topped up, taken back after a restart."""

import pytest
import trio

from node.ledger.scripted import ScriptedLedgers
from protocol import codec
from protocol.errors import Code, LocalError
from protocol.ledger.voucher import VOUCHER_BYTES_MAX, Voucher, voucher_note
from tests.node.channels.pair import (
    ANNA,
    BRUNO,
    CLARA,
    LIMITS,
    ORDER,
    QUOTE,
    RICH,
    Clock,
    open_one,
    pair,
    quiet,
)

B = BRUNO.node


def said(signed) -> Voucher:
    return codec.decode(signed.body, Voucher, VOUCHER_BYTES_MAX)


def opens(world) -> list[int]:
    return [one.amount for one in world.certified if one.kind == "open"]


def topups(world) -> list[int]:
    return [one.amount for one in world.certified if one.kind == "topup"]


async def test_the_first_order_opens_a_channel_and_the_next_ones_use_it(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path, runs=False) as (world, _, anna, _):
        assert not anna.payer.has_room(B, 1_000)
        async with anna.payer.spend(B, 1_000) as first:
            assert opens(world) == [50_000]
            async with anna.payer.spend(B, 1_000) as second:
                assert first.channel == second.channel
        assert anna.payer.has_room(B, 50_000)
        assert not anna.payer.has_room(B, 50_001)
        assert opens(world) == [50_000]


async def test_vouchers_of_concurrent_orders_add_up_and_name_their_orders(
    tmp_path, autojump_clock
) -> None:
    async with (
        pair(tmp_path) as (_, _, anna, _),
        anna.payer.spend(B, 1_000) as first,
        anna.payer.spend(B, 1_000) as second,
    ):
        ahead = said(first.prompt_voucher(QUOTE, 10))
        assert (ahead.channel, ahead.cumulative, ahead.lock) == (first.channel, 10, b"")
        assert ahead.note == voucher_note(QUOTE, 0)
        assert said(second.voucher(ORDER, 16, 5)).cumulative == 15
        assert first.voucher(ORDER, 16, 9) is None  # Paid ahead.
        later = said(first.voucher(ORDER, 32, 12))
        assert (later.cumulative, later.note) == (17, voucher_note(ORDER, 32))


async def test_orders_side_by_side_never_hold_the_same_room(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path, runs=False) as (world, _, anna, _):
        channels = set()
        async with trio.open_nursery() as nursery:

            async def order() -> None:
                async with anna.payer.spend(B, 30_000) as spending:
                    channels.add(spending.channel)
                    await trio.sleep(1)
                    assert said(spending.voucher(ORDER, 1, 30_000)).cumulative <= funding()

            def funding() -> int:
                (facts,) = world.channels.values()
                return facts.funding

            for _ in range(60):  # 1.8 million; the first deposit holds 1.5.
                nursery.start_soon(order)
        (facts,) = world.channels.values()
        assert channels == {facts.id}
        assert facts.funding >= 1_800_000
        (own,) = anna.payer.own
        assert own.signed == 1_800_000


async def test_a_channel_is_topped_up_in_the_background_below_a_quarter(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path) as (world, _, anna, _):
        for _ in range(37):
            async with anna.payer.spend(B, 1_000) as spending:
                spending.voucher(ORDER, 16, 1_000)
        await quiet()
        assert topups(world) == []
        async with anna.payer.spend(B, 1_000) as spending:
            spending.voucher(ORDER, 16, 1_000)
        await quiet()
        assert (opens(world), topups(world)) == ([50_000], [38_000])


async def test_a_dearer_job_tops_up_what_it_lacks(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path, runs=False) as (world, _, anna, _):
        async with anna.payer.spend(B, 1_000):
            pass
        async with anna.payer.spend(B, 400_000) as spending:
            assert said(spending.voucher(ORDER, 16, 400_000)).cumulative == 400_000
        assert opens(world) == [50_000]
        assert sum(topups(world)) >= 350_000


async def test_what_cannot_be_paid_is_refused_with_what_there_is(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path) as (world, _, anna, _):
        assert anna.payer.spendable == RICH
        with pytest.raises(LocalError) as caught:
            async with anna.payer.spend(B, RICH + 1):
                pass
        assert caught.value.code is Code.OVERDRAWN
        assert "1000.000001 credits; 1000 can be spent" in caught.value.sentence
        async with anna.payer.spend(B, RICH):  # All that there is may go into a job at hand.
            assert opens(world) == [RICH]


async def test_witnesses_that_are_away_stop_no_job_in_an_open_channel(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path) as (world, _, anna, _):
        async with anna.payer.spend(B, 1_000):
            pass
        world.prompt = False
        async with anna.payer.spend(B, 1_000) as spending:
            assert said(spending.voucher(ORDER, 16, 500)).cumulative == 500
        with pytest.raises(LocalError) as caught:
            async with anna.payer.spend(CLARA.node, 1_000):
                pass
        assert caught.value.code is Code.UNAVAILABLE
        assert "waits for 1 of 1 witnesses" in caught.value.sentence
        with pytest.raises(LocalError):
            async with anna.payer.spend(CLARA.node, 1_000):
                pass
        assert sum(one.kind == "open" for one in world.waiting(ANNA.node)) == 1  # Not a second.
        async with trio.open_nursery() as nursery:

            async def come_back() -> None:
                await trio.sleep(3)
                world.prompt = True
                world.certify()

            nursery.start_soon(come_back)
            with pytest.raises(LocalError):  # Open now, but nobody is there to be shown it.
                async with anna.payer.spend(CLARA.node, 1_000):
                    pass
        assert opens(world) == [50_000, 50_000]


async def test_channels_are_opened_ahead_of_need_within_the_owners_bounds(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path) as (world, _, anna, bruno):
        anna.payer.expect([(B, 2_000), (CLARA.node, 100_000_000)])
        await quiet()
        assert opens(world) == [100_000]  # Clara's 100 credits a job are beyond 2 % of 1,000.
        assert anna.payer.has_room(B, 100_000)
        assert opens(world) == [100_000]
        assert bruno.payer.own == []  # Who asks for nothing opens nothing.


async def test_after_a_restart_the_payee_says_what_was_signed(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path, runs=False) as (world, clock, anna, bruno):
        async with (
            anna.payer.spend(B, 1_000) as spending,
            bruno.payee.earn(ANNA.node, spending.channel) as earning,
        ):
            await earning.count(spending.voucher(ORDER, 16, 700))
        async with open_one(world, ANNA, tmp_path, clock, runs=False) as again:
            (own,) = again.payer.own
            assert own.signed is None
            assert own.locked == 50_000  # Not known to be less.
            async with again.payer.spend(B, 1_000) as spending:
                assert said(spending.voucher(ORDER, 16, 1)).cumulative == 701
            assert opens(world) == [50_000]


async def test_without_the_payees_word_nothing_new_is_signed(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path, runs=False) as (world, clock, anna, bruno):
        async with anna.payer.spend(B, 1_000):
            pass
        async with open_one(world, ANNA, tmp_path, clock, runs=False) as again:
            bruno.ledger.vouchers = None
            with pytest.raises(LocalError) as caught:
                async with again.payer.spend(B, 1_000):
                    pass
            assert caught.value.code is Code.UNAVAILABLE


async def test_a_voucher_of_somebody_else_is_not_taken_for_ones_own(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path, runs=False) as (world, clock, anna, bruno):
        async with anna.payer.spend(B, 1_000) as spending:
            pass
        async with anna.payer.spend(B, 400_000) as other:  # Of the same channel.
            assert other.channel == spending.channel

        class Liar:
            def best(self, channel):
                return forged

            def wanted(self, channel) -> None: ...

        async with (
            open_one(world, CLARA, tmp_path, clock, runs=False) as clara,
            clara.payer.spend(B, 9_000) as theirs,
        ):
            forged = theirs.voucher(ORDER, 16, 9_000)
        bruno.ledger.vouchers = Liar()
        async with (
            open_one(world, ANNA, tmp_path, clock, runs=False) as again,
            again.payer.spend(B, 1_000) as mine,
        ):
            assert said(mine.voucher(ORDER, 16, 1)).cumulative == 1


async def test_a_refused_channel_is_settled_and_another_one_opened(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path) as (world, _, anna, _):
        async with anna.payer.spend(B, 1_000) as spending:
            first = spending.channel
        await anna.payer.mistrusted(first, "UNPAID: its window is full.")
        async with anna.payer.spend(B, 1_000) as spending:
            assert spending.channel != first
        await quiet()
        assert world.channels[first].settled == 0
        assert world.balance(ANNA.node) == RICH - 50_000


async def test_a_channel_that_was_forgotten_is_shown_once_more_and_then_left(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path, runs=False) as (_, _, anna, _):
        async with anna.payer.spend(B, 1_000) as spending:
            first = spending.channel
        await anna.payer.mistrusted(first, "NO_CHANNEL: it is not known here.")
        async with anna.payer.spend(B, 1_000) as spending:
            assert spending.channel == first
        await anna.payer.mistrusted(first, "NO_CHANNEL: it is not known here.")
        async with anna.payer.spend(B, 1_000) as spending:
            assert spending.channel != first


async def test_no_order_begins_on_a_channel_that_nears_its_expiry(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path, runs=False) as (_, clock, anna, _):
        async with anna.payer.spend(B, 1_000) as spending:
            first = spending.channel
        clock.jumped_ms = LIMITS.life_ms - 27 * 2_000 - 1_000
        assert anna.payer.has_room(B, 1_000)
        clock.jumped_ms += 1_001
        assert not anna.payer.has_room(B, 1_000)
        async with anna.payer.spend(B, 1_000) as spending:
            assert spending.channel != first


async def test_an_open_that_waits_from_before_a_restart_is_waited_for(
    tmp_path, autojump_clock
) -> None:
    world, clock = ScriptedLedgers({one.node: RICH for one in (ANNA, BRUNO)}), Clock()
    world.prompt = False
    async with (
        open_one(world, BRUNO, tmp_path, clock),
        open_one(world, ANNA, tmp_path, clock, runs=False) as anna,
    ):
        with pytest.raises(LocalError):
            async with anna.payer.spend(B, 1_000):
                pass
        async with open_one(world, ANNA, tmp_path, clock) as again:
            again.payer.expect([(B, 1_000)])
            await quiet()
            assert len(world.waiting(ANNA.node)) == 1
            assert again.payer.locked == 50_000
            world.prompt = True
            world.certify()
            await quiet()
            assert again.payer.has_room(B, 1_000)
