"""All that the API asks of a node: the app implements it, `node.api.scripted` plays it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from msgspec import Struct

from node.api.ledger_backend import LedgerBackend
from node.api.views import Check, Job, Models, Peer, Sharing, Status
from protocol.ids import ModelId, NodeId
from protocol.job.logprob import Logprob
from protocol.job.sampling import Sampling


class ChatJob(Struct, frozen=True, kw_only=True):
    """One chat to be answered by somebody in the network."""

    model: str
    """A model's name, or "" for whichever the network serves."""
    messages: tuple[tuple[str, str], ...]
    """(role, text) pairs; roles are system, user and assistant."""
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    output_tokens_max: int | None = None
    """None: as many as the model's context leaves, within the node's own default."""
    seed: int | None = None
    """A user's seed, 0 <= seed < 2**64; None lets requester and provider draw one together."""
    cost_max_microcredits: int | None = None
    """A hard cap over all orders of the job; None takes the node's own default."""
    provider: NodeId | None = None
    """Only this node may answer; None lets the market choose."""
    checkable_only: bool = False
    """Only by a provider whose output somebody could check by doing the same again."""


class Accepted(Struct, frozen=True, kw_only=True):
    """A provider has begun. Prices are microcredits for a million tokens."""

    provider: NodeId
    provider_name: str
    model: str
    mode: str
    prompt_tokens: int
    price_in_microcredits: int
    price_out_microcredits: int


class Text(Struct, frozen=True):
    """The next piece of the answer and how many tokens it took; whole characters, maybe none."""

    text: str
    tokens: int
    logprobs: tuple[tuple[Logprob, ...], ...] = ()
    """For each of these tokens, where the sampling asks and the provider knows: itself first,
    then the likeliest."""


class Notice(Struct, frozen=True):
    """Something that the person should hear while the job goes on: one sentence and its code."""

    code: str
    sentence: str


class Finished(Struct, frozen=True, kw_only=True):
    """The end of an answer: the model's own ("stop") or the token limit ("length"). `seed` is
    the user's seed when one was given. `ms_first` runs from our request to the first token."""

    reason: Literal["stop", "length"]
    provider: NodeId
    input_tokens: int
    output_tokens: int
    cost_microcredits: int
    ms_first: int
    ms_total: int


class EmbedJob(Struct, frozen=True, kw_only=True):
    """Texts to be turned into vectors, one each, by somebody in the network."""

    model: str
    """A model's name, or "" for whichever the network serves; one model for all texts."""
    texts: tuple[str, ...]
    """At least one, and none empty."""
    width: int | None = None
    """How many numbers a vector must have; None takes the model's."""
    cost_max_microcredits: int | None = None
    """A hard cap over all orders of the job; None takes the node's own default."""
    provider: NodeId | None = None
    """Only this node may answer; None lets the market choose."""


class EmbedOrder(Struct, frozen=True, kw_only=True):
    """One provider's part of the vectors."""

    provider: NodeId
    provider_name: str
    mode: str
    texts: int
    input_tokens: int
    cost_microcredits: int


class Embeddings(Struct, frozen=True, kw_only=True):
    """Vectors in the order of the texts: float32 numbers, little endian, of length 1. `orders`
    lists all that cost something, also those that broke off."""

    model: str
    model_id: ModelId
    vectors: tuple[bytes, ...]
    orders: tuple[EmbedOrder, ...]


ChatEvent = Accepted | Text | Notice | Finished


class Backend(Protocol):
    """One running node. All methods are called from its own trio thread."""

    @property
    def ledger(self) -> LedgerBackend: ...

    def status(self) -> Status: ...

    def peers(self) -> Sequence[Peer]: ...

    async def jobs(self, limit: int) -> Sequence[Job]:
        """The newest first, running ones before all; at most `limit`."""

    async def models(self) -> Models: ...

    async def doctor(self) -> Sequence[Check]:
        """What only the running node can tell; the command line checks the rest itself."""

    async def pause(self) -> Sharing:
        """Take no new jobs until `resume`; running ones go on. A repeat changes nothing."""

    async def resume(self) -> Sharing: ...

    def shutdown(self) -> None:
        """Begin to drain: no new jobs, running ones get their grace, then the node ends. Returns
        at once; a repeat changes nothing."""

    def chat(self, job: ChatJob) -> AbstractAsyncContextManager[AsyncIterator[ChatEvent]]:
        """Have one chat answered: iterate over Accepted, then Text and Notice, then Finished.
        A Notice may come before Accepted, and Accepted again when another provider begins.
        Leaving the context cancels what still runs.

        Raises, from `async with` or the iteration, LocalError or RemoteError with a code:
        NO_PROVIDER, MODEL_NOT_SERVED, BUSY, COST_EXCEEDED, CONTEXT_EXCEEDED, DRAINING, and LOST
        when the provider is gone in mid-answer.
        """

    async def embed(self, job: EmbedJob) -> Embeddings:
        """Have texts turned into vectors, in as many orders as it takes; what a provider leaves
        undone another does. Cancelling it cancels what still runs.

        Raises LocalError or RemoteError with a code: those of `chat`, and BAD_REQUEST where the
        model's vectors have another width.
        """
