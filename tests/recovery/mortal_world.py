"""A small network in one process, each of whose nodes can die at any point and come back.

A point is where a crash could make a difference: before and after each commit, at each named
durable step, before each message that the node sends. A node that dies there is gone within the
same call: nothing more of it is committed, sent or answered. What it has committed is all that it
has when it comes back.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final

import trio

from node.app.recovery import OldChannels, bring_vouchers_back
from node.channels import policy
from node.channels.own import Around
from node.channels.service import Channels, open_channels
from node.ledger import journal
from node.ledger.service import NodeLedger, Settings, Surroundings, open_ledger
from node.network.memory import Listener, MemoryNetwork, MemoryWorld
from node.network.quota import Quotas
from node.storage.channels import VoucherStore, no_copy
from node.storage.database import Database
from node.storage.voucher_copy import VoucherCopy
from node.supervise import supervise
from protocol.identity import Identity, Seed
from protocol.ids import NodeId, node_text
from protocol.ledger.charter import Charter, charter
from protocol.ledger.genesis import genesis_made
from tests.recovery.mortal_disk import MortalDisk

WITNESSES: Final = sorted(
    (Identity(Seed(bytes([100 + number]) * 32)) for number in range(4)), key=lambda one: one.node
)
PAYER, PAYEE, OUTSIDER = (Identity(Seed(bytes([number]) * 32)) for number in (1, 2, 4))
START: Final = 1_000_000
GRACE_MS: Final = 2_000
WINDOW_MS: Final = 20_000
BEGIN_MS: Final = 1_795_467_821_000  # When trio's clock says 0.
CHUNK_COST: Final = 10
SETTINGS: Final = Settings(
    journal=journal.Settings(claim_sources=64, claim_seconds=3, agree_seconds=1)
)
LIMITS: Final = policy.Limits(
    idle_ms=10**12, deposit_percent=0, locked_percent=0, settle_above=10**12, settle_percent=10**9
)
"""Nothing by itself: what is opened, topped up and settled is asked for here."""
AWAY_SECONDS: Final = 3.0
TRUSTED_MS: Final = 60_000


def rules() -> Charter:
    """Payer and payee have a million each, and so has somebody who runs no node."""
    return charter(
        genesis_made(
            "ayllu",
            bytes(16),
            {one.node: START for one in (PAYER, PAYEE, OUTSIDER)},
            {identity.node for identity in WITNESSES},
            grace_ms=GRACE_MS,
            window_ms=WINDOW_MS,
        )
    )


@dataclass
class Doom:
    """Where a node dies: at its `left`-th point from now, of those with a name if one is given."""

    left: int
    name: str = ""
    point: str = ""
    """Which it was; "" while it lives."""


@dataclass
class Home:
    """One node. Its disk stays, its processes come and go."""

    world: "World"
    identity: Identity
    disk: MortalDisk = field(default_factory=MortalDisk)
    copy: VoucherCopy | None = None
    doom: Doom | None = None
    at_step: Callable[[str], Awaitable[None]] | None = None
    skew_ms: int = 0
    """By how much its wall clock is ahead."""
    limits: policy.Limits = LIMITS
    chunk_cost: int = CHUNK_COST
    also: Callable[["Home", Quotas], None] | None = None
    """Puts more parts into each of its processes, once the ledger and channels are there."""
    points: Counter[str] = field(default_factory=Counter)
    """How many of each kind it has passed."""
    deaths: int = 0
    is_up: bool = False
    is_whole: bool = False
    """Whether all its parts run."""
    ledger: NodeLedger = field(init=False)
    channels: Channels = field(init=False)
    network: MemoryNetwork = field(init=False)
    database: Database = field(init=False)

    def __post_init__(self) -> None:
        self.node = self.identity.node
        self.scope = trio.CancelScope()
        self.ends_with_it: list[trio.CancelScope] = []
        """Of what others do with this process."""
        self._over, self._begun = trio.Event(), trio.Event()

    def wall_ms(self) -> int:
        return self.world.wall_ms() + self.skew_ms

    async def up(self) -> None:
        """Start it, with connections to all that are up; it may die while it starts."""
        assert not self.is_up
        self._over, self._begun = trio.Event(), trio.Event()
        self.world.nursery.start_soon(self._live)
        await self._begun.wait()

    def die(self) -> None:
        """Be gone within this call."""
        if self.is_up:
            self.is_up = self.is_whole = False
            self.deaths += 1
            self.disk.die()
            self.network.kill()
            self.scope.cancel()
            for scope in self.ends_with_it:
                scope.cancel()
            self.ends_with_it.clear()

    async def comes_back(self, disk: MortalDisk | None = None) -> None:
        """Die here, and start again, if need be with another disk."""
        self.die()
        await self.gone()
        self.disk = self.disk if disk is None else disk
        await self.up()

    async def gone(self) -> None:
        """Wait until no task of the dead process is left."""
        await self._over.wait()

    def passes(self, point: str) -> None:
        """The node is at a point; it may be its last."""
        if not self.is_up:
            return
        self.points[point] += 1
        doom = self.doom
        if doom is None or doom.point or doom.name not in ("", point):
            return
        doom.left -= 1
        if doom.left <= 0:
            doom.point = point
            self.die()
            self.world.nursery.start_soon(self._return)

    async def _return(self) -> None:
        await self.gone()
        await trio.sleep(AWAY_SECONDS)
        await self.up()

    async def _live(self) -> None:
        world = self.world
        with trio.CancelScope() as self.scope:
            quotas = Quotas()
            async with (
                world.memory.open_network(self.node, quotas) as self.network,
                self.disk.open(lambda when: self.passes(f"{when} a commit")) as database,
                trio.open_nursery() as nursery,
            ):
                self.is_up = True  # Points pass from now on, also while it starts.
                self.ledger = await open_ledger(
                    world.charter,
                    self.identity,
                    Surroundings(
                        network=self.network,
                        quotas=quotas,
                        database=database,
                        connect=self._dial,
                        random_bytes=world.chance.randbytes,
                        steps=self._step,
                        wall_ms=self.wall_ms,
                        clock_trusted=lambda: abs(self.skew_ms) <= TRUSTED_MS,
                    ),
                    SETTINGS,
                )
                around = Around(
                    self.identity, world.charter, self.ledger, self.wall_ms, self.limits
                )
                store = VoucherStore(database, self.copy or no_copy)
                if self.copy is not None:
                    self.copy.live = store.vouchers
                await bring_vouchers_back(database, store, self.copy, world.charter.network)
                self.channels = await open_channels(
                    around, store, lambda: self.chunk_cost, self._step
                )
                old = OldChannels(database, self.ledger, self.channels, around)
                await old.load()
                self.database = database
                if self.also is not None:
                    self.also(self, quotas)
                # As `node.app.run` does it: a part that fails is started again.
                nursery.start_soon(supervise, "ledger", self.ledger.run)
                nursery.start_soon(supervise, "channels", self.channels.run)
                nursery.start_soon(supervise, "recovery", old.run)
                for other in world.homes.values():
                    if other is not self and other.is_up:
                        await self._dial(other.node)
                self.is_whole = True
                self._begun.set()
                await trio.sleep_forever()
        assert not self.is_up, "it ends by dying"
        self._begun.set()
        self._over.set()

    async def _dial(self, node: NodeId) -> None:
        await self.network.connect(f"/memory/x/p2p/{node_text(node)}")

    async def _step(self, name: str) -> None:
        if self.at_step is not None:
            await self.at_step(name)
        self.passes(f"step {name}")
        await trio.lowlevel.checkpoint()


class World:
    """Made by open_world."""

    def __init__(self, nursery: trio.Nursery, seed: int) -> None:
        self.nursery, self.chance = nursery, Random(seed)
        self.charter = rules()
        self.memory = MemoryWorld(listener=self._said)
        self.hear: Listener = self.points_of
        """Told of all that is said, before it goes; it may let nodes die."""
        self.homes: dict[NodeId, Home] = {}
        for identity in (*WITNESSES, PAYER, PAYEE):
            self.homes[identity.node] = Home(self, identity)
        self.payer, self.payee = self.homes[PAYER.node], self.homes[PAYEE.node]
        self.witnesses = [self.homes[identity.node] for identity in WITNESSES]

    def named(self, name: str) -> Home:
        """The payer, the payee, or a witness."""
        return {"payer": self.payer, "payee": self.payee, "witness": self.witnesses[0]}[name]

    def wall_ms(self) -> int:
        return BEGIN_MS + round(trio.current_time() * 1000)

    def points_of(self, sender: NodeId, _receiver: NodeId, _protocol: str, _data: bytes) -> None:
        """Each message is one."""
        self.homes[sender].passes("before a message")

    def _said(self, sender: NodeId, receiver: NodeId, protocol: str, data: bytes) -> None:
        self.hear(sender, receiver, protocol, data)

    async def up(self) -> None:
        for home in self.homes.values():
            if not home.is_up:
                await home.up()


@asynccontextmanager
async def open_world(seed: int = 0) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        world = World(nursery, seed)
        await world.up()
        try:
            yield world
        finally:
            for home in world.homes.values():
                home.doom = None
                home.die()
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool], what: str, seconds: float = 600) -> None:
    """Wait, on a clock that jumps, for what must come about."""
    end = trio.current_time() + seconds
    while not condition():
        assert trio.current_time() < end, f"it never came about: {what}"
        await trio.sleep(0.5)
