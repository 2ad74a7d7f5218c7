"""Requester and provider die before and after each word and each durable step of a paid job."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from random import Random

import pytest

from node.simulator.determinism import run
from tests.recovery.job_life import SECOND, Plan, open_jobs
from tests.recovery.mortal_world import Doom

LIVES_A_WORLD = 24
VICTIMS = ("payer", "payee", "second")
POINTS_MAX = 32  # The fewest that any of them passes in a job is a little less.

# Of each kind of point, how often it comes in a job. "says" is before a word goes out, "hears" is
# when it has gone out and was not read. The order carries the prompt's voucher; of the previews
# of a chunk the first, and one in the middle of the next chunk, are enough.
POINTS = {
    "payer": {
        "says request": [1],
        "hears quote": [1],
        "says order": [1],
        "hears started": [1],
        "hears delta": [1, 7],
        "hears chunk": [1, 2, 3],
        "says voucher": [1, 2, 3],
        "hears receipt": [1],
        "says receipt": [1],
        "before a commit": [1],
        "after a commit": [1],
    },
    "payee": {
        "hears request": [1],
        "says quote": [1],
        "hears order": [1],
        "says started": [1],
        "says delta": [1, 7],
        "says chunk": [1, 2, 3],
        "hears voucher": [1, 2, 3],
        "before a commit": [1, 2, 3, 4, 5],
        "after a commit": [1, 2, 3, 4, 5],
        "step voucher.stored": [1, 2, 3, 4],
        "says receipt": [1],
        "hears receipt": [1],
    },
}


async def died_at(plans: Sequence[Plan]) -> Counter[str]:
    """Let them die, a job for each plan; the points that it came to, and what else came about."""
    came: Counter[str] = Counter()
    async with open_jobs() as jobs:
        for number, plan in enumerate(plans, 1):
            try:
                await jobs.lived(plan)
            except BaseException as error:
                error.add_note(f"job {number} of {len(plans)}, with the deaths {plan}")
                raise
            came.update(f"{name} {doom.point}" for name, doom in plan.items() if doom.point)
        orders = jobs.wire.of(jobs.world.payee.node)
        came["channels"] += len({order.channel for order in orders})
        came["lost"] += jobs.world.payee.channels.payee.lost
        came["served by the second"] += len(jobs.wire.of(SECOND.node))
        await jobs.settled()
    return came


async def all_die(plans: Sequence[Plan]) -> Counter[str]:
    came: Counter[str] = Counter()
    for start in range(0, len(plans), LIVES_A_WORLD):
        came += await died_at(plans[start : start + LIVES_A_WORLD])
    return came


def deaths(came: Counter[str]) -> Counter[str]:
    """Those alone."""
    return Counter({name: count for name, count in came.items() if name.split()[0] in VICTIMS})


@pytest.mark.parametrize("victim", POINTS)
def test_what_is_delivered_is_paid_at_whichever_word_somebody_dies(victim: str) -> None:
    points = POINTS[victim]
    plans = [{victim: Doom(count, name)} for name, counts in points.items() for count in counts]
    came = run(partial(all_die, plans), victim.encode())
    assert deaths(came) == {f"{victim} {name}": len(counts) for name, counts in points.items()}
    if victim == "payer":  # It is gone before it has signed, and twice on one channel that is all.
        assert came["lost"] > 0
        assert came["channels"] > 1
    else:  # Of which some die before they have started.
        assert came["served by the second"] > 0


def drawn(seed: int, count: int) -> list[Plan]:
    """Plans in which two or three die in one job, wherever that is."""
    chance, plans = Random(seed), []
    for _ in range(count):
        victims = chance.sample(VICTIMS, 2)
        plans.append({victim: Doom(chance.randint(1, POINTS_MAX)) for victim in victims})
    return plans


def test_what_is_delivered_is_paid_whoever_else_dies_in_the_same_job() -> None:
    came = run(partial(all_die, drawn(1, LIVES_A_WORLD)), b"two")
    assert deaths(came).total() > LIVES_A_WORLD


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_nor_does_it_matter_in_any_of_many(seed: int) -> None:
    came = run(partial(all_die, drawn(seed, 4 * LIVES_A_WORLD)), seed.to_bytes(2, "big"))
    assert deaths(came).total() > 4 * LIVES_A_WORLD


async def points_of_a_job(victim: str) -> int:
    """How many points a victim passes in a job that nothing disturbs."""
    async with open_jobs() as jobs:
        before = jobs.named(victim).points.total()
        await jobs.goes_well()
        return jobs.named(victim).points.total() - before


async def each_of_them(victim: str) -> tuple[int, Counter[str]]:
    count = await points_of_a_job(victim)
    return count, await all_die([{victim: Doom(number)} for number in range(1, count + 1)])


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["payer", "payee"])
def test_each_alone_dies_at_every_point(victim: str) -> None:
    count, came = run(partial(each_of_them, victim), victim.encode())
    assert deaths(came).total() == count > 25
