"""One run of a simulated world, from its options to its report."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from node.simulator import determinism
from node.simulator.parts import Build
from node.simulator.plan import Options, cast_of
from node.simulator.rest import rest
from node.simulator.schedule import schedule_of
from node.simulator.world import World, open_world

PROGRESS_SECONDS = 3600.0

Progress = Callable[[float, int], None]
"""Told now and then: the hours lived through, and how many entries are certified."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run."""

    options: Options
    digest: str
    """The hash of the trace: the same for the same options, on every machine."""
    broken: Sequence[str]
    """What did not hold, the first thing first; nothing, if all went well."""
    counts: Counter[str]
    """What happened how often: messages, durable steps, events, ends of jobs."""
    entries: int
    channels: int
    settled: int
    chunks: int
    vouchers: int
    hours: float
    """Lived through, the time of healing included."""
    drift: int
    """What all balances and what waits for its owner add up to, less the supply."""
    happened: Sequence[int]
    """The numbers of the events that happened before the end."""
    lines: Sequence[str]
    """The last of the trace."""

    @property
    def is_good(self) -> bool:
        """Whether everything held."""
        return not self.broken


def simulate(
    options: Options, build: Build | None = None, progress: Progress | None = None
) -> Report:
    """Run one world to its end, or to the first thing that does not hold."""
    return determinism.run(partial(_lived, options, build, progress), options.seed_bytes)


async def _lived(options: Options, build: Build | None, progress: Progress | None) -> Report:
    cast = cast_of(options)
    async with open_world(options, build) as world:
        if progress is not None:
            world.nursery.start_soon(_tell, world, progress)
        await world.begin()
        with trio.CancelScope() as scope:
            world.nursery.start_soon(_stop, world, scope)
            await world.befall(schedule_of(options, cast))
            await rest(world)
        return _report(world)


async def _stop(world: World, scope: trio.CancelScope) -> None:
    await world.stopped.wait()
    scope.cancel()


async def _tell(world: World, progress: Progress) -> None:
    while True:
        progress(trio.current_time() / 3600, len(world.book))
        await trio.sleep(PROGRESS_SECONDS)


def _report(world: World) -> Report:
    return Report(
        options=world.options,
        digest=world.trace.digest,
        broken=tuple(world.broken),
        counts=world.trace.counts,
        entries=len(world.book),
        channels=len(world.book.channels),
        settled=sum(one.settled is not None for one in world.book.channels.values()),
        chunks=world.deliveries.chunks,
        vouchers=world.deliveries.vouchers,
        hours=trio.current_time() / 3600,
        drift=world.book.drift,
        happened=tuple(world.happened),
        lines=tuple(world.trace.lines),
    )
