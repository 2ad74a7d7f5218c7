"""The calls under /ayni/v1/wallet and /ayni/v1/ledger."""

from typing import Annotated, TypeVar

import msgspec
import trio
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from node.api.answers import cancel_when_gone, error_answer, json_answer
from node.api.channel_views import ChannelField
from node.api.control import limit_of
from node.api.failures import BadParameter
from node.api.ledger_backend import LedgerBackend, Payment
from node.api.ledger_views import (
    ACCOUNTS_SHOWN_MAX,
    LINES_DEFAULT,
    LINES_MAX,
    WAIT_MS_DEFAULT,
    WAIT_MS_MAX,
)
from protocol.errors import AyniError
from protocol.ids import MessageId, NodeId, node_parsed
from protocol.ledger.audit import Depth
from protocol.limits import DIGEST_BYTES, MICROCREDITS_MAX

T = TypeVar("T")


class SendRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`to` is a whole node id: who pays by a program pays no name that anybody can take."""

    to: str
    amount_microcredits: Annotated[int, Meta(ge=1, le=MICROCREDITS_MAX)]
    note_digest: Annotated[str, Meta(pattern=rf"\A([0-9a-f]{{{2 * DIGEST_BYTES}}})?\Z")] = ""
    wait_ms: Annotated[int, Meta(ge=0, le=WAIT_MS_MAX)] = WAIT_MS_DEFAULT


class SettleRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    channel: ChannelField


class VerifyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    depth: Depth = Depth.FULL


class ResumeRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    override: bool = False


class LedgerControl:
    """The endpoints over one node's ledger."""

    def __init__(self, ledger: LedgerBackend) -> None:
        self._ledger = ledger

    async def wallet(self, request: Request) -> Response:
        return json_answer(self._ledger.wallet())

    async def send(self, request: Request) -> Response:
        asked = await _asked(request, SendRequest)
        payment = Payment(
            to=_node(asked.to, "to"),
            amount_microcredits=asked.amount_microcredits,
            reference=bytes.fromhex(asked.note_digest) or bytes(DIGEST_BYTES),
            wait_ms=asked.wait_ms,
        )
        sent = await self._ledger.send(payment)
        return json_answer(sent, 200 if sent.certified else 202)

    async def channels(self, request: Request) -> Response:
        return json_answer(self._ledger.channels())

    async def settle(self, request: Request) -> Response:
        asked = await _asked(request, SettleRequest)
        return json_answer(await self._ledger.settle(MessageId(bytes.fromhex(asked.channel))))

    async def history(self, request: Request) -> Response:
        limit = limit_of(request, LINES_DEFAULT, LINES_MAX)
        return json_answer(await self._ledger.history(limit))

    async def show(self, request: Request) -> Response:
        account = _node(request.query_params.get("account", ""), "account")
        limit = limit_of(request, LINES_DEFAULT, LINES_MAX)
        return json_answer(await self._ledger.chain(account, limit))

    async def accounts(self, request: Request) -> Response:
        limit = limit_of(request, ACCOUNTS_SHOWN_MAX, ACCOUNTS_SHOWN_MAX)
        return json_answer(await self._ledger.accounts(limit))

    async def proofs(self, request: Request) -> Response:
        return json_answer(await self._ledger.proofs())

    async def audit(self, request: Request) -> Response:
        return json_answer(await self._ledger.audit())

    async def verify(self, request: Request) -> Response:
        asked = await _asked(request, VerifyRequest)
        return json_answer(await self._ledger.verify(asked.depth))

    async def export(self, request: Request) -> Response:
        return _Export(self._ledger)

    async def resume(self, request: Request) -> Response:
        asked = await _asked(request, ResumeRequest)
        return json_answer(await self._ledger.resume(override=asked.override))


def ledger_routes(ledger: LedgerBackend) -> list[Route]:
    control = LedgerControl(ledger)
    return [
        Route("/ayni/v1/wallet", control.wallet),
        Route("/ayni/v1/wallet/send", control.send, methods=["POST"]),
        Route("/ayni/v1/wallet/history", control.history),
        Route("/ayni/v1/wallet/channels", control.channels),
        Route("/ayni/v1/wallet/settle", control.settle, methods=["POST"]),
        Route("/ayni/v1/ledger/show", control.show),
        Route("/ayni/v1/ledger/accounts", control.accounts),
        Route("/ayni/v1/ledger/proofs", control.proofs),
        Route("/ayni/v1/ledger/audit", control.audit),
        Route("/ayni/v1/ledger/verify", control.verify, methods=["POST"]),
        Route("/ayni/v1/ledger/export", control.export, methods=["GET"]),
        Route("/ayni/v1/ledger/resume", control.resume, methods=["POST"]),
    ]


class _Export(Response):
    """The bytes as they come. The first piece is awaited before the status is sent, so that what
    fails at once is told as any error; what fails later breaks the connection off, which no
    client can take for the end."""

    def __init__(self, ledger: LedgerBackend) -> None:
        super().__init__()
        self._ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_gone, receive, nursery.cancel_scope)
            await self._streamed(scope, receive, send)
            nursery.cancel_scope.cancel()

    async def _streamed(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        try:
            async with self._ledger.export() as pieces:
                first = await anext(pieces, b"")
                begun = True
                await send(_EXPORT_START)
                await send({"type": "http.response.body", "body": first, "more_body": True})
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except AyniError as error:
            if begun:
                raise
            await error_answer(error)(scope, receive, send)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


_EXPORT_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/octet-stream"), (b"cache-control", b"no-store")],
}


async def _asked(request: Request, kind: type[T]) -> T:
    """The body of a call; none is an empty object. Raises BadParameter, which names the field."""
    data = await request.body() or b"{}"
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$.")
        raise BadParameter(place.rstrip("`")[:64] or "body", f"{said}.") from None
    except msgspec.DecodeError as error:
        raise BadParameter("body", f"The body must be a JSON object: {error}.") from None


def _node(text: str, parameter: str) -> NodeId:
    try:
        return node_parsed(text)
    except ValueError as error:
        raise BadParameter(parameter, f"{parameter!r}: {error}.") from None
