"""Packed weights on disk: written once, whole or not at all, then mapped at every start.

It is made by a process of its own (node.worker.pack): a worker that serves writes nothing.
"""

import ctypes
import errno
import mmap
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Final

import msgspec
import torch
from torch import Tensor

from node.worker.engine.packed_index import (
    DIGEST_BYTES,
    PRELUDE_BYTES,
    Header,
    NotPackedError,
    prelude,
    read_header,
    read_index,
)
from node.worker.engine.packed_model import PackedModel, pack_model, packed_model_bytes
from node.worker.engine.torch_threads import one_thread
from node.worker.weights import Weights

SPARE_BYTES: Final = 64 << 20  # What is left free on the disk.


class FileSink:
    """Writes to a file, and keeps the digest of what it wrote."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._state = blake2b(digest_size=DIGEST_BYTES)
        self._place = 0

    @property
    def place(self) -> int:
        return self._place

    @property
    def digest(self) -> bytes:
        return self._state.digest()

    def write(self, data: Tensor) -> None:
        raw = raw_bytes(data)
        self._state.update(raw)
        self._file.write(raw)
        self._place += len(raw)


def _check_space(folder: Path, size: int) -> None:
    """A disk that would be full is left as it is."""
    if shutil.disk_usage(folder).free < size + SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def raw_bytes(data: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, not copied, while the tensor lives."""
    assert data.is_contiguous()
    size = data.numel() * data.element_size()
    return memoryview((ctypes.c_char * size).from_address(data.data_ptr())).cast("B")


def write_packed(path: Path, model: bytes, weights: Weights) -> None:
    """Pack a model into the file at `path`. It stands there whole or not at all; two processes
    that want the same one wait for each other, and the second finds it done.

    Raises LocalError BAD_MODEL as pack_model does, OSError: the disk is full or may not be
    written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path) as file:
        with suppress(NotPackedError):
            read_index(path, model)
            return
        _check_space(path.parent, packed_model_bytes(weights))
        file.truncate(0)
        file.write(bytes(PRELUDE_BYTES))
        sink = FileSink(file)
        with torch.inference_mode(), one_thread():
            index = pack_model(weights, sink)
        header = msgspec.msgpack.encode(Header(model, sink.digest, index))
        file.write(header)
        file.seek(0)
        file.write(prelude(sink.place, header))
        file.flush()
        os.fsync(file.fileno())
        os.replace(_part(path), path)
    _sync_folder(path.parent)
    for other in path.parent.glob(f"{model.hex()}-*"):
        if other != path:
            # Of another layout, or begun by a process that died.
            other.unlink(missing_ok=True)


def map_packed(path: Path, model: bytes) -> PackedModel:
    """The file at `path`, mapped: nothing of it is read until it is used, and processes that use
    the same file share it in memory. Raises NotPackedError."""
    try:
        with path.open("rb") as file:
            index = read_header(file, model).index
            # Private, so that torch sees memory that it might write to; nobody does.
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError:
        raise NotPackedError("its packed weights are not on the disk") from None
    except OSError as error:
        raise NotPackedError(f"its packed weights cannot be read, {error.strerror}") from None
    if sys.platform == "linux":
        mapping.madvise(mmap.MADV_WILLNEED)
    data = torch.frombuffer(mapping, dtype=torch.uint8, count=index.end, offset=PRELUDE_BYTES)
    return PackedModel(index, data)


def is_intact(path: Path, model: bytes) -> bool:
    """Read the whole file and compare its digest."""
    state = blake2b(digest_size=DIGEST_BYTES)
    try:
        with path.open("rb") as file:
            header = read_header(file, model)
            file.seek(PRELUDE_BYTES)
            left = header.index.end
            while left and (block := file.read(min(left, 1 << 20))):
                state.update(block)
                left -= len(block)
    except (OSError, NotPackedError):
        return False
    return state.digest() == header.digest


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


@contextmanager
def _alone(path: Path) -> Iterator[IO[bytes]]:
    """The file that becomes `path`, for one process at a time. What a process that died left in
    it is written over."""
    part = _part(path)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
    with open(descriptor, "r+b") as file:
        if sys.platform != "win32":  # There the second fails to replace it, and packs in memory.
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield file
        finally:
            # It has another name now, or nobody needs it; whoever waits for the lock looks again.
            with suppress(FileNotFoundError):
                if os.path.samestat(part.stat(), os.fstat(file.fileno())):
                    part.unlink()


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
