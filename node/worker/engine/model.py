"""What the scheduler asks of a model: one step over a few pieces of sequences. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from protocol.errors import LocalError
from protocol.job.sampling import Sampling

BLOCK_TOKENS: Final = 32  # Of one block of the cache; the native operator has the same number.
STEP_ROWS_MAX: Final = 512  # Tokens of one step, all pieces together.


@dataclass(frozen=True, slots=True)
class Draw:
    """How to draw the token that follows a place. It is a function of these values and the
    logits alone, so that anyone can draw it again."""

    sampling: Sampling
    seed: bytes  # 32 bytes.
    t: int  # The place of the token in the whole answer.
    prompt: Sequence[int]
    answer: Sequence[int]  # Of the whole answer before this place: penalties look at it.
    allowed: bytes | None = None
    """One bit a token id, the lowest bit of a byte first; a 0 keeps the token from being drawn.
    None allows all. The seam for constrained output."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of one sequence that come next in it: a part of a prompt, the last token drawn, or
    that token and guesses of those after it."""

    blocks: Sequence[int]
    """The blocks of the cache that hold the sequence, in order, for at least `position` and all of
    `ids`. Blocks wholly before `position` may be shared with other sequences and are only read."""
    position: int  # Of its first token in the sequence; all before it is in the cache.
    ids: Sequence[int]
    draws: Sequence[Draw]
    """What to draw after each of the last `len(draws)` of `ids`; none in the middle of a prompt.
    With guesses, each draw is made as if the guesses before it were right."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token and the natural logarithm of its probability, in millionths; after penalties, before
    temperature."""

    token: int
    micrologprob: int


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was drawn."""

    id: int
    row: bytes
    """The last hidden row that its logits came from, after the final norm: bfloat16, little
    endian (protocol.job.commitment). Empty from a model that hands out none."""
    alternatives: Sequence[Alternative] = ()
    """Itself first and then the most probable, as many as `sampling.logprobs` asks for."""


Drawn = Token | LocalError
"""A token, or why this sequence cannot go on."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured, in milli-tokens a second."""

    prefill: int
    decode: int


class Model(Protocol):
    """Weights, and a cache of keys and values in blocks."""

    @property
    def is_exact(self) -> bool:
        """Whether a token's bits depend on its sequence alone, never on what else is in a step:
        only then may answers be guessed ahead."""

    @property
    def blocks(self) -> int:
        """How many blocks the cache has."""

    def step(self, pieces: Sequence[Piece]) -> Sequence[Sequence[Drawn]]:
        """Read all pieces, each of another sequence, at most STEP_ROWS_MAX tokens, and draw what
        was asked: as many for each piece as it has draws. After a LocalError the rest of that
        piece's draws are LocalErrors too."""


class LoadedModel(Model, Protocol):
    """What an engine asks besides: opening.py gives it."""

    @property
    def mode(self) -> str:
        """`<compute>/<weights>`, e.g. "native-1/gguf"."""

    @property
    def context_tokens(self) -> int:
        """Of one sequence at the most; its blocks fit the cache."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def width(self) -> int:
        """Numbers in a hidden row."""


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model, and what people are told of it."""

    model: LoadedModel
    engine: str  # "native (avx512-vnni, 2 threads)" or "torch (bf16)".
    note: str  # What was lost or is slower than it could be; "" for nothing.
