"""One simulated machine: its disk and its clock stay, its process comes and goes."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Final

import trio

from node.network.base import NetworkError
from node.network.memory import MemoryNetwork, MemoryWorld
from node.network.quota import Quotas
from node.simulator.determinism import EPOCH_MS
from node.simulator.pace import Pace
from node.simulator.parts import Build, Ground, Parts, address, compose
from node.simulator.trace import Trace
from node.storage.ledger import LedgerStore
from node.storage.simulated import SimulatedDisk
from node.supervise import background
from protocol.errors import LocalError
from protocol.identity import Identity
from protocol.ids import NodeId
from protocol.ledger.charter import Charter

AGAIN_SECONDS: Final = 5.0  # Until a process that could not start is started again.
DISK_SECONDS_MAX: Final = 0.02


class Machine:
    """Made by the world; it is up while `parts` is there."""

    def __init__(
        self,
        identity: Identity,
        charter: Charter,
        world: MemoryWorld,
        chance: Random,
        trace: Trace,
        *,
        build: Build,
        pace: Pace,
        neighbours: Sequence[NodeId],
    ) -> None:
        self.identity, self.node, self.charter = identity, identity.node, charter
        self.disk = SimulatedDisk(lambda: DISK_SECONDS_MAX * chance.random())
        self.skew_ms = 0
        self.jumps_ms: list[int] = []
        """By how much its clock has jumped besides; each for a while."""
        self.parts: Parts | None = None
        self.lives = 0
        self.was_restored = False
        """Whether its disk was ever an old copy: then it may sign twice for one place."""
        self.is_healed = False
        """Nothing befalls it any more."""
        self.is_down = False
        """It crashed, and is not to come back yet."""
        self._world, self._chance, self._trace = world, chance, trace
        self._build, self._pace, self._neighbours = build, pace, neighbours
        self._network: MemoryNetwork | None = None
        self._tasks: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._over = trio.Event()
        self._over.set()

    @property
    def wall_ms(self) -> int:
        """What its clock says, in milliseconds since 1970."""
        now_ms = EPOCH_MS + round(trio.current_time() * 1000)
        return now_ms + self.skew_ms + sum(self.jumps_ms)

    async def run(self) -> None:
        """Live, and start again whenever the process has ended, until cancelled."""
        while True:
            if self.is_down:
                await trio.sleep(AGAIN_SECONDS)
                continue
            with suppress(LocalError):  # The disk is full, say. Its owner starts it again.
                await self._live()
            await trio.sleep(AGAIN_SECONDS)

    def crash(self) -> None:
        """The process is gone at once, and what it had not committed with it."""
        self._trace.note("crash", self.node)
        self.disk.cut()
        self.disk.image = self._build.disk_image(self.disk.image)
        if self._network is not None:
            self._network.kill()
        self._scope.cancel()

    @property
    def store(self) -> LedgerStore | None:
        """What its ledger holds, while it is up; read apart from the process itself."""
        database = self.disk.database
        return None if database is None else LedgerStore(database, self.charter)

    @property
    def network(self) -> MemoryNetwork | None:
        """Its way to the others, while it is up."""
        return self._network

    def do(self, deed: Callable[[], Awaitable[None]]) -> None:
        """Something that the owner has the process do, if it is up; it ends with the process."""
        if self._tasks is not None:
            self._tasks.start_soon(deed)

    async def ended(self) -> None:
        """Wait until the process is gone."""
        await self._over.wait()

    async def _live(self) -> None:
        self._over = trio.Event()
        self.lives += 1
        quotas = Quotas()
        try:
            with trio.CancelScope() as self._scope:
                async with (
                    self.disk.open() as database,
                    self._world.open_network(self.node, quotas) as network,
                ):
                    self._network = network
                    ground = Ground(
                        self.identity,
                        self.charter,
                        network,
                        quotas,
                        database,
                        self._chance.randbytes,
                        lambda: self.wall_ms,
                        self._step,
                        self._pace.limits,
                        self._pace.ledger,
                    )
                    parts = await compose(ground, self._build)
                    async with background(*parts.running), trio.open_nursery() as self._tasks:
                        self.parts = parts
                        await self._greet(network)
                        await trio.sleep_forever()
        finally:
            self.parts = self._network = self._tasks = None
            self._over.set()

    async def _greet(self, network: MemoryNetwork) -> None:
        for neighbour in self._neighbours:
            try:
                await network.connect(address(neighbour))
            except NetworkError:
                continue  # It is away; whoever needs it dials again.

    async def _step(self, name: str) -> None:
        self._trace.note(f"step {name}", self.node)
        await trio.lowlevel.checkpoint()
