"""What a provider asks of whatever runs a model: the pool of workers, or a script in a test."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from protocol.ids import ModelId
from protocol.job.kinds import MODEL_GENERATES
from protocol.job.logprob import Logprob
from protocol.job.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Task:
    """One sequence to generate. `messages` is a chat of (role, text) pairs that the model's own
    template renders, or `text` is a plain prompt to continue; one of the two is empty."""

    model: ModelId
    messages: Sequence[tuple[str, str]]
    text: str
    stop: Sequence[str]
    sampling: Sampling
    seed: bytes  # 32 bytes: with a token's place and id it settles the sampling noise.
    first_t: int  # The place of the first token in the whole answer: above 0 in a takeover.
    prefix_ids: Sequence[int]  # Tokens of the answer that somebody else has already given.
    output_tokens_max: int
    requester: bytes = b""  # A node id; empty for the owner of this machine, who goes first.


@dataclass(frozen=True, slots=True)
class EmbedTask:
    """Texts to turn into vectors, one each."""

    model: ModelId
    texts: Sequence[str]
    requester: bytes = b""  # As of a Task.


@dataclass(frozen=True, slots=True)
class Begun:
    """The prompt is tokenised and admitted: `ids_digest` is BLAKE2b-256 of its ids, each as
    four little-endian bytes."""

    prompt_tokens: int
    ids_digest: bytes
    number: int = field(default=0, compare=False)
    """By which the pool finds the rows of its answer later; 0 where there are none to be had."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The next tokens of the answer and the text that they complete, never half a character.
    All of the text of `ids` may come with a later event, when a character or a possible stop
    string is still open."""

    ids: Sequence[int]
    text: str
    leaves: Sequence[bytes] = ()  # One a token, of its hidden row; none where there are no rows.
    alternatives: Sequence[Sequence[Logprob]] = ()
    """For each token, when the sampling asks: itself first, then the likeliest."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Of the next texts, in their order: float32, little endian, of length 1."""

    vectors: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Ended:
    """The end. `reason` is "stop" (end of text or a stop string), "length" or "cancelled"."""

    reason: str


Event = Begun | Tokens | Vectors | Ended


@dataclass(frozen=True, slots=True)
class Served:
    """A model that can run now."""

    model: ModelId
    name: str
    mode: str  # `<compute>/<weights>`, e.g. "cpu-f32/gguf".
    context_tokens: int
    slots: int
    prefill_millitokens_per_second: int  # Measured on this machine.
    decode_millitokens_per_second: int
    kind: str = MODEL_GENERATES  # Or MODEL_EMBEDS.


class Inference(Protocol):
    """Runs tasks. All methods are called from one trio thread."""

    @property
    def served(self) -> Sequence[Served]:
        """Loaded and measured models; empty while workers start or are down."""

    def slots_free(self, model: ModelId) -> int: ...

    def generate(self, task: Task) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Run one task: iterate over Begun, Tokens..., Ended. Leaving the context cancels what
        still runs, within one token.

        Raises LocalError, from `async with` or the iteration: MODEL_NOT_SERVED, BUSY (no slot),
        CONTEXT_EXCEEDED, BAD_REQUEST (a template that fails), WORKER_FAILED (the process died).
        """

    def embed(self, task: EmbedTask) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Turn texts into vectors: iterate over Begun, Vectors..., Ended, as for `generate`. A
        text that is longer than the model's context is cut there.

        Raises LocalError as `generate` does.
        """
