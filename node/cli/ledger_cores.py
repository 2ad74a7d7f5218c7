"""An export verified by all processors: signatures in other processes, the rules in this one."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from typing import Final

from protocol.errors import RemoteError
from protocol.ids import MessageId
from protocol.ledger.audit import Depth, Read, Report, audit, audit_known, claimed_sources
from protocol.ledger.charter import Charter, charter
from protocol.ledger.checking import Known, frames_checked
from protocol.ledger.export import frames_of
from protocol.ledger.genesis import Genesis

BATCH_FRAMES: Final = 512  # A tenth of a second of signatures, and 350 KB on the way.
BATCHES_AHEAD: Final = 3  # Of each process: so much of the file is in memory, however large it is.

_Batch = tuple[list[bytes], "Future[bytes] | None"]


def cores_usable() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def audit_with(genesis: Genesis, read: Read, depth: Depth, cores: int) -> Report:
    """As `protocol.ledger.audit.audit`, with so many processes where that is more than one.

    This process goes through the chains in order meanwhile; it waits most of the time, so it is
    not counted.
    """
    rules = charter(genesis)
    if cores <= 1:
        return audit(rules, read, depth)
    heads = depth is Depth.HEADS
    claimed = claimed_sources(rules, read) if heads else frozenset[MessageId]()
    # A process that is forked would inherit whatever threads and locks there are here.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        cores, context, _begin, (genesis, claimed if heads else None)
    ) as workers:
        frames = _known(workers, frames_of(read()), BATCHES_AHEAD * cores)
        return audit_known(rules, frames, depth, claimed)


def _known(
    workers: Executor, frames: Iterator[bytes], ahead_max: int, batch_frames: int = BATCH_FRAMES
) -> Iterator[tuple[bytes, Known]]:
    """The frames in their order, with what is known of each. Raises what `frames` raises, after
    all that came before it."""
    ahead: deque[_Batch] = deque()
    fault: RemoteError | None = None
    while True:
        while fault is None and len(ahead) < ahead_max:
            batch, fault = _batch(frames, batch_frames)
            if not batch:
                break
            ahead.append((batch, _submitted(workers, batch)))
        if not ahead:
            break
        yield from _with_known(*ahead.popleft())
    if fault is not None:
        raise fault


def _batch(frames: Iterator[bytes], size: int) -> tuple[list[bytes], RemoteError | None]:
    batch: list[bytes] = []
    try:
        for data in islice(frames, size):
            batch.append(data)
    except RemoteError as error:
        return batch, error
    return batch, None


def _submitted(workers: Executor, batch: list[bytes]) -> "Future[bytes] | None":
    try:
        return workers.submit(_checked, batch)
    except BrokenProcessPool:
        return None


def _with_known(
    batch: list[bytes], checked: "Future[bytes] | None"
) -> Iterable[tuple[bytes, Known]]:
    known = bytes(len(batch))
    # Whatever ends those processes: this one checks the rest itself.
    with suppress(BrokenProcessPool):
        known = known if checked is None else checked.result()
    return ((data, Known(level)) for data, level in zip(batch, known, strict=True))


# In the other processes.

_rules: Charter
_claimed: frozenset[MessageId] | None


def _begin(genesis: Genesis, claimed: frozenset[MessageId] | None) -> None:
    global _rules, _claimed
    _rules, _claimed = charter(genesis), claimed


def _checked(frames: list[bytes]) -> bytes:
    return frames_checked(_rules, frames, _claimed)
