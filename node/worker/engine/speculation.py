"""Guesses of the next tokens from what was said before: prompt lookup.

Where the last few tokens stood earlier in the prompt or the answer, those that followed then are
guessed to follow now (Saxena, "Prompt Lookup Decoding", 2023). The model reads the guesses behind
the last token in one step, draws after each, and the first draw that is not the guess ends it: so
the answer is the same to the bit, if the model is exact, and a wrong guess costs only time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PATTERN_TOKENS: Final = 3  # Shorter ones were found to guess wrong too often.
GUESSES_MAX: Final = 3  # More rows than four cost more than they win on a small model.


@dataclass(frozen=True, slots=True)
class Speculation:
    """Whether and how far to guess."""

    guesses_max: int = GUESSES_MAX  # 0 never guesses.
    sequences_max: int = 2  # With more in a step the processor has no time left over.
    pause_steps_max: int = 64


USUAL: Final = Speculation()
NEVER: Final = Speculation(guesses_max=0)


class Guesser:
    """The guesses for one sequence. It goes on while guesses come true, and each time that one
    fails it waits twice as long before the next."""

    def __init__(self, settings: Speculation, ids: Sequence[int]) -> None:
        self._settings = settings
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        """Where it went on after each pattern of tokens, the last time."""
        self._before: dict[tuple[int, ...], int] = {}
        self._width = 1
        self._pause = 1
        self._waits = 0
        for token in ids:
            self.add(token)

    def add(self, token: int) -> None:
        """The sequence has one more token."""
        self._ids.append(token)
        if len(self._ids) >= PATTERN_TOKENS:
            pattern = tuple(self._ids[-PATTERN_TOKENS:])
            # The last place of the pattern at the end is that end itself: the one before counts.
            if pattern in self._after:
                self._before[pattern] = self._after[pattern]
            self._after[pattern] = len(self._ids)

    def guesses(self, most: int) -> Sequence[int]:
        """At most so many tokens that may come next; mostly none."""
        most = min(most, self._width, self._settings.guesses_max)
        if most < 1 or len(self._ids) < PATTERN_TOKENS:
            return ()
        if self._waits:
            self._waits -= 1
            return ()
        at = self._before.get(tuple(self._ids[-PATTERN_TOKENS:]))
        return () if at is None else self._ids[at : at + most]

    def learn(self, guessed: int, right: int) -> None:
        """Of so many guesses, so many came true."""
        if not guessed:
            return
        if right:
            self._width = min(self._settings.guesses_max, right + 1)
            self._pause = 1
        else:
            self._width = 1
            self._waits = self._pause
            self._pause = min(2 * self._pause, self._settings.pause_steps_max)
