"""What a server of the OpenAI API streams, in typed pieces. Pure; the server is not trusted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct

from protocol.errors import Code, LocalError
from protocol.limits import TOKEN_TEXT_BYTES_MAX

LINE_BYTES_MAX: Final = 256 << 10  # An event has some hundred bytes and the text of a token.
RESPONSE_BYTES_MAX: Final = 64 << 20  # The longest answer has 32,768 tokens, 500 bytes each.
COUNTED_MAX: Final = 1 << 31  # Tokens of one answer; a rate of so many still fits an advert.
_LAST: Final = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Said:
    """The next text: one token, as both sides of a job count it. Never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why there is no more: "stop" or "length"."""

    reason: str


@dataclass(frozen=True, slots=True)
class Counted:
    """What the server counted itself: for rates, never for money."""

    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The server says that this was all."""


Event = Said | Stopped | Counted | Closed


class _Words(Struct):
    content: str | None = None


class _Choice(Struct):
    delta: _Words | None = None  # Of a chat.
    text: str | None = None  # Of a completion.
    finish_reason: str | None = None


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Data(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: object = None


_decoder = msgspec.json.Decoder(_Data)


class EventStream:
    """Server-sent events (WHATWG HTML, section 9.2), of which only `data` matters here."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._total_bytes = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """What is whole now. Raises LocalError WORKER_FAILED for what is no such stream, before
        more of it is kept than a line."""
        self._total_bytes += len(data)
        if self._total_bytes > RESPONSE_BYTES_MAX:
            raise broken(f"sent more than {RESPONSE_BYTES_MAX} bytes")
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from self._line(line.removesuffix(b"\r"))
        if len(self._rest) > LINE_BYTES_MAX:
            raise broken(f"sent a line of more than {LINE_BYTES_MAX} bytes")

    def _line(self, line: bytes) -> Iterator[Event]:
        if not line:
            data, self._data, self._data_bytes = b"\n".join(self._data), [], 0
            if data:
                yield from _events(data)
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._data_bytes += len(value) + 1  # An empty line is kept too.
            if self._data_bytes > LINE_BYTES_MAX:
                raise broken(f"sent an event of more than {LINE_BYTES_MAX} bytes")
        elif name == b"error":  # So llama.cpp's server says that it failed in mid-answer.
            raise broken("reported an error")


def _events(data: bytes) -> Iterator[Event]:
    if data == _LAST:
        yield Closed()
        return
    try:
        told = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Its own words could quote the prompt.
        raise broken("sent an event that is none of the OpenAI API") from None
    if told.error is not None:
        raise broken("reported an error")
    for choice in told.choices[:1]:  # One answer was asked for.
        text = choice.text or (choice.delta.content if choice.delta else None)
        for piece in pieces(text or ""):
            yield Said(piece)
        if choice.finish_reason is not None:
            yield Stopped("length" if choice.finish_reason == "length" else "stop")
    if told.usage is not None:
        usage = told.usage
        yield Counted(_bounded(usage.prompt_tokens), _bounded(usage.completion_tokens))


def _bounded(tokens: int) -> int:
    return min(max(0, tokens), COUNTED_MAX)


def pieces(text: str) -> Iterator[str]:
    """A text in pieces of at most as many bytes as one token may have, none of them empty."""
    data = text.encode()
    while data:
        # What is cut is cut between two characters: none has more than four bytes.
        piece = data[:TOKEN_TEXT_BYTES_MAX].decode("utf-8", "ignore")
        yield piece
        data = data[len(piece.encode()) :]


def broken(what: str) -> LocalError:
    """The server did what it may not."""
    return LocalError(Code.WORKER_FAILED, f"The server behind this model {what}.")
