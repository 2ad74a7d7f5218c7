"""Keep the long-lived parts of a node running: restart with back-off, or fail on purpose.

The one place that catches whatever a part raises. It logs an exception's type and place, never
its message, which could hold what somebody asked.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from node.telemetry.faults import describe
from node.telemetry.logs import Log

Part = Callable[[], Awaitable[None]]

_log = Log("supervise")


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long to wait before the next start, in seconds: doubling, and from the beginning again
    once a part has run healthily for a while."""

    seconds_min: float = 1
    seconds_max: float = 60
    healthy_seconds: float = 60

    def next(self, previous: float | None, ran_seconds: float) -> float:
        """The wait after a run of `ran_seconds`; `previous` is the wait before it, if any."""
        if previous is None or ran_seconds >= self.healthy_seconds:
            return self.seconds_min
        return min(2 * previous, self.seconds_max)


@asynccontextmanager
async def background(*parts: Part) -> AsyncIterator[None]:
    """Run parts beside the body of `async with`, and cancel them when it is over. What the body
    raises comes out as it is, not inside the group that a nursery makes of it."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        for part in parts:
            nursery.start_soon(part)
        try:
            yield
        except BaseException as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def supervise(name: str, part: Part, back_off: BackOff | None = None) -> None:
    """Run `part` until it returns; whenever it raises, log that, wait, and start it again."""
    back_off = BackOff() if back_off is None else back_off
    wait: float | None = None
    while True:
        began = trio.current_time()
        if await contain(name, part):
            return
        wait = back_off.next(wait, trio.current_time() - began)
        _log.warning("part.restarts", name=name, wait_ms=round(wait * 1000))
        await trio.sleep(wait)


async def contain(name: str, part: Part) -> bool:
    """Run `part` once: True when it returned, False when it raised, which is logged. For work on
    behalf of one peer or one job, whose failure is nobody else's."""
    failed = False
    try:
        await part()
    # A group can hold a cancellation beside a fault: the former must go on, the latter not.
    except* Exception as group:
        failed = True
        _log.error("part.failed", name=name, error=describe(group))
    return not failed


async def fatal(name: str, part: Part) -> None:
    """Run `part` once; what it raises is logged and goes on, so that it ends the node. For parts
    without which a node would lie or lose money, such as the database's writer."""
    try:
        await part()
    except Exception as error:
        _log.error("part.failed_fatally", name=name, error=describe(error))
        raise
