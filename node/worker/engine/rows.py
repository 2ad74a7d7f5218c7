"""The hidden rows of answers, kept for a while so that whoever paid can have some opened."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final

from node.worker.pipe import PIPE_FRAME_BYTES_MAX

ROWS_BYTES_MAX: Final = 64 << 20  # 57,000 tokens of a model of width 576, 8,000 of width 4096.
OPENED_BYTES_MAX: Final = PIPE_FRAME_BYTES_MAX // 2
KEPT_SECONDS: Final = 600  # After the end: how long verification may ask (SPEC.md).


class RowStore:
    """Rows of all tasks of a worker, bounded in bytes; the oldest rows are forgotten first."""

    def __init__(self, bytes_max: int = ROWS_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._rows: dict[int, dict[int, bytes]] = {}
        self._order: deque[tuple[int, int]] = deque()
        self._over: OrderedDict[int, float] = OrderedDict()  # Tasks that ended, and when.
        self.size_bytes = 0

    def keep(self, task: int, place: int, row: bytes) -> None:
        """The row that the token at `place` of an answer was drawn from."""
        rows = self._rows.setdefault(task, {})
        assert place not in rows
        rows[place] = row
        self._order.append((task, place))
        self.size_bytes += len(row)
        while self.size_bytes > self._bytes_max:
            oldest, at = self._order.popleft()
            self._drop(oldest, at)

    def open(self, task: int, places: Sequence[int]) -> list[bytes]:
        """In the order of `places`; b"" for what was forgotten or never was, and for what is more
        than goes through the pipe at once: who asked can ask for those again."""
        rows = self._rows.get(task, {})
        found, room = [], OPENED_BYTES_MAX
        for place in places:
            row = rows.get(place, b"")
            room -= len(row)
            found.append(row if room >= 0 else b"")
        return found

    def ended(self, task: int, now: float) -> None:
        """The task is over; its rows stay until it is forgotten, for KEPT_SECONDS at most."""
        if task in self._rows:
            self._over[task] = now

    def forget(self, task: int) -> None:
        """Nobody will ask for this task's rows any more."""
        self._over.pop(task, None)
        for place in list(self._rows.get(task, ())):
            self._drop(task, place)
        while self._order and self._order[0][0] not in self._rows:
            self._order.popleft()

    def expire(self, now: float) -> None:
        """Forget what ended too long ago. `now` is in seconds, of any clock that never jumps."""
        while self._over:
            task, at = next(iter(self._over.items()))
            if now - at < KEPT_SECONDS:
                return
            self.forget(task)

    def _drop(self, task: int, place: int) -> None:
        rows = self._rows.get(task, {})
        row = rows.pop(place, None)
        if row is None:
            return  # Forgotten before.
        self.size_bytes -= len(row)
        if not rows:
            del self._rows[task]
            self._over.pop(task, None)
