"""The two clocks that discovery reads, as arguments."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import trio


@dataclass(frozen=True, slots=True)
class Clock:
    """Both in milliseconds. `steady_ms` only grows and is trio's own time, because the quotas
    that we share with the network are counted in it; `wall_ms` is since 1970 and may jump."""

    wall_ms: Callable[[], int]
    steady_ms: Callable[[], int]


def steady_ms() -> int:
    """Milliseconds of trio's clock; only inside trio."""
    return int(trio.current_time() * 1000)


def system_clock() -> Clock:
    """The clocks of this machine."""
    return Clock(lambda: time.time_ns() // 1_000_000, steady_ms)
