"""Deliberate mistakes: the checks of this folder find each of them."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from node.simulator.determinism import run
from tests.recovery.mortal_life import GIFT, Life, check_quiet, settled_down
from tests.recovery.mortal_world import World, open_world


async def forgetful_disk(world: World, life: Life) -> None:
    """A disk that says "written" of what is in its cache only, and loses power."""
    behind = world.payee.disk.copy()
    await life.work()
    await world.payee.comes_back(behind)


async def paid_twice(world: World, life: Life) -> None:
    """A bill that is handed over anew under another reference, as after a lost answer."""
    await life.work()
    await world.payer.ledger.pay(world.payee.node, GIFT, bytes([9]) * 32)


async def signs_for_nothing(world: World, life: Life) -> None:
    """A payer that signs more than it was given."""
    await life.work()
    payer, payee = world.payer.channels.payer, world.payee.channels.payee
    async with (
        payer.spend(world.payee.node, 40) as spending,
        payee.earn(world.payer.node, life.channel) as earning,
    ):
        voucher = spending.voucher(life.channel, 0, 40)
        assert voucher is not None
        await earning.count(voucher)


async def two_homes(world: World, life: Life) -> None:
    """A copy of the payer's disk is started, and signs in the place of what it does not know."""
    copy = world.payer.disk.copy()
    await life.work()
    # All witnesses but one hear of it only when it is too late.
    for witness in world.witnesses[1:]:
        witness.die()
        await witness.gone()
    await world.payer.ledger.pay(world.payee.node, 1, bytes([7]) * 32)
    await settled_entry(world)
    await world.payer.comes_back(copy)
    world.witnesses[0].die()
    await world.witnesses[0].gone()
    for witness in world.witnesses[1:]:
        await witness.up()
    await world.payer.ledger.override()
    await world.payer.ledger.pay(world.payee.node, 2, bytes([8]) * 32)
    await settled_entry(world)
    await world.witnesses[0].up()


async def settled_entry(world: World) -> None:
    await trio.sleep(30)
    assert world.payer.ledger.waiting() or world.payer.ledger.standing().seq


FOUND = [
    (forgetful_disk, "what was counted is paid"),
    (paid_twice, "nothing is paid twice"),
    (signs_for_nothing, "has not signed"),
    (two_homes, "two things for one place"),
]


async def made(mistake: Callable[[World, Life], Awaitable[None]]) -> None:
    async with open_world() as world:
        await settled_down(world)
        life = Life(world, 1)
        for deed in (life.pay, life.open, life.top_up, life.show):
            await deed()
        await settled_down(world)
        await mistake(world, life)
        await life.settle()
        await life.over()
        await settled_down(world)
        await check_quiet(world, [life])


@pytest.mark.parametrize(("mistake", "words"), FOUND)
def test_it_is_found(mistake: Callable[[World, Life], Awaitable[None]], words: str) -> None:
    with pytest.raises(ExceptionGroup) as found:
        run(lambda: made(mistake), b"mistake")
    assert found.group_contains(AssertionError, match=words)
