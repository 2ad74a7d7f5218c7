"""A whole job between two shells over memory pipes, with a scripted model."""

import itertools

import pytest
import trio

from node.jobs.scripted import Script
from node.storage.jobs import JobState
from protocol.errors import Code, LocalError
from protocol.job.requester_actions import Accepted, Deliver, Failure, Finished
from protocol.job.sampling import Sampling
from protocol.job.terms import Message, Prompt
from protocol.pricing import cost
from tests.node.jobs.homes import (
    NAME,
    PRICE_IN,
    PRICE_OUT,
    WORDS,
    World,
    asked,
    introduce,
    job,
    open_home,
    pause,
)


def text_of(told) -> str:
    return "".join(one.text for one in told if isinstance(one, Deliver))


async def test_an_answer_is_streamed_billed_and_recorded_on_both_sides(autojump_clock, tmp_path):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        told = await asked(quinoa, job(quinoa))
        end = told[-1]
        assert isinstance(told[0], Accepted)
        assert isinstance(end, Finished)
        assert text_of(told) == "".join(text for _, text in WORDS.tokens)
        assert (end.reason, end.output_tokens, end.failures) == ("stop", 40, ())
        assert end.cost == cost(end.input_tokens, 40, PRICE_IN, PRICE_OUT)
        assert end.receipt is not None
        await trio.testing.wait_all_tasks_blocked()
    (asked_for,), (served,) = quinoa.records.records, maize.records.records
    for record in (asked_for, served):
        assert record.state is JobState.DONE
        assert record.model_name == NAME
        assert (record.tokens_out, record.cost_microcredits) == (40, end.cost)
    assert asked_for.order_id == served.order_id
    assert asked_for.job_id == served.job_id


async def test_probabilities_come_with_their_tokens_where_they_are_asked_for(
    autojump_clock, tmp_path
):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        told = await asked(quinoa, job(quinoa, sampling=Sampling(logprobs=1)))
    said = [one for one in told if isinstance(one, Deliver)]
    ids = [token for one in said for token in one.ids]
    places = [place for one in said for place in one.logprobs]
    assert len(ids) == len(WORDS.tokens)
    assert [[one.token for one in place] for place in places] == [[token] for token in ids]
    assert [place[0].text.decode() for place in places] == [text for _, text in WORDS.tokens]


async def test_tokens_come_one_by_one_as_they_are_made(autojump_clock, tmp_path):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        times = []
        async with quinoa.requester.ask(job(quinoa)) as told:
            async for one in told:
                if isinstance(one, Deliver):
                    times.append(trio.current_time())
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert len(times) == 40
        assert all(gap == pytest.approx(WORDS.token_seconds) for gap in gaps)


async def test_two_at_once_go_to_two_providers_and_a_third_hears_busy(autojump_clock, tmp_path):
    world = World()
    ends: list[Finished] = []
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "potato", tmp_path, lambda task: WORDS) as potato,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize, potato)

        async def ask() -> None:
            ends.append((await asked(quinoa, job(quinoa)))[-1])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await trio.sleep(0.5)
            nursery.start_soon(ask)
    busy, first, second = ends
    assert {first.candidate.node, second.candidate.node} == {
        maize.identity.node,
        potato.identity.node,
    }
    assert (busy.reason, [failure.code for failure in busy.failures]) == (
        "none",
        [Code.BUSY, Code.BUSY],
    )
    assert busy.cost == 0
    assert "slots" in busy.failures[-1].sentence


async def test_a_provider_that_is_busy_is_passed_over_and_that_is_told(autojump_clock, tmp_path):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "potato", tmp_path, lambda task: WORDS) as potato,
        open_home(world, "quinoa", tmp_path) as quinoa,
        open_home(world, "oca", tmp_path) as oca,
    ):
        introduce(quinoa, maize, potato)
        introduce(oca, maize)
        async with oca.requester.ask(job(oca)) as running:
            assert isinstance(await anext(running), Accepted)
            wanted = job(quinoa)
            both = sorted(wanted.candidates, key=lambda one: one.node != maize.identity.node)
            told = await asked(quinoa, job(quinoa, candidates=both))
    failure, accepted = told[0], told[1]
    assert isinstance(failure, Failure)
    assert failure.code is Code.BUSY
    assert isinstance(accepted, Accepted)
    assert accepted.candidate.node == potato.identity.node
    assert told[-1].reason == "stop"


async def test_a_provider_lost_in_mid_answer_ends_the_job_with_lost(autojump_clock, tmp_path):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        async with quinoa.requester.ask(job(quinoa)) as told:
            while not isinstance(await anext(told), Deliver):
                pass
            maize.network.kill()
            rest = [one async for one in told]
    end = rest[-1]
    assert (end.reason, end.failures[-1].code, end.receipt) == ("none", Code.LOST, None)
    assert quinoa.records.records[0].state is JobState.FAILED
    assert quinoa.records.records[0].code is Code.LOST


async def test_leaving_early_cancels_and_what_was_made_is_billed(autojump_clock, tmp_path):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        async with quinoa.requester.ask(job(quinoa)) as told:
            while not isinstance(await anext(told), Deliver):
                pass
        assert quinoa.requester.tally.count == 0
        await trio.testing.wait_all_tasks_blocked()
        assert maize.inference.slots_free(job(quinoa).candidates[0].model) == 1
    (record,), (served,) = quinoa.records.records, maize.records.records
    assert record.state is served.state is JobState.CANCELLED
    assert 1 <= record.tokens_out < 5
    assert record.cost_microcredits == served.cost_microcredits > 0


async def test_the_callers_own_error_passes_as_it_is(autojump_clock, tmp_path):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        with pytest.raises(KeyError):
            async with quinoa.requester.ask(job(quinoa)):
                raise KeyError("of the caller")


@pytest.mark.parametrize("seconds", [0, 0.05, 0.1, 0.2, 0.35, 1.0])
async def test_cancelling_at_any_moment_leaves_the_connection_usable(
    autojump_clock, tmp_path, seconds
):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        with trio.move_on_after(seconds):
            await asked(quinoa, job(quinoa))
        await trio.sleep(1)
        assert maize.desk.tally.count == 0
        assert (await asked(quinoa, job(quinoa)))[-1].reason == "stop"


async def test_a_worker_that_dies_ends_the_job_with_its_own_code(autojump_clock, tmp_path):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        async with quinoa.requester.ask(job(quinoa)) as told:
            while not isinstance(await anext(told), Deliver):
                pass
            maize.inference.die()
            rest = [one async for one in told]
        assert rest[-1].failures[-1].code is Code.WORKER_FAILED
        maize.inference.rise()
        assert (await asked(quinoa, job(quinoa)))[-1].reason == "stop"


async def test_the_cap_in_money_ends_the_answer(autojump_clock, tmp_path):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        end = (await asked(quinoa, job(quinoa, cost_max=40)))[-1]
    assert end.reason == "length"
    assert 0 < end.output_tokens < 40
    assert end.cost <= 40


@pytest.mark.parametrize(("word", "code"), [("pause", Code.PAUSED), ("drain", Code.DRAINING)])
async def test_an_owner_who_shares_no_more_refuses_by_name(autojump_clock, tmp_path, word, code):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        wanted = job(quinoa)
        getattr(maize.sharing, word)()
        end = (await asked(quinoa, wanted))[-1]
        assert [failure.code for failure in end.failures] == [code]
        if word == "pause":
            maize.sharing.resume()
            assert (await asked(quinoa, job(quinoa)))[-1].reason == "stop"


async def test_a_slow_model_is_not_taken_for_a_dead_one(autojump_clock, tmp_path):
    world = World()
    slow = Script([(1, "at last")], prompt_seconds=50)
    async with (
        open_home(world, "maize", tmp_path, lambda task: slow) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        told = await asked(quinoa, job(quinoa))
    assert text_of(told) == "at last"


async def test_the_job_has_an_end_in_time(autojump_clock, tmp_path):
    world = World()
    endless = Script([(number, "x") for number in range(4000)], token_seconds=1)
    async with (
        open_home(world, "maize", tmp_path, lambda task: endless) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        end = (await asked(quinoa, job(quinoa, tokens=1500, time_ms_max=10_000)))[-1]
    assert end.reason in ("length", "cancelled")
    assert 8 <= end.output_tokens <= 10


async def test_no_provider_is_said_with_the_reason(autojump_clock, tmp_path):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        with pytest.raises(LocalError, match="NO_PROVIDER"):
            quinoa.market.models_named("")
        introduce(quinoa, maize)
        with pytest.raises(LocalError, match=r"MODEL_NOT_SERVED.*scripted"):
            quinoa.market.models_named("llama")
        with pytest.raises(LocalError, match=r"COST_EXCEEDED.*cap of 0 microcredits"):
            job(quinoa, cost_max=0)
        long = Prompt((Message("user", "why " * 5000),), "", ())
        with pytest.raises(LocalError, match=r"CONTEXT_EXCEEDED.*takes is 2048"):
            job(quinoa, prompt_tokens=5000, prompt=long)
        pause(quinoa, maize)
        with pytest.raises(LocalError, match=r"NO_PROVIDER.*paused sharing"):
            job(quinoa)
