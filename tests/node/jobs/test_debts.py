"""Who may owe a provider how much, and what it says to others."""

import trio
import trio.testing

from node.jobs.dues import Due
from protocol.errors import Code
from protocol.ids import JobId
from protocol.job.requester import Failure, Finished
from protocol.job.terms import Quote, Refuse
from protocol.units import credits_text
from tests.node.jobs.homes import (
    WORDS,
    Home,
    World,
    identity,
    job,
    open_home,
)
from tests.node.jobs.paying import (
    COST,
    MAIZE,
    QUINOA,
    WORST,
    end_of,
    raw_stream,
    receipt_id,
    settled,
    two_homes,
    vanish,
)
from tests.node.jobs.test_refusals import MALLORY, request


async def refusal_of(home: Home) -> Failure:
    (failure,) = (await end_of(home)).failures
    assert failure.code is Code.UNPAID
    return failure


async def test_who_owes_is_refused_until_the_certificate_comes(autojump_clock, tmp_path):
    world = World()
    world.ledgers.prompt = False
    world.cap = COST + WORST - 1
    async with two_homes(tmp_path, world) as (maize, quinoa):
        first = await end_of(quinoa)
        assert (first.reason, first.cost) == ("stop", COST), "waiting witnesses stop no answer"
        await settled()
        assert list(quinoa.billing.dues()) == [Due(MAIZE, COST, receipt_id(first), handed=True)]
        (debt,) = maize.billing.owed()
        assert (debt.account, debt.amount, debt.unproven) == (QUINOA, COST, 0)
        failure = await refusal_of(quinoa)
        assert failure.retry_ms > 0
        for amount in (COST, WORST, world.cap):
            assert credits_text(amount) in failure.sentence
        world.ledgers.certify()
        await settled()
        assert (list(quinoa.billing.dues()), list(maize.billing.owed())) == ([], [])
        assert (await end_of(quinoa)).reason == "stop"


async def test_debts_are_remembered_over_a_restart(autojump_clock, tmp_path):
    world = World()
    world.ledgers.prompt = False
    world.cap = COST + WORST - 1
    async with two_homes(tmp_path, world) as (_, quinoa):
        await end_of(quinoa)
        await settled()
    async with two_homes(tmp_path, world) as (maize, quinoa):
        await refusal_of(quinoa)
        assert [debt.amount for debt in maize.billing.owed()] == [COST]
    world.ledgers.certify()  # While both sleep.
    async with two_homes(tmp_path, world) as (maize, quinoa):
        await settled()
        assert list(maize.billing.owed()) == []
        assert (await end_of(quinoa)).reason == "stop"


async def test_running_orders_count_as_what_they_may_cost(autojump_clock, tmp_path):
    world = World()
    world.cap = 2 * WORST - 1
    ends: list[Finished] = []
    async with two_homes(tmp_path, world) as (_, quinoa):

        async def ask() -> None:
            ends.append(await end_of(quinoa))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        assert [one.code for one in ends[0].failures] == [Code.UNPAID]
        assert ends[1].reason == "stop"
        assert (await end_of(quinoa)).reason == "stop", "and no longer than they run"


async def test_a_job_that_is_too_large_to_be_lent_is_refused_for_good(autojump_clock, tmp_path):
    world = World()
    world.cap = WORST - 1
    async with two_homes(tmp_path, world) as (maize, quinoa):
        failure = await refusal_of(quinoa)
        assert failure.retry_ms == 0, "no waiting mends it"
        assert "fewer tokens" in failure.sentence
        assert maize.inference.tasks == []
        assert (await end_of(quinoa, job(quinoa, tokens=50))).reason == "stop"


async def test_what_is_owed_without_proof_is_named_with_its_remedy(autojump_clock, tmp_path):
    world = World()
    world.cap = WORST
    async with open_home(world, "maize", tmp_path, lambda task: WORDS) as maize:
        await vanish(world, maize, identity("quinoa"))
    async with two_homes(tmp_path, world) as (maize, quinoa):
        (debt,) = maize.billing.owed()
        assert debt.amount == debt.unproven > 0
        failure = await refusal_of(quinoa)
        assert f"{credits_text(debt.amount)} of it" in failure.sentence
        world.ledgers.pay(QUINOA, MAIZE, debt.amount, bytes(32))
        await settled()
        assert (await end_of(quinoa)).reason == "stop"


async def test_a_requester_without_the_balance_is_looked_up_and_then_refused(
    autojump_clock, tmp_path
):
    world = World()
    world.ledgers.allocations[MALLORY.node] = 3
    async with two_homes(tmp_path, world) as (maize, quinoa):
        async with raw_stream(world, maize, MALLORY) as raw:
            await raw.say(request(maize, output_tokens_max=100))
            said = await raw.hear()
            assert isinstance(said, Refuse)
            assert (said.code, said.retry_ms > 0) == (Code.UNPAID, True)
            assert credits_text(3) in said.sentence
        assert maize.ledger.asked == [MALLORY.node]
        # Credits that have come since are seen at the next request, whatever was known before.
        await quinoa.ledger.pay(MALLORY.node, 1_000_000, bytes(32))
        world.ledgers.claim(MALLORY.node)
        async with raw_stream(world, maize, MALLORY) as raw:
            await raw.say(request(maize, output_tokens_max=100, job=JobId(bytes(15) + b"2")))
            assert isinstance(await raw.hear(), Quote)


async def test_a_known_balance_is_refreshed_beside_the_quote_once_a_minute(
    autojump_clock, tmp_path
):
    async with two_homes(tmp_path, World()) as (maize, quinoa):
        for _ in range(3):
            await end_of(quinoa)
        assert maize.ledger.asked == [QUINOA]
        await trio.sleep(60)
        await end_of(quinoa)
        assert maize.ledger.asked == [QUINOA, QUINOA]
