"""The command line's side of the local API: typed answers, and errors with the daemon's codes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click
import httpx
import msgspec

from node.api.chat_shapes import Chunk
from node.api.failures import ErrorBody
from node.api.views import ApiFile
from node.config import Paths
from node.keystore import read_api_key
from protocol.errors import AyniError, Code, LocalError, RemoteError, code_known

T = TypeVar("T")

_TIMEOUT: Final = httpx.Timeout(30, connect=5)
# An answer may take its time to begin; a person who tires of it presses Ctrl-C.
_LONG_TIMEOUT: Final = httpx.Timeout(None, connect=5)


def connect(paths: Paths) -> "Daemon":
    """The node of this home, until the command ends. Raises LocalError UNAVAILABLE or BAD_KEY."""
    daemon = Daemon(paths)
    click.get_current_context().call_on_close(daemon.close)
    return daemon


class Daemon:
    """The node that runs for one home. Every method raises the AyniError that the node answers
    with, and LocalError UNAVAILABLE when no node answers."""

    def __init__(self, paths: Paths) -> None:
        """Raises LocalError UNAVAILABLE where no node has begun to run."""
        self._paths = paths
        self.url = read_api_file(paths).url
        try:
            key = read_api_key(paths.api_key_file)
        except LocalError as error:
            if error.code != Code.NOT_FOUND:
                raise
            raise _not_running(paths) from None
        # Proxies of the environment are for the outside; this is loopback.
        self._client = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"},
            timeout=_TIMEOUT,
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, kind: type[T], **query: str) -> T:
        with self._answers():
            return self._read(self._client.get(path, params=query), kind)

    def post(
        self, path: str, kind: type[T], body: Mapping[str, Any] | None = None, *, long: bool = False
    ) -> T:
        """`long`: the answer may take minutes."""
        timeout = _LONG_TIMEOUT if long else _TIMEOUT
        with self._answers():
            return self._read(self._client.post(path, json=body, timeout=timeout), kind)

    @contextmanager
    def download(self, path: str) -> Iterator[Iterator[bytes]]:
        """The bytes of an answer as they come; an answer that breaks off raises."""
        with self._answers(), self._client.stream("GET", path, timeout=_LONG_TIMEOUT) as response:
            if response.status_code != 200:
                response.read()
                raise _refusal(response.status_code, response.content)
            yield response.iter_bytes()

    def alive(self) -> bool:
        """Whether anybody still answers; for waiting until a node has ended."""
        try:
            self._client.get("/healthz")
        except httpx.TransportError:
            return False
        return True

    @contextmanager
    def chat(self, body: Mapping[str, Any]) -> Iterator[Iterator[Chunk]]:
        """The chunks of a streamed answer; leaving the context early cancels the job."""
        with self._answers():
            call = self._client.stream(
                "POST", "/v1/chat/completions", json=body, timeout=_LONG_TIMEOUT
            )
            with call as response:
                if response.status_code != 200:
                    response.read()
                    raise _refusal(response.status_code, response.content)
                yield _chunks(response.iter_bytes())

    def _read(self, response: httpx.Response, kind: type[T]) -> T:
        if response.status_code >= 300:
            raise _refusal(response.status_code, response.content)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.MsgspecError as error:
            raise LocalError(
                Code.UNAVAILABLE,
                f"What runs at {self.url} does not answer as this version's node does ({error}). "
                "Restart it with `ayni down` and `ayni up`.",
            ) from None

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError:
            raise _not_running(self._paths) from None
        except httpx.TransportError as error:
            raise LocalError(
                Code.UNAVAILABLE,
                f"The node at {self.url} broke off ({type(error).__name__}). "
                f"Its log is {self._paths.log_file}.",
            ) from None


def read_api_file(paths: Paths) -> ApiFile:
    """Raises LocalError UNAVAILABLE where no node runs."""
    try:
        return msgspec.json.decode(paths.api_file.read_bytes(), type=ApiFile)
    except (OSError, msgspec.MsgspecError):
        raise _not_running(paths) from None


def _not_running(paths: Paths) -> LocalError:
    return LocalError(
        Code.UNAVAILABLE,
        f"No node runs for {paths.config_folder}: start it with `ayni up`, "
        "or name another home with --home.",
    )


def _refusal(status: int, content: bytes) -> AyniError:
    try:
        error = msgspec.json.decode(content, type=ErrorBody).error
    except msgspec.MsgspecError:
        return LocalError(Code.UNAVAILABLE, f"The node answered with HTTP status {status}.")
    kind = LocalError if status < 500 else RemoteError
    return kind(code_known(error.code), error.message, error.retry_ms)


def _chunks(pieces: Iterator[bytes]) -> Iterator[Chunk]:
    """The JSON of each `data:` line. Split at line feeds only: other line breaks of Unicode may
    stand within an answer's text."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data: ")
            if data == line or data == b"[DONE]":
                continue
            if data.startswith(b'{"error"'):
                raise _refusal(502, data)
            yield msgspec.json.decode(data, type=Chunk)
