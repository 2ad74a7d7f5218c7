"""POST /v1/chat/completions: one chat, streamed or whole; a client that leaves cancels its job."""

import secrets
import time

import trio
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from node.api.answers import cancel_when_gone, error_answer, json_answer
from node.api.backend import Accepted, Backend, Finished, Notice, Text
from node.api.chat_request import ChatRequest, chat_request
from node.api.chat_shapes import ChunkWriter, completion, error_event
from node.api.providers import provider_id
from protocol.errors import AyniError


class ChatCompletions:
    """The endpoint over one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def answer(self, request: Request) -> Response:
        wanted = chat_request(await request.body())
        if wanted.provider:
            provider = provider_id(self._backend, wanted.provider)
            wanted = replace(wanted, job=replace(wanted.job, provider=provider))
        return ChatAnswer(self._backend, wanted)


class ChatAnswer(Response):
    """Runs the job while it answers, so that the job lives exactly as long as the response."""

    def __init__(self, backend: Backend, wanted: ChatRequest) -> None:
        super().__init__()
        self._backend, self._wanted = backend, wanted
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_gone, receive, nursery.cancel_scope)
            # An error is answered inside the nursery: outside it would be wrapped in a group.
            if self._wanted.stream:
                await self._streamed(scope, receive, send)
            else:
                answer = await self._whole()
                await answer(scope, receive, send)
            nursery.cancel_scope.cancel()

    async def _whole(self) -> Response:
        said: list[Text] = []
        accepted: Accepted | None = None
        finished: Finished | None = None
        try:
            async with self._backend.chat(self._wanted.job) as events:
                async for event in events:
                    match event:
                        case Accepted():
                            accepted = event
                        case Text():
                            said.append(event)
                        case Finished():
                            finished = event
                        case Notice():
                            pass  # How the answer came about; the answer says who gave it.
        except AyniError as error:
            return error_answer(error)
        assert accepted is not None
        assert finished is not None
        return json_answer(completion(self._id, self._created, said, accepted, finished))

    async def _streamed(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = ChunkWriter(self._id, self._created, self._wanted)
        begun = False

        async def put(piece: bytes) -> None:
            nonlocal begun
            if not begun and piece:
                begun = True
                await send(_STREAM_START)
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})

        try:
            async with self._backend.chat(self._wanted.job) as events:
                async for event in events:
                    await put(writer.event(event))
        except AyniError as error:
            if not begun:  # It can still be told by an HTTP status.
                await error_answer(error)(scope, receive, send)
                return
            await put(error_event(error))
        assert begun
        await send({"type": "http.response.body", "body": b"", "more_body": False})


_STREAM_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
    ],
}
