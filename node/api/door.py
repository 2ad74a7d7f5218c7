"""Who comes in: loopback names only, the key, and bodies of a bounded size read in bounded time."""

import hmac
from typing import Final

import trio
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.api.answers import error_answer, json_answer
from node.api.failures import ErrorBody, ErrorObject
from protocol.errors import Code, LocalError
from protocol.limits import PROMPT_BYTES_MAX

BODY_BYTES_MAX: Final = 6 * PROMPT_BYTES_MAX + (64 << 10)
"""JSON may write each byte of a prompt as six, and the rest of a request is small."""
BODY_SECONDS_MAX: Final = 30
LINGER_SECONDS_MAX: Final = 1
_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
_OPEN_PATHS: Final = frozenset({"/healthz"})


class Door:
    """Stands before the application. A page of another site that has its name resolve to us
    (DNS rebinding) still sends its own name as the host, and is turned away by that."""

    def __init__(self, application: ASGIApp, key: str) -> None:
        assert key
        self._application, self._key = application, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        body = b""
        if refusal is None:
            try:
                with trio.fail_after(BODY_SECONDS_MAX):
                    body = await _body(receive)
            except _Gone:
                return
            except LocalError as error:
                refusal = error_answer(error, {"connection": "close"})
            except trio.TooSlowError:
                late = LocalError(Code.TIMEOUT, "The body of the request did not come in time.")
                refusal = error_answer(late, {"connection": "close"})
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)
            return
        await self._application(scope, _replayed(body, receive), send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").rpartition(":")
        name = host[0] if host[0] and host[2].isdigit() else headers.get("host", "")
        if name.lower() not in _HOSTS:
            return _refused(403, "wrong_host", "Ask by the name 127.0.0.1 or localhost.")
        if scope["path"] in _OPEN_PATHS:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode("latin-1", "replace")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._key):
            return _refused(
                401,
                "invalid_api_key",
                "This needs the header 'Authorization: Bearer KEY' with the key of this node; "
                "'ayni status' shows the file that holds it.",
            )
        return None


class _Gone(Exception):
    """The client left before its request was whole."""


def _refused(status: int, code: str, sentence: str) -> Response:
    error = ErrorObject(sentence, "invalid_request_error", None, code)
    headers = {"connection": "close"}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return json_answer(ErrorBody(error), status, headers)


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise LocalError(
                Code.TOO_LARGE, f"The body is too large; at most {BODY_BYTES_MAX} bytes are taken."
            )
        if not message.get("more_body", False):
            return bytes(body)


async def _refuse(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer once the body, or as much of it as comes in a moment, is thrown away: a connection
    that is closed on unread bytes is reset, and the client would never read why. The rest is
    thrown away meanwhile, since the server hands us the body through a short queue and would
    wait for ever on a full one when it tells us that all is over."""
    with trio.move_on_after(LINGER_SECONDS_MAX):
        await _thrown_away(receive)

    async def drain() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        await answer(scope, receive, send)
        nursery.cancel_scope.cancel()


async def _thrown_away(receive: Receive) -> None:
    size = 0
    while size <= BODY_BYTES_MAX:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body that was read here, once; then whatever else comes, which is the end."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
