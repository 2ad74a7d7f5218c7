"""A count of what runs, and the wait until nothing does."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import trio

from protocol.ids import NodeId


class Tally:
    """How many are inside `counted` now."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = trio.Event()

    @property
    def count(self) -> int:
        return self._count

    @contextmanager
    def counted(self) -> Iterator[None]:
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()
                self._idle = trio.Event()

    async def wait_idle(self) -> None:
        """Return when nothing runs."""
        while self._count:
            await self._idle.wait()


class NodeTally:
    """How many run now for each node; nothing is kept of a node with none."""

    def __init__(self) -> None:
        self._counts: Counter[NodeId] = Counter()

    @property
    def counts(self) -> Mapping[NodeId, int]:
        """Those with any."""
        return self._counts

    @contextmanager
    def counted(self, node: NodeId) -> Iterator[None]:
        self._counts[node] += 1
        try:
            yield
        finally:
            self._counts[node] -= 1
            if not self._counts[node]:
                del self._counts[node]
