"""Texts that wait to be turned into vectors, and which go into the next step; no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

STEP_TOKENS_MAX: Final = 512
"""Of one step, or one text where that is longer: a fraction of a second on a home CPU, after which
cancellations are heard and other models have their turn."""
WINDOW_TEXTS: Final = 128
"""Neighbours within a task that are sorted by length: equal lengths are computed together, and no
text waits for more than so many others of its task."""


@dataclass(frozen=True, slots=True)
class Place:
    """A text of a task."""

    task: int
    number: int
    ids: Sequence[int]


@dataclass(slots=True)
class _Waiting:
    texts: Sequence[Sequence[int]]
    owner: bool
    order: list[int] = field(default_factory=list)  # Of texts not computed yet, the next one last.
    vectors: dict[int, bytes] = field(default_factory=dict)  # Computed, and not given out yet.
    given: int = 0

    def __post_init__(self) -> None:
        for start in range(0, len(self.texts), WINDOW_TEXTS):
            window = range(start, min(start + WINDOW_TEXTS, len(self.texts)))
            self.order += sorted(window, key=lambda number: len(self.texts[number]))
        self.order.reverse()


class EmbedQueue:
    """Tasks of any numbers of texts: the owner's first, the others' in turn, a text at a time."""

    def __init__(self) -> None:
        self._tasks: dict[int, _Waiting] = {}  # In the order in which their turns come.

    def __len__(self) -> int:
        return len(self._tasks)

    def count(self, owner: bool) -> int:
        """Tasks of this machine's owner, or those of others."""
        return sum(waiting.owner == owner for waiting in self._tasks.values())

    def add(self, task: int, texts: Sequence[Sequence[int]], owner: bool) -> None:
        """Ids of each text, at least one of each; `owner` says that the task is this machine's
        owner's."""
        assert task not in self._tasks
        assert texts
        self._tasks[task] = _Waiting(texts, owner)

    def cancel(self, task: int) -> bool:
        """Whether it was there; its vectors are not waited for any more."""
        return self._tasks.pop(task, None) is not None

    def next(self) -> list[Place]:
        """Texts of the next step, sorted by length; none where none waits. `done` must be told of
        all of them before this is asked again."""
        chosen: list[Place] = []
        tokens = 0
        while (place := self._first()) is not None:
            if chosen and tokens + len(place.ids) > STEP_TOKENS_MAX:
                break
            chosen.append(place)
            tokens += len(place.ids)
            waiting = self._tasks.pop(place.task)
            waiting.order.pop()
            self._tasks[place.task] = waiting  # The next turn is another's.
        return sorted(chosen, key=lambda place: len(place.ids))

    def _first(self) -> Place | None:
        found: int | None = None
        for task, waiting in self._tasks.items():
            if waiting.order and (found is None or waiting.owner):
                found = task
                if waiting.owner:
                    break
        if found is None:
            return None
        waiting = self._tasks[found]
        number = waiting.order[-1]
        return Place(found, number, waiting.texts[number])

    def done(
        self, places: Sequence[Place], vectors: Sequence[bytes]
    ) -> list[tuple[int, Sequence[bytes], bool]]:
        """(task, its next vectors in the order of its texts, whether they are the last) for each
        task that has any to give out."""
        for place, vector in zip(places, vectors, strict=True):
            if place.task in self._tasks:  # Else it was cancelled.
                self._tasks[place.task].vectors[place.number] = vector
        given: list[tuple[int, Sequence[bytes], bool]] = []
        for task in dict.fromkeys(place.task for place in places):
            waiting = self._tasks.get(task)
            if waiting is None:
                continue
            ready: list[bytes] = []
            while waiting.given in waiting.vectors:
                ready.append(waiting.vectors.pop(waiting.given))
                waiting.given += 1
            last = waiting.given == len(waiting.texts)
            if ready:
                given.append((task, ready, last))
            if last:
                del self._tasks[task]
        return given
