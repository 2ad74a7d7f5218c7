"""A simulated world: its machines, its weather, what befalls them, and what must hold meanwhile."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from node.network.memory import MemoryWorld
from node.simulator.alarm import Alarm
from node.simulator.book import Book, Broken
from node.simulator.deeds import Deeds
from node.simulator.deliveries import Deliveries, Shelf
from node.simulator.determinism import chance, collect
from node.simulator.liars import Liar
from node.simulator.machine import Machine
from node.simulator.pace import SKEW_MS_MAX, Pace, pace_for
from node.simulator.parts import Build
from node.simulator.plan import Cast, Options, cast_of
from node.simulator.rogues import Rogues, miserly
from node.simulator.schedule import Event
from node.simulator.statements import Statements
from node.simulator.survey import Survey
from node.simulator.trace import Trace
from node.simulator.weather import Climate, SeededWeather
from protocol.ids import MessageId, NodeId
from protocol.ledger.charter import charter
from protocol.ledger.sync import LEDGER_PROTOCOL
from protocol.messages import JOB_PROTOCOL

NEIGHBOURS: Final = 3
CHECKS_PER_COLLECTION: Final = 10  # Of garbage, which takes longer than a check.
NOTICE_SECONDS_MAX: Final = 30  # Until a connection into nowhere is given up, as a ping finds out.


class World:
    """Made by `open_world`. `broken` says what did not hold, the first thing first."""

    def __init__(self, options: Options, cast: Cast, build: Build, nursery: trio.Nursery) -> None:
        self.options, self.cast, self.nursery = options, cast, nursery
        self.pace: Pace = pace_for(options.hours)
        self.charter = charter(cast.genesis)
        self.trace = Trace()
        self.broken: list[str] = []
        self.happened: list[int] = []
        """The numbers of the events so far."""
        self.stopped = trio.Event()
        self.usual = _climate(options)
        seed = options.seed_bytes
        self.weather = SeededWeather(chance(seed, "weather"), self.usual)
        self.network = MemoryWorld(self.weather, self._heard)
        self.book = Book(cast.genesis)
        self._honest = {cast.identities[number].node for number in cast.honest}
        self.machines = self._built(build)
        self.liars = [
            Liar(cast.identities[number], self.charter, chance(seed, f"liar {number}"))
            for number in sorted(cast.liars)
        ]
        by_node = {one.node: one for one in self.machines if one is not None}
        self.statements = Statements(lambda node: by_node[node].was_restored)
        self.deliveries = Deliveries(_shelf(by_node), lambda node: node in self._honest)
        self.deeds = Deeds(self.machines, self.trace)
        self.rogues = Rogues(self.machines, cast, self.charter, chance(seed, "rogues"))
        self.survey = Survey(self.book, self.deliveries)

    @property
    def honest(self) -> Sequence[Machine]:
        """The machines whose owners are honest."""
        return [one for one in self.machines if one is not None and one.node in self._honest]

    def fail(self, what: str) -> None:
        """Something does not hold: the world stops."""
        at_seconds = trio.current_time()
        self.broken.append(f"after {at_seconds / 3600:.3f} h: {what}")
        self.stopped.set()

    async def begin(self) -> None:
        """Start everything."""
        for machine in self.machines:
            if machine is not None:
                self.nursery.start_soon(machine.run)
        for liar in self.liars:
            self.nursery.start_soon(liar.run, self.network)
        self.nursery.start_soon(self._check)

    async def befall(self, events: Sequence[Event]) -> None:
        """Let all events happen, each at its time."""
        for event in events:
            await trio.sleep_until(event.at_seconds)
            self.happened.append(event.number)
            self.trace.note(f"event {event.name}", event.number.to_bytes(4, "big"))
            self.nursery.start_soon(self._happen, event)
        await trio.sleep_until(self.options.seconds)

    async def _happen(self, event: Event) -> None:
        machine = self.machines[event.who]
        match event.name:
            case "job" | "pay" | "settle" | "want":
                self.deeds.do(event)
            case "spend-twice" | "cheat" | "garbage" | "replay" | "old-voucher":
                await self.rogues.do(event)
            case "split":
                await self._split(event)
            case "storm":
                await self._storm(event)
            case _ if machine is not None:
                await _BEFALLS[event.name](machine, event)

    async def _split(self, event: Event) -> None:
        sides = {
            identity.node: event.size >> (number % 30) & 1
            for number, identity in enumerate(self.cast.identities)
        }
        self.weather.split(sides)
        await trio.sleep(min(event.seconds, event.size % NOTICE_SECONDS_MAX))
        for one, side in sides.items():
            for other, far in sides.items():
                if one < other and side != far:
                    self.network.part(one, other)
        await trio.sleep(max(0.0, event.seconds - event.size % NOTICE_SECONDS_MAX))
        self.weather.split({})
        self.network.look()

    async def _storm(self, event: Event) -> None:
        self.weather.climate = Climate(8.0, 0.05, 0.3, 0.3)
        await trio.sleep(event.seconds)
        self.weather.climate = self.usual

    def _heard(self, sender: NodeId, receiver: NodeId, protocol: str, data: bytes) -> None:
        self.trace.note(f"said {protocol.split('/')[2]}", sender, receiver, data)
        self.rogues.heard(sender, receiver, protocol, data)
        try:
            if protocol == LEDGER_PROTOCOL and sender in self._honest:
                self.statements.hear(sender, data)
            elif protocol == JOB_PROTOCOL:
                self.deliveries.hear(sender, receiver, data)
        except Broken as broken:
            self.fail(str(broken))

    async def _check(self) -> None:
        checks = 0
        while not self.stopped.is_set():
            await trio.sleep(self.pace.check_seconds)
            await self.check()
            checks += 1
            if checks % CHECKS_PER_COLLECTION == 0:
                collect()

    async def check(self) -> None:
        """Everything that must hold at any time."""
        try:
            for machine in self.honest:
                await self.survey.take(machine)
            self.book.sums()
        except Broken as broken:
            self.fail(str(broken))

    def _built(self, build: Build) -> Sequence[Machine | None]:
        seed, machines = self.options.seed_bytes, list[Machine | None]()
        identities = self.cast.identities
        for number, identity in enumerate(identities):
            if number in self.cast.liars:
                machines.append(None)
                continue
            pick = chance(seed, f"machine {number}")
            others = [one.node for one in identities if one is not identity]
            machine = Machine(
                identity,
                self.charter,
                self.network,
                pick,
                self.trace,
                build=miserly(build) if number in self.cast.hostile else build,
                pace=self.pace,
                neighbours=pick.sample(others, min(NEIGHBOURS, len(others))),
            )
            if "clocks" in self.options.faults:
                machine.skew_ms = pick.randint(-SKEW_MS_MAX, SKEW_MS_MAX)
            machines.append(machine)
        return machines


async def _crash(machine: Machine, event: Event) -> None:
    machine.is_down = True
    machine.crash()
    await trio.sleep(event.seconds)
    machine.is_down = False


async def _jump(machine: Machine, event: Event) -> None:
    jump_ms = event.size * 1000
    machine.jumps_ms.append(jump_ms)
    await trio.sleep(event.seconds)
    if jump_ms in machine.jumps_ms:
        machine.jumps_ms.remove(jump_ms)


async def _backup(machine: Machine, event: Event) -> None:
    kept = machine.disk.copy()
    await trio.sleep(event.seconds)
    if machine.is_healed:
        return
    machine.is_down = True
    machine.crash()
    await machine.ended()
    machine.disk.image = kept
    machine.was_restored = True
    machine.is_down = False


async def _full(machine: Machine, event: Event) -> None:
    machine.disk.is_full = True
    await trio.sleep(event.seconds)
    machine.disk.is_full = False


_BEFALLS: Final = {"crash": _crash, "jump": _jump, "backup": _backup, "full": _full}


def _climate(options: Options) -> Climate:
    faults = options.faults
    return Climate(
        delay_seconds_max=2.0 if "latency" in faults else 0.0,
        cut_share=0.002 if "loss" in faults else 0.0,
        lost_share=0.1 if "loss" in faults else 0.0,
        double_share=0.2 if "duplicates" in faults else 0.0,
    )


def _shelf(machines: dict[NodeId, Machine]) -> Shelf:
    def counted(node: NodeId, channel: MessageId) -> int:
        parts = machines[node].parts
        books = [] if parts is None else parts.channels.payee.books
        return max((book.window.held for book in books if book.facts.id == channel), default=0)

    return Shelf(
        life=lambda node: machines[node].lives,
        on_disk=lambda node, channel: machines[node].disk.voucher_sum(channel),
        counted=counted,
    )


@asynccontextmanager
async def open_world(options: Options, build: Build | None = None) -> AsyncIterator[World]:
    """A world that lives as long as the context does."""
    async with trio.open_nursery() as nursery:
        world = World(options, cast_of(options), build or Build(), nursery)
        with Alarm(world.fail).listening():
            yield world
            for machine in world.machines:
                if machine is not None:
                    machine.is_down = True
                    machine.crash()
            nursery.cancel_scope.cancel()
