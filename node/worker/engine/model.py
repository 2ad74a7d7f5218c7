"""What the scheduler asks of a model: one step over a few pieces of sequences. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from protocol.errors import LocalError
from protocol.job.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Draw:
    """How to draw the token that follows a piece. It is a function of these values and the
    logits alone, so that anyone can draw it again."""

    sampling: Sampling
    seed: bytes  # 32 bytes.
    t: int  # The place of the token in the whole answer.
    prompt: Sequence[int]
    answer: Sequence[int]  # Of the whole answer so far: penalties look at it.


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of one slot that come next in it: a part of a prompt, or the last token drawn."""

    slot: int
    position: int  # Of its first token in the sequence; all before it is in the cache.
    ids: Sequence[int]
    draw: Draw | None  # None in the middle of a prompt.


Drawn = int | LocalError | None
"""A token id; why this sequence cannot go on; None where nothing was to be drawn."""


class Model(Protocol):
    """Weights and a cache of `slots` sequences."""

    def step(self, pieces: Sequence[Piece]) -> Sequence[Drawn]:
        """Read all pieces, each of another slot, and draw what follows each. A piece at position
        0 begins a new sequence in its slot."""
