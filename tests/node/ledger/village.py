"""Nodes with ledgers on a network in memory: they can crash, come back, and be stood in for."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import trio

from node.ledger import audit, journal
from node.ledger.base import ChannelFacts, Income
from node.ledger.service import NodeLedger, Settings, Surroundings, open_ledger
from node.network.base import Network
from node.network.memory import MemoryNetwork, MemoryWorld
from node.network.quota import Quotas
from node.storage.database import Database, open_database
from protocol.envelope import Signed
from protocol.identity import Identity, Seed
from protocol.ids import MessageId, NodeId, node_text
from protocol.ledger.audit import Depth
from protocol.ledger.charter import Charter, charter
from protocol.ledger.genesis import genesis_made

WITNESSES = sorted(
    (Identity(Seed(bytes([100 + number]) * 32)) for number in range(4)), key=lambda one: one.node
)
ANNA, BRUNO, CLARA = (Identity(Seed(bytes([number]) * 32)) for number in (1, 2, 3))
START = 1_000
NOTHING = bytes(32)
GRACE_MS, WINDOW_MS = 2_000, 4_000
EPOCH_MS = 1_700_000_000_000
SETTINGS = Settings(
    journal=journal.Settings(claim_sources=3, claim_seconds=20, agree_seconds=2),
    audit=audit.Settings(round_seconds=15),
)
STEPS = ("pay.queued", "entry.signed", "entry.certified", "payee.told", "income.stored")


def rules() -> Charter:
    """Anna, Bruno and the first two witnesses have 1,000 each; Clara nothing."""
    rich = [ANNA, BRUNO, *WITNESSES[:2]]
    return charter(
        genesis_made(
            "ayllu",
            bytes(16),
            {identity.node: START for identity in rich},
            {identity.node for identity in WITNESSES},
            grace_ms=GRACE_MS,
            window_ms=WINDOW_MS,
        )
    )


async def dial(network: Network, node: NodeId) -> None:
    await network.connect(f"/memory/x/p2p/{node_text(node)}")


class Notes:
    """The vouchers of a payee, which survive it, and who asked it to settle."""

    def __init__(self) -> None:
        self.held: dict[MessageId, Signed] = {}
        self.asked: list[MessageId] = []

    def best(self, channel: MessageId) -> Signed | None:
        return self.held.get(channel)

    def wanted(self, channel: MessageId) -> None:
        self.asked.append(channel)


class Home:
    """One node: its disk stays, its process comes and goes."""

    def __init__(self, village: "Village", identity: Identity) -> None:
        self.village, self.identity, self.node = village, identity, identity.node
        self.file = village.folder / identity.node.hex()[:8] / "ayni.db"
        self.incomes: list[Income] = []
        self.at_step: Callable[[str], Awaitable[None]] | None = None
        self.settings = SETTINGS
        self.skew_ms = 0
        self.is_clock_trusted = True
        self.vouchers = Notes()
        self.channels: dict[MessageId, ChannelFacts] = {}
        self.ledger: NodeLedger
        self.network: MemoryNetwork
        self.database: Database
        self.is_up = False
        self._scope = trio.CancelScope()
        self._over = trio.Event()

    async def up(self) -> NodeLedger:
        """Start it, with connections to all that are up."""
        assert not self.is_up
        self._over = trio.Event()
        await self.village.nursery.start(self._live)
        return self.ledger

    async def crash(self) -> None:
        """Be gone at once; what is on disk stays."""
        if self.is_up:
            self.network.kill()
            self._scope.cancel()
        await self._over.wait()

    async def crash_and_lose(self) -> None:
        """Crash, and keep no byte that was not on disk at this moment."""
        kept = self.copy("crash")
        await self.crash()
        self.restore(kept)

    def copy(self, name: str) -> Path:
        """A copy of the disk as it is now."""
        to = self.file.parent.with_name(f"{self.file.parent.name}-{name}")
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.file.parent, to)
        return to

    def restore(self, kept: Path) -> None:
        """Put a copy in the place of the disk."""
        assert not self.is_up
        shutil.rmtree(self.file.parent)
        shutil.copytree(kept, self.file.parent)

    async def _live(self, task_status: trio.TaskStatus[None]) -> None:
        village = self.village
        try:
            with trio.CancelScope() as self._scope:
                quotas = Quotas()
                async with (
                    open_database(self.file, inline=village.inline) as self.database,
                    village.world.open_network(self.node, quotas) as self.network,
                ):
                    around = Surroundings(
                        network=self.network,
                        quotas=quotas,
                        database=self.database,
                        connect=lambda node: dial(self.network, node),
                        random_bytes=village.chance.randbytes,
                        wall_ms=self.wall_ms,
                        clock_trusted=lambda: self.is_clock_trusted,
                        steps=self._step,
                    )
                    self.ledger = await open_ledger(
                        village.charter, self.identity, around, self.settings
                    )
                    self.incomes = []
                    self.ledger.watch_income(self.incomes.append)
                    self.channels = {}
                    self.ledger.watch_channels(self._note)
                    self.ledger.keep_vouchers(self.vouchers)
                    await self._run(task_status)
        finally:
            self.is_up = False
            self._over.set()

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.ledger.run)
            self.is_up = True
            for other in self.village.homes.values():
                if other is not self and other.is_up:
                    await dial(self.network, other.node)
            task_status.started()

    def wall_ms(self) -> int:
        """This home's clock, which may be wrong."""
        return EPOCH_MS + round(trio.current_time() * 1000) + self.skew_ms

    def _note(self, facts: ChannelFacts) -> None:
        self.channels[facts.id] = facts

    async def _step(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.at_step is not None:
            await self.at_step(name)

    @property
    def balance(self) -> int:
        return self.ledger.standing().balance


class Village:
    """A few homes in one world; made by open_village."""

    def __init__(self, folder: Path, nursery: trio.Nursery, seed: int, *, inline: bool) -> None:
        self.folder, self.nursery, self.inline = folder, nursery, inline
        self.charter = rules()
        self.world = MemoryWorld()
        self.chance = Random(seed)
        self.homes: dict[NodeId, Home] = {}

    def home(self, identity: Identity) -> Home:
        return self.homes.setdefault(identity.node, Home(self, identity))

    async def up(self, *identities: Identity) -> list[Home]:
        homes = [self.home(identity) for identity in identities]
        for home in homes:
            await home.up()
        return homes

    async def up_all(self) -> None:
        for home in self.homes.values():
            if not home.is_up:
                await home.up()

    async def total(self) -> int:
        """What M2 adds up to, from Anna's to the last: each by its own store, incomes included,
        and what is in channels that are not settled."""
        homes = list(self.homes.values())
        assert all(home.is_up for home in homes)
        known = sum(home.ledger.standing().balance for home in homes)
        known += sum(home.ledger.standing().claimable for home in homes)
        known += sum(
            facts.funding
            for home in homes
            for facts in home.ledger.channels()
            if facts.payer == home.node and facts.settled is None
        )
        away = set(self.charter.allocations) - set(self.homes)
        return known + sum(self.charter.allocations[node] for node in away)


@asynccontextmanager
async def open_village(
    folder: Path, seed: int = 0, *, inline: bool = True
) -> AsyncIterator[Village]:
    async with trio.open_nursery() as nursery:
        yield Village(folder, nursery, seed, inline=inline)
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool], seconds: float = 3_600) -> None:
    """Wait, on a clock that jumps, for what must come about."""

    async def holds() -> bool:
        return condition()

    await until_async(holds, seconds)


async def until_async(condition: Callable[[], Awaitable[bool]], seconds: float = 3_600) -> None:
    """As `until`, for what must be looked up."""
    with trio.fail_after(seconds):
        while True:
            if await condition():
                return
            await trio.sleep(0.25)


async def verified(homes: Iterable[Home]) -> None:
    """Every home's own store holds, from its bytes on."""
    for home in homes:
        report = await home.ledger.views.verify(Depth.FULL)
        assert report.ok, report.faults


class CrashAt:
    """Crashes a home when it reaches a step for the n-th time, and brings it back after a while
    with exactly the bytes that were on disk then."""

    def __init__(self, home: Home, step: str, count: int = 1, away_seconds: float = 5) -> None:
        self.home, self.step, self.left, self.away_seconds = home, step, count, away_seconds
        self.crashed = trio.Event()
        self.back = trio.Event()

    async def __call__(self, name: str) -> None:
        if name != self.step or self.crashed.is_set():
            return
        self.left -= 1
        if self.left > 0:
            return
        self.crashed.set()
        kept = self.home.copy("crash")
        self.home.network.kill()
        self.home.village.nursery.start_soon(self._return, kept)
        await trio.sleep_forever()

    async def _return(self, kept: Path) -> None:
        await self.home.crash()
        self.home.restore(kept)
        await trio.sleep(self.away_seconds)
        await self.home.up()
        self.back.set()
