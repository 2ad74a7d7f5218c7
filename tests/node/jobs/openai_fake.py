"""A small server of the OpenAI API on loopback: real HTTP, and answers by a script.

`python -m tests.node.jobs.openai_fake` runs one until it is ended, and prints its port.
"""

import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import h11
import trio

NAME = "llama3.2:3b"
WORDS = ("Maize", " and", " quinoa", " grow", " in", " the", " high", " Andes", ", too", ".")


def event(value: object) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def said(text: str, *, chat: bool = True) -> bytes:
    choice: dict[str, Any] = {"index": 0, "finish_reason": None}
    choice |= {"delta": {"content": text}} if chat else {"text": text}
    return event({"id": "x", "object": "chunk", "choices": [choice]})


def finish(reason: str = "stop") -> bytes:
    return event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


def usage(prompt: int, output: int) -> bytes:
    counted = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": 0}
    return event({"choices": [], "usage": counted})


DONE = event(b"[DONE]")


@dataclass
class Reply:
    """A status, and what is sent after it: bytes, and seconds of silence; with a None it ends
    in the middle of the body."""

    parts: list[bytes | float | None]
    status: int = 200
    head_seconds: float = 0  # Before the status.


def plain(*words: str, chat: bool = True, pause: float = 0) -> Reply:
    """A whole answer as servers give it."""
    parts: list[bytes | float | None] = [
        event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
    ]
    for word in words:
        parts += [said(word, chat=chat), pause] if pause else [said(word, chat=chat)]
    return Reply([*parts, finish(), usage(9, len(words)), DONE])


@dataclass
class FakeServer:
    """What it has, and what it says to a call: `answer(path, body)`."""

    answer: Callable[[str, dict[str, Any]], Reply] = lambda path, body: plain(*WORDS)
    models: list[str] = field(default_factory=lambda: [NAME])
    key: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    port: int = 0
    listing: bytes | None = None  # In place of the list of models.
    hung_up: int = 0  # Callers that left during a silence.
    _heard: trio.Event = field(default_factory=trio.Event)
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        """End, with all connections."""
        self._scope.cancel()

    async def listen(self, listeners: list[trio.SocketListener]) -> None:
        with trio.CancelScope() as self._scope:
            await trio.serve_listeners(self.serve, listeners)

    async def wait_hung_up(self) -> None:
        while not self.hung_up:
            await self._heard.wait()

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, which is for one request."""
        connection = h11.Connection(h11.SERVER)
        async with stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._exchange(stream, connection)

    async def _exchange(self, stream: trio.SocketStream, connection: h11.Connection) -> None:
        request = await _next(stream, connection)
        if not isinstance(request, h11.Request):
            return  # Somebody only looked whether we listen.
        body = b""
        while isinstance(data := await _next(stream, connection), h11.Data):
            body += bytes(data.data)
        path = request.target.decode().removeprefix("/v1/")
        headers = dict(request.headers)
        reply = self._reply(path, json.loads(body or b"{}"), headers)
        await self._send(stream, connection, reply)

    def _reply(self, path: str, body: dict[str, Any], headers: dict[bytes, bytes]) -> Reply:
        if self.key and headers.get(b"authorization") != f"Bearer {self.key}".encode():
            return Reply([b"{}"], 401)
        if path == "models":
            names = json.dumps({"data": [{"id": name} for name in self.models]}).encode()
            return Reply([names if self.listing is None else self.listing])
        self.calls.append((path, body))
        return self.answer(path, body)

    async def _send(
        self, stream: trio.SocketStream, connection: h11.Connection, reply: Reply
    ) -> None:
        async def tell(event: h11.Response | h11.Data | h11.EndOfMessage) -> None:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(connection.send(event) or b"")

        left = deque(reply.parts)

        async def watch() -> None:
            # A caller that still listens says nothing more.
            with suppress(trio.BrokenResourceError):
                await stream.receive_some(1)
            if left and isinstance(left[0], float):
                self.hung_up += 1
                self._heard.set()
                self._heard = trio.Event()
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.sleep(reply.head_seconds)
            await tell(h11.Response(status_code=reply.status, headers=[("x", "y")]))
            while left:
                if isinstance(left[0], bytes):
                    await tell(h11.Data(data=left[0]))
                elif left[0] is not None:
                    await trio.sleep(left[0])
                left.popleft()
            nursery.cancel_scope.cancel()
        if not left and None not in reply.parts:
            await tell(h11.EndOfMessage())


async def _next(stream: trio.SocketStream, connection: h11.Connection) -> object:
    while (got := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await stream.receive_some(65536))
    return got


@asynccontextmanager
async def open_fake(server: FakeServer, port: int = 0) -> AsyncIterator[FakeServer]:
    """The server, listening; on leaving it is gone, with all its connections."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    server.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.listen, listeners)
        try:
            yield server
        finally:
            server.stop()


async def _main() -> None:
    async with open_fake(FakeServer(lambda path, body: plain(*WORDS, pause=0.02))) as server:
        print(server.port, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_main)
