"""The messages of a job, field by field (job.md section 2). All are signed but Delta and Cancel.

Fields of later work (millijoules, prefix) exist from the start, empty, so that no version
breaks.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from protocol.envelope import Signed
from protocol.ids import (
    DigestField,
    JobIdField,
    MessageIdField,
    ModelIdField,
    NetworkIdField,
    NodeIdField,
    OptionalDigestField,
)
from protocol.job.logprob import Logprob
from protocol.job.sampling import Sampling
from protocol.limits import (
    CHUNK_MS_MAX,
    CHUNK_TOKENS_MAX,
    CHUNK_VECTORS_MAX,
    DELTA_TEXT_BYTES_MAX,
    DELTA_TOKENS_MAX,
    LOGPROBS_MAX,
    MESSAGES_MAX,
    MODE_BYTES_MAX,
    MODES_MAX,
    PREFIX_TOKENS_MAX,
    PROMPT_BYTES_MAX,
    RETRY_MS_MAX,
    ROLE_BYTES_MAX,
    SENTENCE_BYTES_MAX,
    STOP_STRING_BYTES_MAX,
    STOP_STRINGS_MAX,
    TEXTS_MAX,
    VECTOR_BYTES_MAX,
)
from protocol.units import (
    CountField,
    DurationField,
    MicrocreditsField,
    OutputTokensField,
    PriceField,
    TokenId,
    TokensField,
)

Mode = Annotated[str, Meta(max_length=MODE_BYTES_MAX)]
Finish = Literal["none", "stop", "length", "cancelled"]
Word = Annotated[str, Meta(max_length=32)]


class Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One turn of a chat."""

    role: Annotated[str, Meta(min_length=1, max_length=ROLE_BYTES_MAX)]
    text: Annotated[str, Meta(max_length=PROMPT_BYTES_MAX)]


class Prompt(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is asked: the turns of a chat, a text to continue, or texts to turn into vectors; the
    other two are empty."""

    messages: Annotated[tuple[Message, ...], Meta(max_length=MESSAGES_MAX)]
    text: Annotated[str, Meta(max_length=PROMPT_BYTES_MAX)]
    texts: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=PROMPT_BYTES_MAX)], ...],
        Meta(max_length=TEXTS_MAX),
    ]


class Request(Struct, frozen=True, array_like=True, tag="request", forbid_unknown_fields=True):
    """What is wanted, of one provider, without the prompt itself."""

    version: Annotated[int, Meta(ge=1, le=1 << 16)]
    network: NetworkIdField
    provider: NodeIdField
    job: JobIdField
    kind: Word  # Of protocol.job.kinds; open, so that a new kind is refused by name.
    model: ModelIdField
    modes: Annotated[tuple[Mode, ...], Meta(max_length=MODES_MAX)]  # None listed: any.
    sampling: Sampling
    stop_digest: DigestField
    output_tokens_max: OutputTokensField  # 0 for an embed, which has none; else 1 at least.
    time_ms_max: DurationField
    cost_max: MicrocreditsField
    prompt_bytes: Annotated[int, Meta(ge=1, le=PROMPT_BYTES_MAX)]
    prompt_commitment: DigestField
    seed_commitment: DigestField
    seed_source: Literal["drawn", "user"]
    first_t: TokensField
    prefix_hash: OptionalDigestField


class Quote(Struct, frozen=True, array_like=True, tag="quote", forbid_unknown_fields=True):
    """What a provider will do it for."""

    request: MessageIdField
    mode: Mode
    price_in: PriceField
    price_out: PriceField
    p: DigestField
    window_chunks: Annotated[int, Meta(ge=1, le=1024)]
    chunk_tokens: Annotated[int, Meta(ge=1, le=CHUNK_TOKENS_MAX)]
    chunk_ms: Annotated[int, Meta(ge=1, le=CHUNK_MS_MAX)]
    valid_ms: DurationField
    queue_ms: DurationField
    payment: Word  # Of protocol.job.checks; one that is not known is refused by name.


class Order(Struct, frozen=True, array_like=True, tag="order", forbid_unknown_fields=True):
    """Yes to a quote, with all that it takes to begin."""

    quote: MessageIdField
    r: DigestField
    salt: DigestField
    prompt: Prompt
    stop: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=STOP_STRING_BYTES_MAX)], ...],
        Meta(max_length=STOP_STRINGS_MAX),
    ]
    prefix_ids: Annotated[tuple[TokenId, ...], Meta(max_length=PREFIX_TOKENS_MAX)]
    channel: OptionalDigestField
    """By which it is paid; empty where it costs nothing."""
    voucher: Signed | None
    """For the prompt, where that is paid first; its note names the quote."""


class Started(Struct, frozen=True, array_like=True, tag="started", forbid_unknown_fields=True):
    """The prompt is read and counted."""

    order: MessageIdField
    prompt_tokens: TokensField
    ids_digest: DigestField


class Delta(Struct, frozen=True, array_like=True, tag="delta", forbid_unknown_fields=True):
    """Unsigned: a preview, sent at once, of the chunk that follows. Empty as a sign of life."""

    order: MessageIdField
    ids: Annotated[tuple[TokenId, ...], Meta(max_length=DELTA_TOKENS_MAX)]
    text: Annotated[str, Meta(max_length=DELTA_TEXT_BYTES_MAX)]
    logprobs: Annotated[
        tuple[Annotated[tuple[Logprob, ...], Meta(max_length=LOGPROBS_MAX)], ...],
        Meta(max_length=DELTA_TOKENS_MAX),
    ] = ()
    """For each of `ids`, itself first, where the sampling asks; else none. No chunk covers it."""


class Chunk(Struct, frozen=True, array_like=True, tag="chunk", forbid_unknown_fields=True):
    """What one signature covers: the tokens or vectors since the chunk before, and the cost so
    far."""

    order: MessageIdField
    terms: DigestField
    first_t: TokensField
    ids: Annotated[tuple[TokenId, ...], Meta(max_length=CHUNK_TOKENS_MAX)]
    vectors: Annotated[
        tuple[Annotated[bytes, Meta(max_length=VECTOR_BYTES_MAX)], ...],
        Meta(max_length=CHUNK_VECTORS_MAX),
    ]
    root: OptionalDigestField
    running: DigestField
    cost: MicrocreditsField
    finish: Finish


class Receipt(Struct, frozen=True, array_like=True, tag="receipt", forbid_unknown_fields=True):
    """The bill; the provider signs it first, then the requester."""

    order: MessageIdField
    input_tokens: TokensField
    output_tokens: TokensField
    cost: MicrocreditsField
    running: DigestField
    millijoules: CountField
    energy_source: Literal["none", "estimated", "measured"]
    ms_first: DurationField
    ms_total: DurationField


class Refuse(Struct, frozen=True, array_like=True, tag="refuse", forbid_unknown_fields=True):
    """No, with a stable code, a sentence for people and when to come again."""

    refused: OptionalDigestField
    code: Word
    sentence: Annotated[str, Meta(max_length=SENTENCE_BYTES_MAX)]
    retry_ms: Annotated[int, Meta(ge=0, le=RETRY_MS_MAX)]


class Cancel(Struct, frozen=True, array_like=True, tag="cancel", forbid_unknown_fields=True):
    """Unsigned: stop now; what was produced is billed. The stream says who asks."""

    order: MessageIdField
