"""One run of trio in which nothing depends on the machine: time jumps, and chance has a seed.

trio shuffles the tasks that can run, so that nobody relies on an order, and it offers no public way
to give that a seed. Hypothesis sets the same two private names for the same reason; the test
`tests/simulation/test_determinism.py` fails when a new trio does without them.
"""

import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final, TypeVar

import trio
import trio.testing
from trio._core import _run as scheduler

from protocol.identity import Seed, digest

T = TypeVar("T")

EPOCH_MS: Final = 1_800_000_000_000
"""The wall time at which every simulated world begins."""


def run(main: Callable[[], Awaitable[T]], seed: bytes) -> T:
    """What `main` returns, run under trio on a clock that jumps whenever all tasks wait."""
    with _seeded(seed):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def chance(seed: bytes, purpose: str) -> Random:
    """A source of chance of its own for each purpose: one that is asked more often, say because a
    fault was left out, does not change what the others say."""
    return Random(int.from_bytes(digest(seed, purpose.encode())))


def key_seed(seed: bytes, number: int) -> Seed:
    """The secret key of a simulated node: it has nothing to keep."""
    return Seed(digest(seed, b"key", number.to_bytes(4)))


@contextmanager
def _seeded(seed: bytes) -> Iterator[None]:
    names: Any = scheduler
    before = names._ALLOW_DETERMINISTIC_SCHEDULING, names._r.getstate()
    was_collecting = gc.isenabled()
    names._ALLOW_DETERMINISTIC_SCHEDULING = True
    names._r.seed(digest(seed, b"scheduler"))
    # When garbage is found depends on all that the process did before, and a generator that is
    # found late is closed late. `collect` is called at fixed virtual times instead.
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        names._ALLOW_DETERMINISTIC_SCHEDULING = before[0]
        names._r.setstate(before[1])
        if was_collecting:
            gc.enable()


def collect() -> None:
    """Find garbage now."""
    gc.collect()
