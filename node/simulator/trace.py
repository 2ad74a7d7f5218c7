"""The hash of a run: every message, every durable step, every fault and when it was."""

from collections import Counter, deque
from hashlib import blake2b
from typing import Final

import trio

LINES_KEPT: Final = 400  # The last ones, for whoever looks for the reason of a failure.


class Trace:
    """Takes down what happens, in order. Two runs of one seed have one digest."""

    def __init__(self, *, keep_all: bool = False) -> None:
        self._state = blake2b(digest_size=32)
        self.counts: Counter[str] = Counter()
        self.lines: deque[str] = deque(maxlen=None if keep_all else LINES_KEPT)

    def note(self, kind: str, *parts: bytes) -> None:
        """One thing that happened now; `kind` is of few words, `parts` say who and what."""
        at_ms = round(trio.current_time() * 1000)
        self._state.update(b"%d %s %d" % (at_ms, kind.encode(), len(parts)))
        for part in parts:
            self._state.update(len(part).to_bytes(4, "big") + part)
        self.counts[kind] += 1
        short = " ".join(part[:4].hex() for part in parts)
        self.lines.append(f"{at_ms / 1000:.3f} {kind} {short}")

    @property
    def digest(self) -> str:
        """64 hex digits over all that was noted."""
        return self._state.hexdigest()
