"""The HTTP server: hypercorn's connections on trio, on loopback, ended promptly.

Hypercorn's own loop lets a client that does not read hold a shutdown for ever, since it shields
its sends, and it logs an application's exception with its words. So the accepting is done here.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from hypercorn.utils import wrap_app
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from node.api.answers import error_answer, json_answer
from node.api.backend import Backend
from node.api.chat import ChatCompletions
from node.api.control import Control, healthz
from node.api.door import Door
from node.api.embeddings import EmbeddingCalls
from node.api.failures import ErrorBody, ErrorObject
from node.api.ledger_control import ledger_routes
from node.supervise import contain
from node.telemetry.faults import describe
from node.telemetry.logs import Log
from protocol.errors import AyniError, Code, LocalError

HOST: Final = "127.0.0.1"
CONNECTIONS_MAX: Final = 128  # Programs of one person on one machine.
SEND_SECONDS_MAX: Final = 30  # A client that reads nothing for so long has left.
GRACE_SECONDS: Final = 0.5  # For answers already written; jobs were drained before.

_log = Log("api")


@asynccontextmanager
async def open_server(backend: Backend, key: str, port: int = 0) -> AsyncIterator[str]:
    """Serve the API inside `async with`, which gives its URL, `http://127.0.0.1:PORT`; port 0 is
    any free one. On leaving, connections end within GRACE_SECONDS. It is also quick when it is
    cancelled.

    Raises LocalError IN_USE when the port is taken.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=HOST)
    except OSError as error:
        raise LocalError(
            Code.IN_USE,
            f"The API cannot listen on {HOST}:{port} ({error.strerror}). Stop what uses the "
            "port, or set another, or 0 for any, as `port` under [api] in config.toml.",
        ) from None
    connections = _Connections(Door(application(backend), key))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(trio.serve_listeners, connections.serve, listeners, handler_nursery=nursery)
        )
        try:
            yield f"http://{HOST}:{listeners[0].socket.getsockname()[1]}"
        finally:
            await connections.end()
            nursery.cancel_scope.cancel()


def application(backend: Backend) -> Starlette:
    """Every path of the API, without the door before it."""
    chat, control = ChatCompletions(backend), Control(backend)
    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/v1/chat/completions", chat.answer, methods=["POST"]),
            Route("/v1/embeddings", EmbeddingCalls(backend).answer, methods=["POST"]),
            Route("/v1/models", control.models_for_openai),
            Route("/ayni/v1/status", control.status),
            Route("/ayni/v1/network", control.network),
            Route("/ayni/v1/peers", control.peers),
            Route("/ayni/v1/jobs", control.jobs),
            Route("/ayni/v1/models", control.models),
            Route("/ayni/v1/doctor", control.doctor),
            Route("/ayni/v1/pause", control.pause, methods=["POST"]),
            Route("/ayni/v1/resume", control.resume, methods=["POST"]),
            Route("/ayni/v1/down", control.down, methods=["POST"]),
            *ledger_routes(backend.ledger),
        ],
        exception_handlers={
            AyniError: _known_wrong,
            HTTPException: _no_such_call,
            Exception: _our_bug,
        },
    )


async def _known_wrong(request: Request, error: Exception) -> Response:
    assert isinstance(error, AyniError)
    return error_answer(error)


async def _no_such_call(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = f"There is no {request.method} {request.url.path} here."
    body = ErrorBody(ErrorObject(sentence, "invalid_request_error", None, Code.NOT_FOUND))
    return json_answer(body, error.status_code, error.headers)


async def _our_bug(request: Request, error: Exception) -> Response:
    sentence = "The node made a mistake of its own; its log says where."
    return json_answer(ErrorBody(ErrorObject(sentence, "server_error", None, "BUG")), 500)


class _FaultLogger(Logger):
    """Hypercorn's logger, without access lines, and faults told without their words (H3)."""

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        error = sys.exception()
        _log.error("answer.failed", error="unknown" if error is None else describe(error))


class _Connections:
    """The connections that are open now."""

    def __init__(self, door: Door) -> None:
        self._config = Config()
        self._config.logger_class = _FaultLogger
        self._config.errorlog = None
        self._config.include_server_header = False
        self._application = wrap_app(_framework(door), self._config.wsgi_max_body_size, "asgi")
        self._context = WorkerContext(None)
        self._open: set[_Connection] = set()
        self._ended = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        if len(self._open) >= CONNECTIONS_MAX or self._context.terminated.is_set():
            await trio.aclose_forcefully(stream)
            return
        connection = _Connection(stream)
        self._open.add(connection)
        try:
            await contain("api_connection", partial(self._talk, connection))
        finally:
            self._open.discard(connection)
            if self._context.terminated.is_set() and not self._open:
                self._ended.set()
            await trio.aclose_forcefully(stream)

    async def _talk(self, connection: "_Connection") -> None:
        wire: Any = connection
        state = ConnectionState({})
        await TCPServer(self._application, self._config, self._context, state, wire)

    async def end(self) -> None:
        """Let answers that are being written go out, then cut what is left."""
        await self._context.terminated.set()  # Idle connections close by this.
        try:
            with trio.move_on_after(GRACE_SECONDS):
                if self._open:
                    await self._ended.wait()
        finally:
            for connection in self._open:
                connection.cut()


class _Connection:
    """What hypercorn needs of a stream, with sends that end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket
        self._stream = stream
        self._sending: trio.CancelScope | None = None
        self._cut = False

    async def send_all(self, data: bytes) -> None:
        if self._cut:
            raise trio.ClosedResourceError
        # The caller shields its send from cancellation; this scope lies inside the shield.
        with trio.move_on_after(SEND_SECONDS_MAX) as self._sending:
            await self._stream.send_all(data)
        late, self._sending = self._sending.cancelled_caught, None
        if late:
            raise trio.BrokenResourceError("the client reads nothing")

    async def receive_some(self, bytes_max: int) -> bytes:
        return bytes(await self._stream.receive_some(bytes_max))

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def cut(self) -> None:
        """No send takes any longer; for when the server ends."""
        self._cut = True
        if self._sending is not None:
            self._sending.cancel()


def _framework(door: Door) -> ASGIFramework:
    framework: Any = door  # Starlette and hypercorn describe one interface in two ways.
    return framework  # type: ignore[no-any-return]
