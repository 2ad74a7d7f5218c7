"""A Hugging Face cache on disk, as its library lays it out, and a small hub on loopback."""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REPOSITORY = "andes/quinoa-1b"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, files: Mapping[str, bytes], commit: str = COMMIT) -> Path:
    """Lay files out: blobs by digest, a snapshot of links to them, and what main means."""
    folder = cache / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for part in (folder / "blobs", folder / "refs", snapshot):
        part.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / name).parent.mkdir(exist_ok=True)
        up = "../" * (2 + name.count("/"))
        (snapshot / name).symlink_to(Path(f"{up}blobs") / blob.name)
    (folder / "refs" / "main").write_text(commit)
    return snapshot


class FakeHub:
    """Files of one repository; `cuts` answers end in their middle."""

    def __init__(self, files: Mapping[str, bytes], cuts: int = 0) -> None:
        self.files = files
        self.cuts = cuts
        self.asked: list[tuple[str, str, str]] = []
        """(method, path, range)"""
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        ranged = handler.headers.get("range", "")
        self.asked.append((handler.command, handler.path, ranged))
        prefix = f"/{REPOSITORY}/resolve/{COMMIT}/"
        data = self.files.get(handler.path.removeprefix(prefix))
        if not handler.path.startswith(prefix) or data is None:
            handler.send_response(404)
            handler.send_header("x-error-code", "EntryNotFound")
            handler.send_header("content-length", "0")
            handler.end_headers()
            return
        start = int(ranged.removeprefix("bytes=").partition("-")[0]) if ranged else 0
        body = data[start:]
        handler.send_response(206 if ranged else 200)
        handler.send_header("etag", f'"{hashlib.sha256(data).hexdigest()}"')
        handler.send_header("x-repo-commit", COMMIT)
        handler.send_header("content-length", str(len(body)))
        if ranged:
            handler.send_header("content-range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        if handler.command == "HEAD":
            return
        cut = self.cuts > 0
        self.cuts -= cut
        handler.wfile.write(body[: len(body) // 2] if cut else body)
        handler.close_connection = True


@contextmanager
def open_hub(hub: FakeHub) -> Iterator[FakeHub]:
    """The hub, listening in a thread; gone at the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.answer(self)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
