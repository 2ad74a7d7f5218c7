"""A disk that takes nothing for a while, from any durable step on: nothing is lost, no restart."""

import sqlite3
from collections.abc import Callable

import pytest
import trio

from node.simulator.determinism import run
from node.storage.database import PROBE_SECONDS
from tests.recovery.mortal_life import Life, check_chains, check_quiet, settled_down
from tests.recovery.mortal_world import Home, World, open_world

AILS_SECONDS = 40.0
STEPS = [
    ("payer", "open.queued"),
    ("payer", "entry.signed"),
    ("payer", "entry.certified"),
    ("payee", "channel.stored"),
    ("payee", "voucher.stored"),
    ("payee", "proposal.stored"),
    ("payee", "prepare.made"),
    ("payee", "settlement.stored"),
    ("witness", "vote.stored"),
    ("witness", "seat.stored"),
]


def pragma(words: str) -> Callable[[sqlite3.Connection], None]:
    return lambda connection: connection.execute(f"PRAGMA {words}").close()


class Ailing:
    """The disk of a home is read-only for a while, from when it comes by a step first."""

    def __init__(self, home: Home, step: str) -> None:
        self.home, self.step = home, step
        self.is_over = trio.Event()
        self.told = ""

    async def __call__(self, name: str) -> None:
        if name == self.step and self.home.at_step is self:
            self.home.at_step = None
            await self.home.database.read(pragma("query_only = 1"))
            self.home.world.nursery.start_soon(self._mend)

    async def _mend(self) -> None:
        await trio.sleep(AILS_SECONDS)
        self.told = self.home.database.trouble
        await self.home.database.read(pragma("query_only = 0"))
        self.is_over.set()


async def lived(world: World, number: int, step: str, who: str) -> None:
    home = world.named(who)
    home.at_step = ailing = Ailing(home, step)
    life = Life(world, number)
    for deed in (life.pay, life.open, life.top_up, life.show, life.work, life.settle, life.over):
        await deed()
    await ailing.is_over.wait()
    await trio.sleep(2 * PROBE_SECONDS)
    await settled_down(world)
    assert "readonly" in ailing.told or not ailing.told
    assert home.database.trouble == ""
    assert home.deaths == 0
    await check_quiet(world, [life])
    await check_chains(world)


@pytest.mark.parametrize(("who", "step"), STEPS)
def test_it_goes_on_when_there_is_room_again(who: str, step: str) -> None:
    async def main() -> None:
        async with open_world() as world:
            await settled_down(world)
            await lived(world, 1, step, who)

    run(main, b"ailing")
