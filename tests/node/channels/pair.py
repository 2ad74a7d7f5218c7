"""Anna, who asks for jobs, and Bruno, who serves them: their channels over a scripted ledger."""

from contextlib import AsyncExitStack, asynccontextmanager

import trio

from node.channels.own import Around
from node.channels.policy import Limits
from node.channels.service import open_channels
from node.ledger.keeper import no_steps
from node.ledger.scripted import ScriptedLedger, ScriptedLedgers
from node.storage.channels import VoucherStore, no_copy
from node.storage.database import open_database
from protocol.identity import digest
from protocol.ids import MessageId
from protocol.ledger.charter import charter
from protocol.ledger.genesis import genesis_made
from tests.protocol.ledger.chains import ANNA, BRUNO, CLARA

EPOCH_MS = 1_700_000_000_000
RICH = 1_000_000_000
CHUNK_COST = 32
ORDER, QUOTE = MessageId(digest(b"order")), MessageId(digest(b"quote"))
RULES = charter(
    genesis_made(
        "pair", bytes(16), {one.node: RICH for one in (ANNA, BRUNO, CLARA)}, {CLARA.node},
        grace_ms=2_000, window_ms=4_000,
    )
)  # fmt: skip
LIMITS = Limits(life_ms=3_600_000, idle_ms=600_000)


class Clock:
    """The wall clock, which can jump."""

    def __init__(self) -> None:
        self.jumped_ms = 0

    def __call__(self) -> int:
        return EPOCH_MS + self.jumped_ms + round(trio.current_time() * 1000)


class Home:
    """One node's channels: `payer` and `payee`, and the ledger that they are on."""

    def __init__(self, identity, ledger, channels, store, database) -> None:
        self.identity, self.node, self.database = identity, identity.node, database
        self.ledger, self.channels, self.store = ledger, channels, store
        self.payer, self.payee = channels.payer, channels.payee


@asynccontextmanager
async def open_one(
    world, identity, tmp_path, clock, *, limits=LIMITS, runs=True, copy=no_copy, steps=no_steps
):
    """A home on its disk, which outlives it."""
    name = identity.node.hex()[:8]
    async with open_database(tmp_path / f"{name}.db", inline=True) as database:
        store = VoucherStore(database, copy)
        ledger = ScriptedLedger(world, identity.node)
        around = Around(identity, RULES, ledger, clock, limits)
        channels = await open_channels(around, store, lambda: CHUNK_COST, steps)
        async with trio.open_nursery() as nursery:
            if runs:
                nursery.start_soon(channels.run)
            yield Home(identity, ledger, channels, store, database)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def pair(tmp_path, **options):
    """The world, its clock, and both homes."""
    world, clock = ScriptedLedgers({one.node: RICH for one in (ANNA, BRUNO, CLARA)}), Clock()
    async with AsyncExitStack() as stack:
        anna = await stack.enter_async_context(open_one(world, ANNA, tmp_path, clock, **options))
        bruno = await stack.enter_async_context(open_one(world, BRUNO, tmp_path, clock, **options))
        yield world, clock, anna, bruno


def deliver(window, cost, order=ORDER):
    """One chunk goes out."""
    window.begin(order)
    window.close(order, cost)


async def quiet() -> None:
    """Whatever can go on by itself has."""
    await trio.sleep(5)
