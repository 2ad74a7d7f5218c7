"""Whether this machine takes jobs now: the owner's word, kept over a restart."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

Word = Literal["on", "off", "paused", "draining"]

_SENTENCES: dict[Word, str] = {
    "on": "This node takes jobs.",
    "off": "This node shares nothing.",
    "paused": "This node's owner has paused sharing.",
    "draining": "This node is shutting down and takes no new jobs.",
}


class Sharing:
    """`enabled` comes from the configuration, `paused` from the owner while the node runs,
    `draining` from a shutdown that has begun. The pause outlives the process: it is a file."""

    def __init__(self, *, enabled: bool, pause_file: Path) -> None:
        self._enabled = enabled
        self._pause_file = pause_file
        self._paused = pause_file.exists()
        self._draining = False
        self._watchers: list[Callable[[], None]] = []

    @property
    def word(self) -> Word:
        if self._draining:
            return "draining"
        if not self._enabled:
            return "off"
        return "paused" if self._paused else "on"

    @property
    def enabled(self) -> bool:
        return self._enabled

    @property
    def sentence(self) -> str:
        return _SENTENCES[self.word]

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` at each change; it must not wait."""
        self._watchers.append(watcher)

    def pause(self) -> None:
        """Take no new jobs; running ones go on. Raises OSError when it cannot be kept on disk."""
        self._pause_file.touch()
        self._set(paused=True)

    def resume(self) -> None:
        self._pause_file.unlink(missing_ok=True)
        self._set(paused=False)

    def drain(self) -> None:
        """For good: the node is going down."""
        self._draining = True
        self._tell()

    def _set(self, *, paused: bool) -> None:
        if paused != self._paused:
            self._paused = paused
            self._tell()

    def _tell(self) -> None:
        for watcher in self._watchers:
            watcher()
