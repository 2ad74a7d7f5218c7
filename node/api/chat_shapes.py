"""OpenAI's shapes of an answer, whole or in chunks, and the `ayni` part that we add."""

from collections.abc import Sequence
from itertools import chain
from typing import Final, assert_never

import msgspec
from msgspec import UNSET, Struct, UnsetType

from node.api.backend import Accepted, ChatEvent, Finished, Notice, Text
from node.api.chat_request import ChatRequest
from node.api.failures import error_body
from node.api.logprob_shapes import ChoiceLogprobs, choice_logprobs
from protocol.errors import AyniError
from protocol.ids import node_text
from protocol.units import credits_text

STREAM_END: Final = b"data: [DONE]\n\n"


class NoticeShape(Struct, frozen=True):
    code: str
    sentence: str


class AyniPart(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who answers and on which terms (first chunk), what it came to (last), or a notice."""

    provider: str | UnsetType = UNSET
    provider_name: str | UnsetType = UNSET
    mode: str | UnsetType = UNSET
    price_in_microcredits: int | UnsetType = UNSET
    price_out_microcredits: int | UnsetType = UNSET
    cost_microcredits: int | UnsetType = UNSET
    cost_credits: str | UnsetType = UNSET
    ms_first: int | UnsetType = UNSET
    ms_total: int | UnsetType = UNSET
    input_tokens: int | UnsetType = UNSET
    output_tokens: int | UnsetType = UNSET
    notice: NoticeShape | UnsetType = UNSET


class Usage(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Delta(Struct, frozen=True):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    delta: Delta
    finish_reason: str | None = None
    index: int = 0
    logprobs: ChoiceLogprobs | None = None


class Chunk(Struct, frozen=True, kw_only=True):
    id: str
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    object: str = "chat.completion.chunk"
    usage: Usage | UnsetType | None = UNSET
    ayni: AyniPart | UnsetType = UNSET


class Message(Struct, frozen=True):
    content: str
    role: str = "assistant"
    refusal: None = None


class Choice(Struct, frozen=True, kw_only=True):
    message: Message
    finish_reason: str
    index: int = 0
    logprobs: ChoiceLogprobs | None = None


class Completion(Struct, frozen=True, kw_only=True):
    id: str
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    ayni: AyniPart
    object: str = "chat.completion"


class ModelShape(Struct, frozen=True, kw_only=True):
    id: str
    created: int
    owned_by: str
    object: str = "model"


class ModelList(Struct, frozen=True):
    data: tuple[ModelShape, ...]
    object: str = "list"


def _usage(finished: Finished) -> Usage:
    total = finished.input_tokens + finished.output_tokens
    return Usage(finished.input_tokens, finished.output_tokens, total)


def ayni_part(accepted: Accepted, finished: Finished | None = None) -> AyniPart:
    part = AyniPart(
        provider=node_text(accepted.provider),
        provider_name=accepted.provider_name,
        mode=accepted.mode,
        price_in_microcredits=accepted.price_in_microcredits,
        price_out_microcredits=accepted.price_out_microcredits,
    )
    if finished is None:
        return part
    return msgspec.structs.replace(
        part,
        provider=node_text(finished.provider),
        cost_microcredits=finished.cost_microcredits,
        cost_credits=credits_text(finished.cost_microcredits),
        ms_first=finished.ms_first,
        ms_total=finished.ms_total,
        input_tokens=finished.input_tokens,
        output_tokens=finished.output_tokens,
    )


class ChunkWriter:
    """Writes one stream's chunks as server-sent events; all have the same id and time."""

    def __init__(self, identifier: str, created: int, wanted: ChatRequest) -> None:
        self._id, self._created, self._wanted = identifier, created, wanted
        self._accepted: Accepted | None = None
        self._held: list[Notice] = []

    def event(self, event: ChatEvent) -> bytes:
        """The bytes to send now, or none."""
        match event:
            case Accepted():
                return self._begun(event)
            case Text(text, _, places):
                assert self._accepted is not None
                if not text and not places:
                    return b""
                choice = ChunkChoice(delta=Delta(content=text), logprobs=choice_logprobs(places))
                return self._chunk(choice)
            case Notice():
                if self._accepted is None and not self._wanted.notices:
                    # Once a stream has begun a refusal has no HTTP status any more, which
                    # OpenAI's clients go by; so nothing begins it before the answer does.
                    self._held.append(event)
                    return b""
                return self._notice(event)
            case Finished():
                return self._finished(event)
            case _:
                assert_never(event)

    def _begun(self, accepted: Accepted) -> bytes:
        """OpenAI's opening chunk; when a later provider begins, only the `ayni` part is news."""
        first = self._accepted is None
        self._accepted = accepted
        delta = Delta(role="assistant", content="") if first else Delta()
        opening = self._chunk(ChunkChoice(delta=delta), ayni_part(accepted))
        held, self._held = self._held, []
        return opening + b"".join(self._notice(notice) for notice in held)

    def _notice(self, notice: Notice) -> bytes:
        shape = NoticeShape(notice.code, notice.sentence)
        return self._chunk(ChunkChoice(delta=Delta()), AyniPart(notice=shape))

    def _finished(self, finished: Finished) -> bytes:
        assert self._accepted is not None
        last = ChunkChoice(delta=Delta(), finish_reason=finished.reason)
        events = self._chunk(last, ayni_part(self._accepted, finished))
        if self._wanted.include_usage:
            events += self._event(choices=(), usage=_usage(finished), part=UNSET)
        return events + STREAM_END

    def _chunk(self, choice: ChunkChoice, part: AyniPart | UnsetType = UNSET) -> bytes:
        usage = None if self._wanted.include_usage else UNSET
        return self._event(choices=(choice,), usage=usage, part=part)

    def _event(
        self,
        choices: tuple[ChunkChoice, ...],
        usage: Usage | UnsetType | None,
        part: AyniPart | UnsetType,
    ) -> bytes:
        accepted = self._accepted
        return _server_sent(
            Chunk(
                id=self._id,
                created=self._created,
                model=self._wanted.job.model if accepted is None else accepted.model,
                choices=choices,
                usage=usage,
                ayni=part,
            )
        )


def error_event(error: AyniError) -> bytes:
    """The last event of a stream that fails in the middle: OpenAI's clients raise it."""
    return _server_sent(error_body(error))


def _server_sent(value: Struct) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def completion(
    identifier: str, created: int, said: Sequence[Text], accepted: Accepted, finished: Finished
) -> Completion:
    choice = Choice(
        message=Message("".join(piece.text for piece in said)),
        finish_reason=finished.reason,
        logprobs=choice_logprobs(chain.from_iterable(piece.logprobs for piece in said)),
    )
    return Completion(
        id=identifier,
        created=created,
        model=accepted.model,
        choices=(choice,),
        usage=_usage(finished),
        ayni=ayni_part(accepted, finished),
    )
