"""A provider's channels: vouchers count when they are on disk, and only good ones."""

import pytest
import trio

from node.channels.payee import CHANNELS_PER_PAYER_MAX
from node.storage.channels import Counted
from protocol.errors import AyniError, Code, LocalError, RemoteError
from protocol.ids import MessageId
from protocol.ledger.voucher import Voucher, voucher_signed
from tests.node.channels.pair import (
    ANNA,
    BRUNO,
    CHUNK_COST,
    CLARA,
    LIMITS,
    ORDER,
    RULES,
    deliver,
    open_one,
    pair,
    quiet,
)

A, B = ANNA.node, BRUNO.node


def voucher(channel, cumulative, who=ANNA, lock=b"", network=RULES.network):
    return voucher_signed(who, Voucher(channel, cumulative, bytes(32), lock), network)


async def opened(anna, world) -> MessageId:
    async with anna.payer.spend(B, 1_000) as spending:
        return spending.channel


async def test_a_voucher_counts_when_it_is_on_disk(tmp_path, autojump_clock) -> None:
    stored: list[int] = []

    async def slow(group) -> None:
        await trio.sleep(1)
        stored.extend(one.cumulative for one in group)

    async with pair(tmp_path, runs=False, copy=slow) as (world, _, anna, bruno):
        channel = await opened(anna, world)
        async with bruno.payee.earn(A, channel) as earning:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(earning.count, voucher(channel, 10))
                await trio.sleep(0.5)
                assert (earning.window.held, bruno.payee.best(channel)) == (0, None)
                await earning.changed()
                assert stored == [10]
            assert earning.window.held == 10
            assert bruno.payee.best(channel) == voucher(channel, 10)
            await earning.count(voucher(channel, 9))
            assert (earning.window.held, stored) == (10, [10])


async def test_vouchers_of_all_orders_of_a_channel_wake_each(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path, runs=False) as (world, _, anna, bruno):
        channel = await opened(anna, world)
        async with (
            bruno.payee.earn(A, channel) as first,
            bruno.payee.earn(A, channel) as second,
        ):
            assert first.window is second.window
            await first.count(voucher(channel, 10))
            await second.changed()
            with trio.move_on_after(1) as waited:
                await second.changed()
            assert waited.cancelled_caught


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"channel": MessageId(bytes(32))}, Code.BAD_VOUCHER),
        ({"cumulative": 50_001}, Code.BAD_VOUCHER),
        ({"who": CLARA}, Code.WRONG_SIGNER),
        ({"lock": bytes(32)}, Code.BAD_VOUCHER),
        ({"network": bytes(32)}, Code.BAD_SIGNATURE),
    ],
)
async def test_bad_vouchers_are_refused_by_name(changes, code, tmp_path, autojump_clock) -> None:
    async with pair(tmp_path, runs=False) as (world, _, anna, bruno):
        channel = await opened(anna, world)
        async with bruno.payee.earn(A, channel) as earning:
            with pytest.raises(RemoteError) as caught:
                await earning.count(voucher(**{"channel": channel, "cumulative": 10, **changes}))
            assert caught.value.code is code
            assert (earning.window.held, bruno.payee.best(channel)) == (0, None)
            await earning.count(voucher(channel, 50_000))


async def test_a_disk_that_fails_counts_nothing_and_the_next_voucher_does(
    tmp_path, autojump_clock
) -> None:
    failing = True

    async def broken(group) -> None:
        if failing:
            raise LocalError(Code.UNAVAILABLE, "The disk is full.")

    async with pair(tmp_path, runs=False, copy=broken) as (world, _, anna, bruno):
        channel = await opened(anna, world)
        async with bruno.payee.earn(A, channel) as earning:
            with pytest.raises(LocalError):
                await earning.count(voucher(channel, 10))
            assert earning.window.held == 0
            failing = False
            await earning.count(voucher(channel, 10))
            assert earning.window.held == 10


async def refusal(payee, requester, channel) -> Code:
    with pytest.raises(AyniError) as caught:
        async with payee.earn(requester, channel):
            pass
    return caught.value.code


async def test_channels_of_others_and_unknown_ones_take_no_order(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path, runs=False) as (world, _, anna, bruno):
        channel = await opened(anna, world)
        assert await refusal(bruno.payee, CLARA.node, channel) is Code.NO_CHANNEL
        assert await refusal(bruno.payee, A, MessageId(bytes(32))) is Code.NO_CHANNEL
        assert await refusal(anna.payee, A, channel) is Code.NO_CHANNEL


async def test_long_before_the_expiry_vouchers_count_no_more(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path, runs=False) as (world, clock, anna, bruno):
        channel = await opened(anna, world)
        async with bruno.payee.earn(A, channel) as earning:
            clock.jumped_ms = LIMITS.life_ms - 24 * RULES.grace_ms
            await earning.count(voucher(channel, 10))
            clock.jumped_ms += 1
            with pytest.raises(RemoteError) as caught:
                await earning.count(voucher(channel, 20))
            assert caught.value.code is Code.CHANNEL_CLOSED
        assert await refusal(bruno.payee, A, channel) is Code.CHANNEL_CLOSED


async def test_settling_waits_for_vouchers_on_their_way_and_takes_none_after(
    tmp_path, autojump_clock
) -> None:
    async def slow(group) -> None:
        await trio.sleep(1)

    async with pair(tmp_path, runs=False, copy=slow) as (world, _, anna, bruno):
        channel = await opened(anna, world)
        async with bruno.payee.earn(A, channel) as earning:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(earning.count, voucher(channel, 10))
                await trio.sleep(0.5)
                nursery.start_soon(bruno.payee.settle, channel)
                await trio.sleep(0.1)
                with pytest.raises(RemoteError) as caught:
                    await earning.count(voucher(channel, 20))
                assert caught.value.code is Code.CHANNEL_CLOSED
            assert world.channels[channel].settled == 10
        assert await refusal(bruno.payee, A, channel) is Code.CHANNEL_CLOSED


async def test_a_channel_whose_value_is_signed_stays_closed_after_a_restart(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path, runs=False) as (world, clock, anna, bruno):
        channel = await opened(anna, world)
        world.prompt = False
        await bruno.payee.settle(channel)
        async with open_one(world, BRUNO, tmp_path, clock, runs=False) as again:
            assert world.channels[channel].settled is None
            assert await refusal(again.payee, A, channel) is Code.CHANNEL_CLOSED


async def test_what_was_counted_survives_a_restart(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path, runs=False) as (world, clock, anna, bruno):
        channel = await opened(anna, world)
        async with bruno.payee.earn(A, channel) as earning:
            await earning.count(voucher(channel, 10))
        async with open_one(world, BRUNO, tmp_path, clock, runs=False) as again:
            assert again.payee.best(channel) == voucher(channel, 10)
            async with again.payee.earn(A, channel) as earning:
                assert (earning.window.held, earning.window.delivered) == (10, 10)
            assert again.payee.paid_by(A) == 10


async def test_a_channel_loses_its_window_once_also_over_a_restart(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path) as (world, clock, anna, bruno):
        channel = await opened(anna, world)
        async with bruno.payee.earn(A, channel) as earning:
            deliver(earning.window, 7)
            deliver(earning.window, 5)
            assert not earning.window.has_room
            earning.window.lose(ORDER, 12, 2)
            earning.lost(12, 2)
        await quiet()
        assert bruno.payee.lost == 12
        assert await refusal(bruno.payee, A, channel) is Code.UNPAID
        async with open_one(world, BRUNO, tmp_path, clock) as again:
            assert again.payee.lost == 12
            assert await refusal(again.payee, A, channel) is Code.UNPAID


async def test_what_is_paid_after_all_is_lost_no_more(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path) as (world, _, anna, bruno):
        channel = await opened(anna, world)
        async with bruno.payee.earn(A, channel) as earning:
            deliver(earning.window, 7)
            earning.window.lose(ORDER, 7, 1)
            earning.lost(7, 1)
            await quiet()
            assert (bruno.payee.lost, len(await bruno.store.losses())) == (7, 1)
            await earning.count(voucher(channel, 7))
            await quiet()
            assert (bruno.payee.lost, await bruno.store.losses()) == (0, [])


async def test_who_has_paid_for_much_and_is_slow_gets_a_wider_window(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path) as (world, _, anna, bruno):
        channel = await opened(anna, world)
        terms = bruno.payee.terms(A)
        assert (terms.window_chunks, terms.is_prompt_first) == (2, True)
        paid = 40 * CHUNK_COST
        async with bruno.payee.earn(A, channel) as earning:
            deliver(earning.window, paid)
            await trio.sleep(0.4)
            await earning.count(voucher(channel, paid))
        terms = bruno.payee.terms(A)
        assert (terms.window_chunks, terms.is_prompt_first) == (4, False)
        async with bruno.payee.earn(A, channel, terms.window_chunks) as earning:
            assert earning.window.chunks_max == 4
            async with bruno.payee.earn(A, channel, 2):
                assert earning.window.chunks_max == 4
        # It was for the order to which it was quoted: the next quote may say less.
        async with bruno.payee.earn(A, channel, 2) as earning:
            assert earning.window.chunks_max == 2
        assert bruno.payee.terms(CLARA.node).window_chunks == 2
        # Who is proven to have signed twice for one place is met as a stranger again.
        bruno.ledger.suspects.add(A)
        terms = bruno.payee.terms(A)
        assert (terms.window_chunks, terms.is_prompt_first) == (2, True)


async def test_one_payer_has_so_many_channels_here_and_no_more(tmp_path, autojump_clock) -> None:
    """Each costs it one microcredit."""
    async with pair(tmp_path, runs=False) as (world, clock, _, bruno):
        for number in range(CHANNELS_PER_PAYER_MAX + 6):
            world.open_channel(A, BRUNO.node, 1, clock() + LIMITS.life_ms + number)
        assert len(bruno.payee.books) == CHANNELS_PER_PAYER_MAX
        last = list(world.channels)[-1]
        assert await refusal(bruno.payee, A, last) is Code.NO_CHANNEL
        world.open_channel(CLARA.node, BRUNO.node, 50, clock() + LIMITS.life_ms)
        assert len(bruno.payee.books) == CHANNELS_PER_PAYER_MAX + 1


async def test_of_a_claimed_channel_its_payers_sums_stay(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path) as (world, clock, anna, bruno):
        channel = await opened(anna, world)
        async with bruno.payee.earn(A, channel) as earning:
            await earning.count(voucher(channel, 3_000))
        await bruno.payee.settle(channel)
        await quiet()
        assert await bruno.store.vouchers() == []
        assert channel not in {book.facts.id for book in bruno.payee.books}
        assert bruno.payee.paid_by(A) == 3_000
        async with open_one(world, BRUNO, tmp_path, clock) as again:
            assert channel not in {book.facts.id for book in again.payee.books}
            assert again.payee.paid_by(A) == 3_000
            assert not again.payee.terms(A).is_prompt_first


async def test_a_payee_that_was_away_too_long_books_what_its_vouchers_were_worth(
    tmp_path, autojump_clock
) -> None:
    async with pair(tmp_path) as (world, _, anna, bruno):
        channel = await opened(anna, world)
        async with bruno.payee.earn(A, channel) as earning:
            await earning.count(voucher(channel, 3_000))
        world.expire(channel)
        await quiet()
        assert (bruno.payee.paid_by(A), bruno.payee.lost) == (0, 3_000)


async def test_a_voucher_whose_bringer_has_gone_counts_all_the_same(
    tmp_path, autojump_clock
) -> None:
    seen: list[Counted] = []

    async def slow(group) -> None:
        seen.extend(group)
        await trio.sleep(1)

    async with pair(tmp_path, runs=False, copy=slow) as (world, _, anna, bruno):
        channel = await opened(anna, world)
        with trio.move_on_after(0.5):
            async with bruno.payee.earn(A, channel) as earning:
                await earning.count(voucher(channel, 10))
        assert [one.cumulative for one in seen] == [10]
        assert bruno.payee.best(channel) == voucher(channel, 10)


async def test_while_the_disk_takes_nothing_no_order_is_served(tmp_path, autojump_clock) -> None:
    async with pair(tmp_path) as (world, _, anna, bruno):
        channel = await opened(anna, world)
        bruno.database.trouble = "The disk is full."
        assert await refusal(bruno.payee, A, channel) is Code.UNAVAILABLE
        bruno.database.trouble = ""
        async with bruno.payee.earn(A, channel) as earning:
            await earning.count(voucher(channel, 10))
