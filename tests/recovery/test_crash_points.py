"""Nodes die at each point of a channel's life, come back, and not one micro-credit is wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import pytest

from node.simulator.determinism import run
from tests.recovery.mortal_life import Life, check_chains, check_quiet, settled_down
from tests.recovery.mortal_world import Doom, World, open_world

LIVES_A_WORLD = 16
VICTIMS = ("payer", "payee", "witness")

Plan = Mapping[str, Doom]
"""Where each victim dies in one life."""


async def lived(world: World, number: int) -> Life:
    """A payment, and a channel from its opening to both claims."""
    life = Life(world, number)
    await life.pay()
    await life.open()
    await life.top_up()
    await life.show()
    await life.work()
    await life.settle()
    await life.over()
    await settled_down(world)
    return life


async def died_at(plans: Sequence[Plan]) -> Counter[str]:
    """Let the victims die at their points, a life for each plan; the points that it came to."""
    came: Counter[str] = Counter()
    async with open_world() as world:
        await settled_down(world)
        lives: list[Life] = []
        for number, plan in enumerate(plans, 1):
            for name, doom in plan.items():
                world.named(name).doom = doom
            try:
                lives.append(await lived(world, number))
                await check_quiet(world, lives)
            except BaseException as error:
                error.add_note(f"life {number} of {len(plans)}, with the deaths {plan}")
                raise
            for name, doom in plan.items():
                world.named(name).doom = None
                came[f"{name} {doom.point}"] += bool(doom.point)
        await check_chains(world)
    return came


async def points_of_a_life(victim: str) -> int:
    """How many points a victim passes in a life that nothing disturbs."""
    async with open_world() as world:
        await settled_down(world)
        await lived(world, 1)  # The first one has more of them, since nobody knows anybody yet.
        before = world.named(victim).points.total()
        await lived(world, 2)
        return world.named(victim).points.total() - before


async def all_die(plans: Sequence[Plan]) -> Counter[str]:
    came: Counter[str] = Counter()
    for start in range(0, len(plans), LIVES_A_WORLD):
        came += await died_at(plans[start : start + LIVES_A_WORLD])
    return came


async def each_at_all_of_its_points() -> tuple[int, Counter[str]]:
    """All victims die once in each life, so that each is a hard one; every point of each comes."""
    counts = {victim: await points_of_a_life(victim) for victim in VICTIMS}
    plans: list[Plan] = [
        {victim: Doom(number) for victim, count in counts.items() if number <= count}
        for number in range(1, max(counts.values()) + 1)
    ]
    return sum(counts.values()), await all_die(plans)


def test_they_die_anywhere_and_nothing_is_lost_or_made() -> None:
    planned, came = run(each_at_all_of_its_points, b"all of them")
    # Who dies early makes the others' lives a little shorter or longer.
    assert came.total() > 0.9 * planned > 180, (planned, came)


STEPS = {
    "payer": (
        "pay.queued",
        "open.queued",
        "topup.queued",
        "entry.signed",
        "entry.certified",
        "payee.told",
        "settlement.stored",
    ),
    "payee": (
        "income.stored",
        "channel.stored",
        "voucher.stored",
        "proposal.stored",
        "prepare.made",
        "settlement.stored",
        "entry.signed",
        "entry.certified",
    ),
    "witness": ("vote.stored", "seat.stored"),
}


async def at_each_step(victim: str) -> Counter[str]:
    return await all_die([{victim: Doom(1, f"step {name}")} for name in STEPS[victim]])


@pytest.mark.parametrize("victim", VICTIMS)
def test_each_dies_at_each_durable_step(victim: str) -> None:
    came = run(partial(at_each_step, victim), victim.encode())
    assert came == {f"{victim} step {name}": 1 for name in STEPS[victim]}


async def one_by_one(victim: str, stride: int, first: int) -> tuple[int, Counter[str]]:
    points = range(1 + first, await points_of_a_life(victim) + 1, stride)
    return len(points), await all_die([{victim: Doom(point)} for point in points])


@pytest.mark.slow
@pytest.mark.parametrize("victim", VICTIMS)
def test_each_alone_dies_anywhere(victim: str) -> None:
    planned, came = run(partial(one_by_one, victim, 1, 0), victim.encode())
    assert came.total() > 0.95 * planned
