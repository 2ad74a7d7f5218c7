"""Files checked by digest, once: what was checked is remembered beside them until they change.

All functions here block, and run in a thread when a daemon calls them.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from protocol.errors import Code, LocalError

BLOCK_BYTES = 1 << 20
RECORD_BYTES_MAX = 1 << 14

Moved = Callable[[int], None]
"""Told of bytes read so far; it may raise to stop, as a cancelled thread does."""


class _Checked(msgspec.Struct, frozen=True):
    """What a file was when its digest was computed."""

    path: str
    size_bytes: int
    changed_at_ns: int
    inode: int
    sha256: str


def file_sha256(path: Path, records: Path, moved: Moved) -> str:
    """The SHA-256 of a file in hex, computed only if it changed since it last was: `records` is
    the folder that remembers. Raises OSError."""
    path = path.absolute()
    status = path.stat()
    known = _read_record(_record_file(path, records))
    if known is not None:
        now = (str(path), status.st_size, status.st_mtime_ns, status.st_ino)
        if now == (known.path, known.size_bytes, known.changed_at_ns, known.inode):
            return known.sha256
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        found = copy_hashed(file, None, None, moved)
        after = os.fstat(file.fileno())
    # A file that changes while it is read is hashed again at its next use.
    if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
        _remember(path, after, found, records)
    return found


def remember_sha256(path: Path, sha256: str, records: Path) -> None:
    """A file that was just written and hashed on its way need not be read again. Raises OSError."""
    _remember(path.absolute(), path.stat(), sha256, records)


def _remember(path: Path, status: os.stat_result, sha256: str, records: Path) -> None:
    checked = _Checked(str(path), status.st_size, status.st_mtime_ns, status.st_ino, sha256)
    # It saves time only, and a cache can be shared by users who may not all write to it.
    with contextlib.suppress(OSError):
        _write_atomically(_record_file(path, records), msgspec.json.encode(checked))


def _record_file(path: Path, records: Path) -> Path:
    return records / (hashlib.sha256(os.fsencode(path)).hexdigest() + ".json")


def copy_hashed(
    source: IO[bytes], target: IO[bytes] | None, size_max: int | None, moved: Moved
) -> str:
    """Read `source` to its end, into `target` if given, and return its SHA-256 in hex.

    Raises LocalError TOO_LARGE as soon as more than `size_max` bytes come, OSError.
    """
    state, total = hashlib.sha256(), 0
    while block := source.read(BLOCK_BYTES):
        total += len(block)
        if size_max is not None and total > size_max:
            raise LocalError(
                Code.TOO_LARGE, f"The file is larger than the {size_max} bytes it should have."
            )
        state.update(block)
        if target is not None:
            target.write(block)
        moved(total)
    return state.hexdigest()


def find_local(place: str, name: str, base: Path) -> Path | None:
    """The file that a source's `path` means: itself, `name` in that folder, or `name` in the
    newest snapshot of that folder of a Hugging Face cache; None when there is no such file.
    A relative path starts at `base`."""
    path = base / Path(place).expanduser()
    if path.is_file():
        return path
    if (path / name).is_file():
        return path / name
    # models--OWNER--NAME/snapshots/COMMIT/FILE, where FILE links to a blob.
    snapshots = [found for found in path.glob(f"snapshots/*/{name}") if found.is_file()]
    return max(snapshots, key=lambda found: found.stat().st_mtime_ns, default=None)


def _read_record(path: Path) -> _Checked | None:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(RECORD_BYTES_MAX), type=_Checked)
    except (OSError, msgspec.DecodeError):
        return None  # Not checked yet, or the record is damaged: then it is checked now.


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
