"""One HTTP/1.1 call to a server on this machine (RFC 9112), by h11 over trio.

A connection is for one call, so that closing it tells the server that nobody listens any more;
no proxy, no redirection and no packed body is followed.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import h11
import trio

from node.jobs.openai_stream import broken
from protocol.errors import LocalError

CONNECT_SECONDS: Final = 5
READ_BYTES: Final = 64 << 10
OK: Final = 200
_PORT: Final = 80


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server listens, and below which path its calls are."""

    host: str
    port: int
    path: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.path}"


def place_of(url: str) -> Place:
    """Of a URL that node.config has checked: it leads to this machine."""
    parts = urlsplit(url)
    # Whatever a name service says of that name.
    host = "127.0.0.1" if parts.hostname in (None, "localhost") else parts.hostname
    return Place(host or "", parts.port or _PORT, parts.path.rstrip("/"))


class Reply:
    """What the server answers. Made by `call`."""

    def __init__(
        self, stream: trio.SocketStream, connection: h11.Connection, silence_seconds: float
    ) -> None:
        self._stream = stream
        self._connection = connection
        self._silence_seconds = silence_seconds
        self.status = 0

    async def read_head(self) -> None:
        """Sets `status`. Raises LocalError WORKER_FAILED."""
        while not isinstance(event := await self._event(), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise broken("cut the connection")
        self.status = event.status_code

    async def read(self) -> bytes:
        """The next bytes of the body, none at its end. Raises LocalError WORKER_FAILED."""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _event(self) -> object:
        try:
            while (event := self._connection.next_event()) is h11.NEED_DATA:
                with trio.fail_after(self._silence_seconds):
                    self._connection.receive_data(await self._stream.receive_some(READ_BYTES))
        except trio.TooSlowError:
            raise broken(f"said nothing for {self._silence_seconds:g} s") from None
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            raise broken("cut the connection") from None
        return event


@asynccontextmanager
async def call(
    place: Place, target: str, key: str, body: bytes | None, silence_seconds: float
) -> AsyncIterator[Reply]:
    """POST `body`, or GET where it is None; leaving it closes the connection.

    Raises LocalError WORKER_FAILED, also from the reply's methods.
    """
    headers = [("host", f"{place.host}:{place.port}"), ("connection", "close")]
    headers += [("accept-encoding", "identity")]
    headers += [("authorization", f"Bearer {key}")] if key else []
    if body is not None:
        headers += [("content-type", "application/json"), ("content-length", str(len(body)))]
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="GET" if body is None else "POST", target=f"{place.path}/{target}", headers=headers
    )
    data = connection.send(request) or b""
    if body is not None:
        data += connection.send(h11.Data(data=body)) or b""
    data += connection.send(h11.EndOfMessage()) or b""
    async with await _connected(place) as stream:
        try:
            await stream.send_all(data)
        except trio.BrokenResourceError:
            raise broken("cut the connection") from None
        reply = Reply(stream, connection, silence_seconds)
        await reply.read_head()
        yield reply


async def _connected(place: Place) -> trio.SocketStream:
    try:
        with trio.fail_after(CONNECT_SECONDS):
            return await trio.open_tcp_stream(place.host, place.port)
    except (OSError, trio.TooSlowError):
        raise _down(place) from None


def _down(place: Place) -> LocalError:
    return broken(f"does not answer at {place}: start it")
