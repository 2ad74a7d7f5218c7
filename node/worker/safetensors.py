"""Reads files of safetensors: untrusted data, so every length is checked before it is used.

The format (https://github.com/huggingface/safetensors#format): 8 bytes of length, little endian;
a JSON object from names to type, shape and place; then the tensors' bytes, without holes and
without overlaps. Nothing in it can be run.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, BinaryIO, Final, Self

import msgspec
from msgspec import Meta, Struct
from torch import Tensor

from node.worker.quantised import Blocks, dequantised
from node.worker.weight_file import bad_model, open_file, part

HEADER_BYTES_MAX: Final = 16 << 20  # 65,536 tensors of 250 bytes each; real ones have some KiB.
TENSORS_MAX: Final = 65_536
DIMENSIONS_MAX: Final = 8
_LENGTH_BYTES: Final = 8
_ITEM_BYTES: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2,
    "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
_WEIGHT_TYPES: Final = ("F32", "F16", "BF16")

_Count = Annotated[int, Meta(ge=0, le=1 << 62)]


class _Entry(Struct, frozen=True, forbid_unknown_fields=True):
    dtype: Annotated[str, Meta(max_length=16)]
    shape: Annotated[list[_Count], Meta(max_length=DIMENSIONS_MAX)]
    data_offsets: tuple[_Count, _Count]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor is."""

    file: int  # Of the files that are read together.
    format: str
    shape: tuple[int, ...]
    offset: int  # From the start of the file.
    size_bytes: int


class SafetensorsFiles:
    """One model's files, opened together as a context; a tensor at a time is read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Reads the headers.

        Raises LocalError: NOT_FOUND when one cannot be opened, BAD_MODEL when one is no whole
        file of this format, or a tensor is in two of them.
        """
        assert paths
        self.paths = paths
        self.tensors: dict[str, StoredTensor] = {}
        self._files: list[BinaryIO] = []
        for number, path in enumerate(paths):
            for name, tensor in _header(path, number).items():
                if name in self.tensors:
                    raise bad_model(path, f"another file has {name[:60]} too")
                self.tensors[name] = tensor

    def __enter__(self) -> Self:
        try:
            for path in self.paths:
                self._files.append(open_file(path))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        while self._files:
            self._files.pop().close()

    def blocks(self, name: str, rows: int, columns: int) -> Blocks:
        """A matrix as it is stored. Raises LocalError BAD_MODEL: no such tensor, another shape or
        type, or a file that has become shorter since its header was read."""
        return self._blocks(name, (rows, columns))

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """float32, of this shape. Raises LocalError as `blocks` does."""
        return dequantised(self._blocks(name, shape)).reshape(shape)

    def format(self, name: str) -> str:
        """The type of a tensor. Raises LocalError BAD_MODEL for one that is not there, or is of a
        type that weights do not come in."""
        return self._weight(name)[0].format

    def _blocks(self, name: str, shape: tuple[int, ...]) -> Blocks:
        stored, path = self._weight(name)
        if stored.shape != shape:
            raise bad_model(path, f"{name[:80]} is {stored.shape}, where {shape} is needed")
        raw = part(self._files[stored.file], path, stored.offset, stored.size_bytes)
        rows = stored.size_bytes // (shape[-1] * _ITEM_BYTES[stored.format])
        return Blocks(stored.format, rows, shape[-1], raw.reshape(rows, -1))

    def _weight(self, name: str) -> tuple[StoredTensor, Path]:
        stored = self.tensors.get(name)
        if stored is None:
            raise bad_model(self.paths[0], f"it has no tensor {name[:80]}")
        path = self.paths[stored.file]
        if stored.format not in _WEIGHT_TYPES:
            known = ", ".join(_WEIGHT_TYPES)
            raise bad_model(path, f"{name[:80]} is of type {stored.format}, and known are {known}")
        return stored, path


def _header(path: Path, number: int) -> dict[str, StoredTensor]:
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
            raise bad_model(path, "it ends in the middle of its header")
        if length > HEADER_BYTES_MAX:
            raise bad_model(path, f"its header of {length} bytes is too long")
        raw = file.read(length)
    entries = _entries(path, raw)
    base = _LENGTH_BYTES + length
    tensors = {
        name: StoredTensor(
            number, e.dtype, tuple(e.shape), base + e.data_offsets[0], _size(path, e)
        )
        for name, e in entries.items()
    }
    end = base
    for tensor in sorted(tensors.values(), key=lambda each: (each.offset, each.size_bytes)):
        if tensor.offset != end:
            raise bad_model(path, "its tensors overlap, or have holes between them")
        end += tensor.size_bytes
    if end != size:
        raise bad_model(path, "its tensors end elsewhere than the file")
    return tensors


def _entries(path: Path, raw: bytes) -> dict[str, _Entry]:
    try:
        header = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        if len(header) > TENSORS_MAX:
            raise bad_model(path, f"it speaks of {len(header)} tensors, {TENSORS_MAX} are the most")
        return {name: msgspec.json.decode(entry, type=_Entry) for name, entry in header.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise bad_model(path, "its header is no list of tensors") from None


def _size(path: Path, entry: _Entry) -> int:
    """In bytes, once type, shape and offsets agree."""
    item = _ITEM_BYTES.get(entry.dtype)
    if item is None:
        raise bad_model(path, f"a tensor is of the unknown type {entry.dtype}")
    begin, end = entry.data_offsets
    if math.prod(entry.shape) * item != end - begin:
        raise bad_model(path, "a tensor's shape and its size do not agree")
    return end - begin
