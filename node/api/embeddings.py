"""POST /v1/embeddings: texts to vectors, as OpenAI's clients ask and read it."""

from typing import Final

import msgspec
import trio
from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from node.api.answers import cancel_when_gone, error_answer, json_answer
from node.api.backend import Backend, EmbedJob
from node.api.chat_request import MODEL_ANY
from node.api.embedding_shapes import Encoding, embeddings_answer
from node.api.failures import BadParameter
from node.api.fields import Fields, integer_field, object_field, text_field
from node.api.providers import provider_id
from protocol.errors import AyniError
from protocol.limits import MICROCREDITS_MAX, MODEL_NAME_BYTES_MAX

TEXTS_MAX: Final = 2048  # As OpenAI's.
_TAKEN: Final = frozenset({"model", "input", "encoding_format", "dimensions", "ayni"})
_IGNORED: Final = frozenset({"user"})  # A label for OpenAI's own accounts.


class EmbeddingsRequest(Struct, frozen=True, kw_only=True):
    """What was asked, checked. `provider` is as it was written: an id, its start, or a name."""

    job: EmbedJob
    encoding: Encoding = "float"
    provider: str = ""


class EmbeddingCalls:
    """The endpoint over one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def answer(self, request: Request) -> Response:
        wanted = embeddings_request(await request.body())
        if wanted.provider:
            provider = provider_id(self._backend, wanted.provider)
            wanted = replace(wanted, job=replace(wanted.job, provider=provider))
        return _Answer(self._backend, wanted)


class _Answer(Response):
    """Runs the job while it answers, so that a client that leaves cancels it."""

    def __init__(self, backend: Backend, wanted: EmbeddingsRequest) -> None:
        super().__init__()
        self._backend, self._wanted = backend, wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_gone, receive, nursery.cancel_scope)
            # An error is answered inside the nursery: outside it would be wrapped in a group.
            try:
                found = await self._backend.embed(self._wanted.job)
            except AyniError as error:
                answer = error_answer(error)
            else:
                answer = json_answer(embeddings_answer(found, self._wanted.encoding))
            await answer(scope, receive, send)
            nursery.cancel_scope.cancel()


def embeddings_request(body: bytes) -> EmbeddingsRequest:
    """Raises BadParameter, which names the field, for all that is wrong or not supported."""
    try:
        fields = msgspec.json.decode(body, type=Fields)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        # The decoder's own words could quote a text, and errors are logged by clients.
        raise BadParameter("body", "The body is not a JSON object in UTF-8.") from None
    for name, value in fields.items():
        if name not in _TAKEN and name not in _IGNORED and value is not None:
            shown = name if len(name) <= 64 else name[:64] + "..."
            raise BadParameter(shown, f"There is no parameter {shown!r} here.")
    extras = object_field(fields, "ayni", {"provider", "cost_max_microcredits"})
    model = text_field(fields, "model", MODEL_NAME_BYTES_MAX)
    job = EmbedJob(
        model="" if model == MODEL_ANY else model,
        texts=_texts(fields.get("input")),
        width=integer_field(fields, "dimensions", 1, 1 << 16),
        cost_max_microcredits=integer_field(extras, "cost_max_microcredits", 0, MICROCREDITS_MAX),
    )
    return EmbeddingsRequest(
        job=job, encoding=_encoding(fields), provider=text_field(extras, "provider", 128)
    )


def _texts(given: object) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not 0 < len(texts) <= TEXTS_MAX:
        raise BadParameter("input", f"'input' must be a text or a list of 1 to {TEXTS_MAX}.")
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            # Ids of tokens mean something to one tokenizer only, and a job names no tokenizer.
            raise BadParameter("input", f"input[{number}] must be a text that is not empty.")
    return tuple(texts)


def _encoding(fields: Fields) -> Encoding:
    match fields.get("encoding_format"):
        case None | "float":
            return "float"
        case "base64":
            return "base64"
    raise BadParameter("encoding_format", "'encoding_format' must be float or base64.")
