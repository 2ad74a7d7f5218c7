"""Jobs paid chunk by chunk between two shells: what is signed, counted, booked and refused."""

from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing

from node.channels.base import PayTerms
from node.jobs.scripted import Script
from node.network.memory_weather import Calm
from node.storage.jobs import Role
from protocol.errors import Code, LocalError
from protocol.job.commitment import prompt_size
from protocol.job.requester_actions import Deliver, Failure, Finished
from protocol.job.terms import Message, Prompt
from protocol.ledger.voucher import voucher_note
from protocol.pricing import cost, prompt_prepaid
from tests.node.jobs.homes import (
    PRICE_IN,
    PRICE_OUT,
    WORDS,
    Home,
    World,
    asked,
    identity,
    introduce,
    job,
    open_home,
)

MAIZE, QUINOA = identity("maize").node, identity("quinoa").node
DEAR = (50_000_000, 200_000_000)
FREE = (0, 0)


class Far(Calm):
    """Everything takes its time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def delay_seconds(self, sender, receiver) -> float:
        return self._seconds


@asynccontextmanager
async def two_homes(tmp_path, world: World, prices=(PRICE_IN, PRICE_OUT), script=WORDS, slots=4):
    async with (
        open_home(world, "maize", tmp_path, lambda task: script, slots, prices) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        yield maize, quinoa


async def end_of(home: Home, wanted=None) -> Finished:
    end = (await asked(home, wanted or job(home)))[-1]
    assert isinstance(end, Finished)
    return end


async def settled() -> None:
    """Whatever can go on without more words has."""
    await trio.sleep(6)


async def test_a_job_is_paid_to_the_last_microcredit_and_both_keep_the_signed_receipt(
    autojump_clock, tmp_path
):
    world = World()
    async with two_homes(tmp_path, world) as (maize, quinoa):
        end = await end_of(quinoa)
        await settled()
        (channel,) = world.between("quinoa", "maize")
        assert channel.held == end.cost == cost(end.input_tokens, 40, PRICE_IN, PRICE_OUT)
        assert quinoa.payer.signed(channel.id) == end.cost
        assert channel.lost == []
        (record,) = maize.records.records
        earned = await maize.bills.bill_of(Role.PROVIDER, record.order_id)
        spent = await quinoa.bills.bill_of(Role.REQUESTER, record.order_id)
        assert earned is not None
        assert spent is not None
        assert (earned.amount, earned.paid, earned.lost) == (end.cost, end.cost, 0)
        assert (spent.amount, spent.paid, spent.peer) == (end.cost, end.cost, MAIZE)
        for kind in ("receipt_id", "receipt", "provider_signature", "requester_signature"):
            assert getattr(earned, kind) == getattr(spent, kind) != b""
        assert maize.payee.window(channel.id).unpaid == 0


async def test_each_chunk_has_a_voucher_that_says_what_it_pays(autojump_clock, tmp_path):
    """They are for rising sums, and each note names the order and the first token not yet paid;
    the first, of the prompt, went with the order and names the quote."""
    world = World()
    async with two_homes(tmp_path, world) as (maize, quinoa):
        end = await end_of(quinoa)
        await settled()
        (channel,) = world.between("quinoa", "maize")
        (record,) = maize.records.records
    sums = [voucher.cumulative for voucher in channel.vouchers]
    assert sums == sorted(set(sums))
    prompt = prompt_prepaid(prompt_size(job(quinoa).prompt), PRICE_IN)
    assert (sums[0], sums[-1]) == (prompt, end.cost)
    assert len(sums) > 5, "a chunk is a quarter of a second of two seconds"
    places = {voucher_note(record.order_id, place): place for place in range(41)}
    assert channel.vouchers[0].note not in places
    paid = [places[voucher.note] for voucher in channel.vouchers[1:]]
    assert paid == sorted(set(paid))
    assert paid[-1] == 40
    for place, voucher in zip(paid, channel.vouchers[1:], strict=True):
        assert voucher.cumulative == cost(end.input_tokens, place, PRICE_IN, PRICE_OUT)


async def test_jobs_share_a_channel_one_after_another_and_at_once(autojump_clock, tmp_path):
    world = World()
    async with two_homes(tmp_path, world) as (maize, quinoa):
        ends = [await end_of(quinoa) for _ in range(2)]

        async def one_more() -> None:
            ends.append(await end_of(quinoa))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one_more)
        await settled()
        (channel,) = world.between("quinoa", "maize")
        assert [end.reason for end in ends] == ["stop"] * 5
        assert channel.held == sum(end.cost for end in ends)
        assert maize.payee.window(channel.id).unpaid == 0


async def times_of(home: Home, wanted) -> list[float]:
    """When each piece of the answer came, from the asking."""
    began, times = trio.current_time(), []
    async with home.requester.ask(wanted) as told:
        async for one in told:
            if isinstance(one, Deliver):
                times.append(trio.current_time() - began)
    return times


@pytest.mark.parametrize(("chunks", "waits"), [(2, False), (1, True)])
async def test_a_stream_never_waits_for_the_voucher_of_the_chunk_before(
    autojump_clock, tmp_path, chunks, waits
):
    """Where the way is shorter than a chunk, a paid answer is as fast as a free one. With a
    window of one it is not, which shows that this can be seen."""
    world = World(Far(0.06))
    world.channels.terms = PayTerms(chunks, is_prompt_first=True)
    world.channels.count_seconds = 0.02
    async with two_homes(tmp_path, world, FREE) as (_, quinoa):
        free = await times_of(quinoa, job(quinoa))
    async with two_homes(tmp_path, world) as (_, quinoa):
        await end_of(quinoa)
        paid = await times_of(quinoa, job(quinoa))
        (channel,) = world.between("quinoa", "maize")
    gaps = [max(b - a for a, b in pairwise(times)) for times in (free, paid)]
    assert (paid == pytest.approx(free)) is not waits
    assert (gaps[1] > 1.5 * gaps[0]) is waits
    assert channel.held > 0


async def test_only_the_first_job_waits_for_a_channel_to_be_opened(autojump_clock, tmp_path):
    world = World()
    world.channels.open_seconds = 3.0
    world.channels.count_seconds = 0.05
    async with two_homes(tmp_path, world, FREE) as (_, quinoa):
        free = await times_of(quinoa, job(quinoa))
        assert not world.channels.channels, "what costs nothing needs no channel"
    async with two_homes(tmp_path, world) as (_, quinoa):
        first = await times_of(quinoa, job(quinoa))
        second = await times_of(quinoa, job(quinoa))
        assert first[0] == pytest.approx(free[0] + 3.0)
        assert second[0] == pytest.approx(free[0])
        assert [payee for payee, _ in quinoa.payer.expected] == [MAIZE]


async def test_started_is_said_when_the_prompts_voucher_is_on_disk_and_not_before(
    autojump_clock, tmp_path
):
    world = World()
    async with two_homes(tmp_path, world, FREE) as (_, quinoa):
        free = await times_of(quinoa, job(quinoa))
    world.channels.count_seconds = 2.0
    async with two_homes(tmp_path, world) as (maize, quinoa):
        times = await times_of(quinoa, job(quinoa))
        # The model began when the order came: all that it had written came at once then.
        assert times[0] == pytest.approx(2.0)
        assert maize.inference is not None
        assert len(maize.inference.tasks) == 1
        assert free[0] < 2.0


async def test_a_disk_that_fails_under_the_vouchers_ends_the_job_and_nothing_is_counted(
    autojump_clock, tmp_path
):
    world = World()
    world.channels.failure = LocalError(Code.UNAVAILABLE, "The disk is full.")
    async with two_homes(tmp_path, world) as (maize, quinoa):
        end = await end_of(quinoa)
        await settled()
        (channel,) = world.between("quinoa", "maize")
        assert (end.reason, end.failures[-1].code) == ("none", Code.UNAVAILABLE)
        assert (channel.held, end.cost) == (0, 0)
        assert maize.inference is not None
        assert maize.inference.slots_free(maize.inference.served[0].model) == 4


@pytest.mark.parametrize("whose", ["maize", "quinoa"])
async def test_a_history_that_cannot_be_written_ends_no_job(autojump_clock, tmp_path, whose):
    """It is a note for people: the money is in vouchers."""
    world = World()
    async with two_homes(tmp_path, world) as (maize, quinoa):
        records = {"maize": maize, "quinoa": quinoa}[whose].records
        records.failure = LocalError(Code.UNAVAILABLE, "The disk is full.")
        end = await end_of(quinoa)
        await settled()
        (channel,) = world.between("quinoa", "maize")
        assert (end.reason, channel.held) == ("stop", end.cost)
        assert maize.payee.window(channel.id).unpaid_chunks == 0


async def test_a_channel_that_the_provider_refuses_is_given_up_and_another_is_used(
    autojump_clock, tmp_path
):
    world = World()
    async with two_homes(tmp_path, world) as (_, quinoa):
        await end_of(quinoa)
        (old,) = world.between("quinoa", "maize")
        old.refusal = Code.CHANNEL_CLOSED
        told = await asked(quinoa, job(quinoa))
        _, new = world.between("quinoa", "maize")
    failures = [one for one in told if isinstance(one, Failure)]
    assert [failure.code for failure in failures] == [Code.CHANNEL_CLOSED]
    assert [word.split(":")[0] for word in quinoa.payer.mistrust] == ["CHANNEL_CLOSED"]
    end = told[-1]
    assert isinstance(end, Finished)
    assert (end.reason, new.held) == ("stop", end.cost)


async def test_a_job_that_cannot_be_paid_is_not_begun_and_says_what_there_is(
    autojump_clock, tmp_path
):
    world = World()
    world.channels.balances[QUINOA] = 7
    async with two_homes(tmp_path, world) as (maize, quinoa):
        with pytest.raises(LocalError) as caught:
            await end_of(quinoa)
        assert caught.value.code is Code.OVERDRAWN
        assert "0.000007" in caught.value.sentence
        assert maize.records.records == []


async def test_a_cancel_pays_for_what_was_billed(autojump_clock, tmp_path):
    world = World()
    async with two_homes(tmp_path, world) as (maize, quinoa):
        async with quinoa.requester.ask(job(quinoa)) as told:
            async for one in told:
                if isinstance(one, Deliver):
                    break
        await settled()
        (channel,) = world.between("quinoa", "maize")
        (record,) = maize.records.records
        assert 0 < record.tokens_out < 40
        assert channel.held == record.cost_microcredits == quinoa.payer.signed(channel.id)


async def test_a_wire_that_is_cut_costs_the_provider_no_more_than_its_window(
    autojump_clock, tmp_path
):
    world = World()
    # Dear, so that what a chunk costs is more than what the prompt had paid ahead.
    async with two_homes(tmp_path, world, DEAR) as (maize, quinoa):
        async with quinoa.requester.ask(job(quinoa)) as told:
            seen = 0
            async for one in told:
                seen += isinstance(one, Deliver)
                if seen == 12:
                    world.part(MAIZE, QUINOA)
                    break
        await settled()
        (channel,) = world.between("quinoa", "maize")
        (record,) = maize.records.records
        window = maize.payee.window(channel.id)
        assert record.cost_microcredits == channel.held + window.lost
        assert window.lost == sum(amount for amount, _ in channel.lost)
        assert window.unpaid_chunks <= 2
        bill = await maize.bills.bill_of(Role.PROVIDER, record.order_id)
        assert bill is not None
        assert (bill.paid, bill.lost) == (channel.held, window.lost)


async def test_what_a_prompt_cost_that_came_to_nothing_is_in_the_history(autojump_clock, tmp_path):
    """The provider may keep it, so its owner sees it."""
    world = World()
    world.channels.count_seconds = 3.0
    async with two_homes(tmp_path, world) as (_, quinoa):
        async with quinoa.requester.ask(job(quinoa)) as told:
            await trio.sleep(1)  # The order is there, and its voucher on its way to the disk.
            world.part(MAIZE, QUINOA)
            end = [one async for one in told][-1]
        assert isinstance(end, Finished)
        assert (end.reason, end.cost) == ("none", 0)
        (record,) = quinoa.records.records
        (channel,) = world.between("quinoa", "maize")
        ahead = prompt_prepaid(prompt_size(job(quinoa).prompt), PRICE_IN)
        assert record.cost_microcredits == ahead == quinoa.payer.signed(channel.id)


async def test_a_prompt_that_was_refused_unread_is_not_paid_in_the_end(autojump_clock, tmp_path):
    """Two orders come for one slot: the one that is refused has paid for its prompt ahead, and
    that counts for the chunks of the other."""
    world, ends = World(), []
    world.channels.opened(QUINOA, MAIZE, 1_000_000)
    async with two_homes(tmp_path, world, slots=1) as (_, quinoa):

        async def one_more() -> None:
            ends.append(await end_of(quinoa))

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(one_more)
        await settled()
        (channel,) = world.between("quinoa", "maize")
    refused, served = sorted(ends, key=lambda end: end.cost)
    assert (refused.failures[-1].code, refused.cost) == (Code.BUSY, 0)
    ahead = prompt_prepaid(prompt_size(job(quinoa).prompt), PRICE_IN)
    assert max(voucher.cumulative for voucher in channel.vouchers) == served.cost > 2 * ahead
    assert 2 * ahead in [voucher.cumulative for voucher in channel.vouchers]


async def test_what_was_paid_ahead_beyond_the_cost_counts_for_the_next_job(
    autojump_clock, tmp_path
):
    """A long word is fewer tokens than its bytes let one expect."""
    world, word = World(), Prompt((Message("user", "a" * 1200),), "", ())
    script = Script([(1, "b")], prompt_tokens=9)
    world.channels.terms = PayTerms(2, is_prompt_first=True)
    async with two_homes(tmp_path, world, script=script) as (_, quinoa):
        ends = [await end_of(quinoa, job(quinoa, prompt=word)) for _ in range(3)]
        (channel,) = world.between("quinoa", "maize")
        ahead = prompt_prepaid(prompt_size(word), PRICE_IN)
        assert [end.reason for end in ends] == ["stop"] * 3
        costs = [end.cost for end in ends]
        assert ahead > costs[0] > 0
        assert quinoa.payer.signed(channel.id) == sum(costs[:2]) + ahead
        assert [one.cost_microcredits for one in quinoa.records.records] == costs
