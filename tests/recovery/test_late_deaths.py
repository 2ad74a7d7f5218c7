"""A payee that is away when its channel expires, and deaths while its payer takes its turn."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest

from node.simulator.determinism import run
from tests.recovery.mortal_life import SHORT_LIFE_MS, Life, check_chains, check_quiet, settled_down
from tests.recovery.mortal_world import Doom, World, open_world, until

LIVES_A_WORLD = 8
STEPS = ("proposal.stored", "prepare.made", "settlement.stored", "entry.signed")


async def left(world: World, number: int) -> Life:
    """A channel that is worked on, and then its payee goes and does not come back in time."""
    life = Life(world, number, SHORT_LIFE_MS)
    for deed in (life.pay, life.open, life.top_up, life.show, life.work):
        await deed()
    assert life.counted
    await settled_down(world)
    world.payee.die()
    await world.payee.gone()
    return life


async def taken_back(world: World, life: Life) -> None:
    """The payer takes its turn; then the payee is back and hears of it."""

    def is_settled() -> bool:
        facts = life.facts(world.payer) if world.payer.is_whole else None
        return facts is not None and facts.is_claimed

    await until(is_settled, "the payer has its rest")
    await world.payee.up()
    await life.over()
    await settled_down(world)


async def died_at(victim: str, dooms: Sequence[Doom]) -> Counter[str]:
    came: Counter[str] = Counter()
    async with open_world() as world:
        await settled_down(world)
        lives: list[Life] = []
        for number, doom in enumerate(dooms, 1):
            life = await left(world, number)
            lives.append(life)
            # Nobody spoke for the payee before the payer's turn, so all is the payer's.
            life.counted, life.signed = 0, 0
            world.named(victim).doom = doom
            try:
                await taken_back(world, life)
                await check_quiet(world, lives)
            except BaseException as error:
                error.add_note(f"life {number}, {victim} with {doom}")
                raise
            world.named(victim).doom = None
            came[doom.point] += bool(doom.point)
        await check_chains(world)
    return came


def test_the_payer_dies_at_each_step_of_its_turn() -> None:
    dooms = [Doom(1, f"step {name}") for name in STEPS]
    came = run(partial(died_at, "payer", dooms), b"late")
    assert came == {doom.name: 1 for doom in dooms}


def test_a_witness_dies_when_it_has_promised_and_when_it_has_prepared() -> None:
    dooms = [Doom(count, "step seat.stored") for count in (1, 2, 3)]
    came = run(partial(died_at, "witness", dooms), b"late")
    assert came == {"step seat.stored": 3}


async def points(victim: str) -> int:
    async with open_world() as world:
        await settled_down(world)
        life = await left(world, 1)
        before = world.named(victim).points.total()
        await taken_back(world, life)
        return world.named(victim).points.total() - before


async def every(victim: str) -> tuple[int, Counter[str]]:
    count, came = await points(victim), Counter[str]()
    for start in range(1, count + 1, LIVES_A_WORLD):
        numbers = range(start, min(start + LIVES_A_WORLD, count + 1))
        came += await died_at(victim, [Doom(number) for number in numbers])
    return count, came


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["payer", "witness"])
def test_they_die_anywhere_in_it(victim: str) -> None:
    count, came = run(partial(every, victim), victim.encode())
    assert came.total() > 0.8 * count > 20  # The first life of a world has more of them.
