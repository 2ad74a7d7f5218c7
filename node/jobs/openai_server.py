"""A server of the OpenAI API on this machine: where it is, with which key, and what it has."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import trio
from msgspec import Struct

from node.jobs.openai_http import OK, Place, call
from node.jobs.openai_request import refusal
from node.jobs.openai_stream import broken
from protocol.ids import ModelId

LIST_SECONDS: Final = 10
LIST_BYTES_MAX: Final = 1 << 20
KEY_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class WantedModel:
    """A model by its name there and its name in the network."""

    name: str
    serve_as: str
    context_tokens: int

    def is_among(self, names: Collection[str]) -> bool:
        """Ollama lists a model with its tag, and takes it without."""
        return self.name in names or f"{self.name}:latest" in names


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`url` leads to this machine: node.config sees to that."""

    url: str
    models: Mapping[ModelId, WantedModel]
    slots: int = 4
    takes: Sequence[str] = ()
    api_key_file: Path | None = None

    async def api_key(self) -> str:
        """Read each time, so that a new key needs no restart; "" where there is none."""
        if self.api_key_file is None:
            return ""
        try:
            async with await trio.open_file(self.api_key_file, encoding="ascii") as file:
                key = (await file.read(KEY_BYTES_MAX)).strip()
        except (OSError, UnicodeDecodeError):
            return ""  # The server then refuses us, and the owner reads of it.
        return key if key.isprintable() else ""


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model] = []


async def listed(place: Place, key: str) -> Collection[str]:
    """The names of all models that the server has. Raises LocalError."""
    body = b""
    try:
        with trio.fail_after(LIST_SECONDS):
            async with call(place, "models", key, None, LIST_SECONDS) as reply:
                if reply.status != OK:
                    raise refusal(reply.status)
                while data := await reply.read():
                    body += data
                    if len(body) > LIST_BYTES_MAX:
                        raise broken(f"lists its models in more than {LIST_BYTES_MAX} bytes")
    except trio.TooSlowError:
        raise broken(f"did not list its models within {LIST_SECONDS} s") from None
    try:
        return {model.id for model in msgspec.json.decode(body, type=_Models).data}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise broken("lists its models as the OpenAI API does not") from None
