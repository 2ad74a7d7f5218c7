"""The life of channels by themselves, and how people see it."""

import pytest
import trio

from node.channels.policy import Limits
from protocol.errors import Code, LocalError
from protocol.ids import MessageId
from tests.node.channels.pair import (
    ANNA,
    BRUNO,
    CLARA,
    EPOCH_MS,
    LIMITS,
    ORDER,
    RICH,
    RULES,
    deliver,
    open_one,
    pair,
    quiet,
)

A, B = ANNA.node, BRUNO.node
IDLE_SECONDS = LIMITS.idle_ms / 1000


async def used(anna, bruno, cost=3_000) -> MessageId:
    """An order of this cost, paid."""
    async with (
        anna.payer.spend(B, cost) as spending,
        bruno.payee.earn(A, spending.channel) as earning,
    ):
        deliver(earning.window, cost)
        await earning.count(spending.voucher(ORDER, 16, cost))
        return spending.channel


async def test_an_idle_channel_is_settled_and_its_rest_comes_back(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path) as (world, _, anna, bruno):
        channel = await used(anna, bruno)
        await trio.sleep(IDLE_SECONDS - 30)
        assert world.channels[channel].settled is None
        await trio.sleep(60)
        assert world.channels[channel].settled == 3_000
        assert world.balance(A) == RICH - 3_000
        assert world.balance(B) == RICH + 3_000
        assert list(anna.channels.lines()) == []  # Nobody asked since, so none was opened anew.


async def test_a_channel_opened_ahead_that_nobody_used_is_not_opened_again_and_again(
    tmp_path, autojump_clock
) -> None:
    """Clara is thought of with each question, and Bruno answers them all."""
    async with (
        pair(tmp_path) as (world, clock, anna, bruno),
        open_one(world, CLARA, tmp_path, clock),
    ):

        def opened_to(payee) -> int:
            return sum(one.kind == "open" and one.to == payee for one in world.certified)

        for _ in range(12):
            anna.payer.expect([(B, 3_000), (CLARA.node, 3_000)])
            await used(anna, bruno)
            await trio.sleep(IDLE_SECONDS / 3)
        assert opened_to(B) == 1
        assert opened_to(CLARA.node) == 1
        assert world.balance(A) == RICH - 150_000  # What lay there came back.
        async with anna.payer.spend(CLARA.node, 3_000):
            assert opened_to(CLARA.node) == 2
        await trio.sleep(IDLE_SECONDS / 2)
        anna.payer.expect([(CLARA.node, 3_000)])
        assert anna.payer.has_room(CLARA.node, 3_000)


async def test_a_channel_in_use_is_not_idle(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path) as (world, _, anna, bruno):
        channel = await used(anna, bruno)
        for _ in range(4):
            await trio.sleep(IDLE_SECONDS / 2)
            assert await used(anna, bruno) == channel
        assert world.channels[channel].settled is None


async def test_before_it_expires_a_channel_is_settled_though_it_is_in_use(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path) as (world, clock, anna, bruno):
        channel = await used(anna, bruno)
        async with bruno.payee.earn(A, channel):
            ahead_ms = world.channels[channel].expiry_ms - clock() - 12 * RULES.grace_ms
            clock.jumped_ms += ahead_ms - 30_000
            await trio.sleep(20)
            assert world.channels[channel].settled is None
            await trio.sleep(60)
            assert world.channels[channel].settled == 3_000


async def test_payees_that_do_not_answer_keep_nobody_from_settling_what_it_has_earned(
    tmp_path, autojump_clock
) -> None:
    """Bruno has channels to Clara, who is away, and is paid by Anna."""
    async with pair(tmp_path) as (world, clock, anna, bruno):
        async with (
            open_one(world, CLARA, tmp_path, clock),
            bruno.payer.spend(CLARA.node, 3_000),
        ):
            pass
        world.ledger(CLARA.node).vouchers, world.away_seconds = None, 3_000.0
        (own,) = bruno.payer.own
        own.bad, own.is_wanted_settled = "its settlement was asked for", True
        channel = await used(anna, bruno)
        await trio.sleep(60)
        clock.jumped_ms += world.channels[channel].expiry_ms - clock() - 13 * RULES.grace_ms
        await trio.sleep(65)
        assert world.channels[channel].settled == 3_000


async def test_after_a_long_absence_it_is_settled_at_the_start(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path, runs=False) as (world, clock, anna, bruno):
        channel = await used(anna, bruno)
        clock.jumped_ms += 10 * LIMITS.life_ms
        async with open_one(world, BRUNO, tmp_path, clock):
            await quiet()
            assert world.channels[channel].settled == 3_000


async def test_a_sum_that_is_worth_it_is_settled_between_two_questions(
    tmp_path, autojump_clock
) -> None:
    limits = Limits(life_ms=3_600_000, settle_above=5_000)
    async with pair(tmp_path, limits=limits) as (world, _, anna, bruno):
        channel = await used(anna, bruno, 3_000)
        await trio.sleep(60)
        assert world.channels[channel].settled is None
        assert await used(anna, bruno, 3_000) == channel
        await trio.sleep(60)
        assert world.channels[channel].settled == 6_000
        assert await used(anna, bruno, 3_000) != channel
        opened = [one for one in world.certified if one.kind == "open"]
        assert len(opened) == 2  # The second one ahead of need.


async def test_a_payer_that_wants_it_settled_waits_for_running_orders_a_minute_at_most(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path) as (world, _, anna, bruno):
        channel = await used(anna, bruno)
        async with bruno.payee.earn(A, channel):
            await anna.payer.want_settled(channel)
            await trio.sleep(30)
            assert world.channels[channel].settled is None
            await trio.sleep(40)
            assert world.channels[channel].settled == 3_000


async def test_a_payee_that_is_away_is_asked_again(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path) as (world, _, anna, bruno):
        channel = await used(anna, bruno)
        vouchers, bruno.ledger.vouchers = bruno.ledger.vouchers, None
        await anna.channels.settle(channel)
        await trio.sleep(40)
        (line,) = anna.channels.lines()  # None was opened in its place.
        assert (line.state, line.step) == ("closed", "ask its payee again to settle it")
        bruno.ledger.vouchers = vouchers
        await trio.sleep(60)
        assert world.channels[channel].settled == 3_000


async def test_a_settlement_that_the_disk_refuses_is_tried_again(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path) as (world, _, anna, bruno):
        channel = await used(anna, bruno)
        bruno.ledger.failing = LocalError(Code.UNAVAILABLE, "The disk is full.")
        with pytest.raises(LocalError):
            await bruno.channels.settle(channel)
        await anna.payer.want_settled(channel)
        await quiet()
        assert world.channels[channel].settled is None
        bruno.ledger.failing = None
        await trio.sleep(60)
        assert world.channels[channel].settled == 3_000


async def test_both_sides_see_what_happens_next_and_when(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path) as (world, clock, anna, bruno):
        channel = await used(anna, bruno)
        (ours,), (theirs,) = anna.channels.lines(), bruno.channels.lines()
        assert (ours.is_ours, ours.other, ours.moved, ours.funding) == (True, B, 3_000, 150_000)
        assert (theirs.is_ours, theirs.other, theirs.moved) == (False, A, 3_000)
        idle_ms = clock() + LIMITS.idle_ms
        assert (ours.state, ours.step_ms) == ("open", idle_ms)
        assert (theirs.step, theirs.step_ms) == ("settle it if it stays idle", idle_ms)
        assert ours.back_ms == EPOCH_MS + LIMITS.life_ms + RULES.grace_ms + RULES.window_ms
        assert theirs.back_ms is None
        world.prompt = False
        await bruno.channels.settle(channel)
        (theirs,) = bruno.channels.lines()
        assert (theirs.state, theirs.step) == ("settling", "get the witnesses to settle it")
        assert (theirs.waits_for, theirs.quorum) == (1, 1)
        world.prompt = True
        world.certify()
        await quiet()
        assert [line.id for line in anna.channels.lines()] != [channel]


async def test_after_the_expiry_each_waits_for_its_turn(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path, runs=False) as (world, clock, anna, bruno):
        channel = await used(anna, bruno)
        expiry_ms = world.channels[channel].expiry_ms
        clock.jumped_ms += LIMITS.life_ms + RULES.grace_ms
        (ours,), (theirs,) = anna.channels.lines(), bruno.channels.lines()
        assert (ours.state, ours.step) == ("settling", "take its turn to settle it")
        assert ours.back_ms == expiry_ms + RULES.grace_ms + RULES.window_ms
        clock.jumped_ms += RULES.window_ms
        (ours,) = anna.channels.lines()
        second = expiry_ms + RULES.grace_ms + 2 * RULES.window_ms
        assert (ours.step_ms, ours.back_ms) == (second, second + RULES.window_ms)
        assert theirs.state == "closed"


async def test_a_channel_from_before_a_lost_disk_is_not_shown_as_open(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path) as (world, _, anna, bruno):
        channel = await used(anna, bruno)
        (line,) = bruno.channels.lines()
        assert line.state == "open"
        bruno.payee.old_until_ms = world.channels[channel].expiry_ms
        (line,) = bruno.channels.lines()
        assert (line.state, line.step) == ("closed", "settle it if it stays idle")


async def test_what_is_lost_is_shown_with_its_channel(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path) as (_, _, anna, bruno):
        channel = await used(anna, bruno)
        async with bruno.payee.earn(A, channel) as earning:
            deliver(earning.window, 5)
            earning.window.lose(ORDER, 5, 1)
            earning.lost(5, 1)
        (line,) = bruno.channels.lines()
        assert (line.lost, line.state) == (5, "open")


async def test_only_channels_of_this_node_can_be_settled(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path) as (_, _, anna, bruno):
        await used(anna, bruno)
        with pytest.raises(LocalError) as caught:
            await bruno.channels.settle(MessageId(bytes(32)))
        assert caught.value.code is Code.NOT_FOUND
