"""Wall clocks that jump by a day or more, on any side, in the middle of a channel's life."""

import pytest
import trio

from node.simulator.determinism import run
from protocol.errors import Code, LocalError
from tests.recovery.mortal_life import LIFE_MS, Life, check_chains, check_quiet, settled_down
from tests.recovery.mortal_world import World, open_world, until

DAY_MS = 86_400_000
WHO = ("payer", "payee", "witness")


FAR = [pytest.param(sign * 2 * LIFE_MS, marks=pytest.mark.slow) for sign in (1, -1)]


@pytest.mark.parametrize("jump_ms", [DAY_MS, -DAY_MS, *FAR])
@pytest.mark.parametrize("who", WHO)
def test_no_money_is_lost_and_all_goes_on_without_a_restart(who: str, jump_ms: int) -> None:
    async def main() -> None:
        async with open_world() as world:
            await settled_down(world)
            await lived_through(world, who, jump_ms)

    run(main, b"clocks")


async def lived_through(world: World, who: str, jump_ms: int) -> None:
    life = Life(world, 1)
    for deed in (life.pay, life.open, life.top_up, life.show, life.work):
        await deed()
    counted = life.counted
    world.named(who).skew_ms = jump_ms
    if abs(jump_ms) < LIFE_MS:
        await life.work()
        assert life.counted >= counted
        await life.settle()
    else:  # Whoever believes it to be over does not work on it, and waits for its turn.
        await trio.sleep(120)
    world.named(who).skew_ms = 0
    await life.settle()
    await life.over()
    await settled_down(world)
    await check_quiet(world, [life])
    another = Life(world, 2)
    for deed in (another.pay, another.open, another.top_up, another.show, another.work):
        await deed()
    assert another.counted > 0
    await another.settle()
    await another.over()
    await settled_down(world)
    await check_quiet(world, [life, another])
    await check_chains(world)


def test_a_payee_that_believes_it_is_late_takes_no_work_and_settles_what_it_has() -> None:
    async def main() -> None:
        async with open_world() as world:
            await settled_down(world)
            life = Life(world, 1)
            for deed in (life.pay, life.open, life.top_up, life.show, life.work):
                await deed()
            world.payee.skew_ms = LIFE_MS
            with pytest.raises(LocalError) as refused:
                async with world.payee.channels.payee.earn(world.payer.node, life.channel):
                    pass
            assert refused.value.code is Code.CHANNEL_CLOSED

            def is_settled() -> bool:
                facts = life.facts(world.payee)
                return facts is not None and facts.is_claimed

            await until(is_settled, "it settles by itself")
            await life.over()
            await settled_down(world)
            await check_quiet(world, [life])

    run(main, b"clocks")


@pytest.mark.parametrize("ahead_ms", [2 * LIFE_MS, -2 * LIFE_MS])
def test_witnesses_with_a_wrong_clock_hold_up_a_late_turn_and_no_more(ahead_ms: int) -> None:
    """A turn after the expiry goes by their clocks: with two wrong it waits, and is over when
    one of them is right again."""

    async def main() -> None:
        async with open_world() as world:
            await settled_down(world)
            life = Life(world, 1, 30 * 2_000)
            for deed in (life.pay, life.open, life.top_up, life.show):
                await deed()
            await settled_down(world)
            world.payee.die()
            await world.payee.gone()
            for witness in world.witnesses[:2]:
                witness.skew_ms = ahead_ms
            facts = life.facts(world.payer)
            assert facts is not None
            end_ms = facts.expiry_ms + 60_000
            await until(lambda: world.wall_ms() > end_ms, "two turns are over")
            facts = life.facts(world.payer)
            assert facts is not None
            assert facts.settled is None
            world.witnesses[0].skew_ms = 0

            def is_settled() -> bool:
                facts = life.facts(world.payer)
                return facts is not None and facts.is_claimed

            await until(is_settled, "the payer's next turn")
            await world.payee.up()
            await life.over()
            await settled_down(world)
            await check_quiet(world, [life])

    run(main, b"clocks")
