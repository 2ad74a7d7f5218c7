"""A count of what runs, and the wait until nothing does."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio


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
