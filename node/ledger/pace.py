"""A bound on work in the background: so many things a second on average."""

from typing import Final

import trio

BURST_SECONDS: Final = 1.0  # Work of one second may be done at once.


class Pace:
    """Shared by all that do one kind of work: each tells what it has done, and waits its turn."""

    def __init__(self, per_second: float) -> None:
        assert per_second > 0
        self._per_second = per_second
        self._free_at = float("-inf")

    async def spend(self, count: int) -> None:
        """So much has been done: wait until more may be."""
        now = trio.current_time()
        self._free_at = max(now, self._free_at) + count / self._per_second
        await trio.sleep(max(0.0, self._free_at - now - BURST_SECONDS))
