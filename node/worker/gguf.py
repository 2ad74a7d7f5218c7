"""Reads the header of a GGUF file: untrusted data, so every length is checked before it is used.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little
endian). Only the header is kept; the bytes of a tensor are read one tensor at a time.
"""

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.worker.quantised import BLOCK_FORMATS, BlockFormat
from node.worker.weight_file import bad_model
from protocol.errors import Code, LocalError

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
KEYS_MAX: Final = 4096
TENSORS_MAX: Final = 65_536
STRING_BYTES_MAX: Final = 1 << 20
ARRAY_ITEMS_MAX: Final = 4 << 20  # The largest vocabularies have some 300 k tokens and merges.
DIMENSIONS_MAX: Final = 4
ALIGNMENT_MAX: Final = 1 << 16

_STRING, _ARRAY = 8, 9
_SCALARS: Final = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip


FORMATS: Final = {
    number: BLOCK_FORMATS[name]
    for number, name in {
        0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K",
        11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 30: "BF16",
    }.items()
}  # fmt: skip

Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor is. `shape` has the rows first, as torch has it: the file's order reversed."""

    name: str
    shape: tuple[int, ...]
    format: BlockFormat
    offset: int  # From the start of the file.
    size_bytes: int


class GgufFile:
    """The header of one file."""

    def __init__(
        self, path: Path, metadata: dict[str, Value], tensors: dict[str, TensorInfo]
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.tensors = tensors

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise bad_model(self.path, f"{key} is not an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise bad_model(self.path, f"{key} is not a number")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        value = self.metadata.get(key, default)
        if not isinstance(value, bool):
            raise bad_model(self.path, f"{key} is neither true nor false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise bad_model(self.path, f"{key} is not a text")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.metadata.get(key)
        if not isinstance(value, tuple):
            raise bad_model(self.path, f"{key} is not a list")
        texts = [item for item in value if isinstance(item, str)]
        if len(texts) != len(value):
            raise bad_model(self.path, f"{key} holds something else than texts")
        return texts

    def integers(self, key: str) -> list[int]:
        value = self.metadata.get(key)
        if not isinstance(value, tuple):
            raise bad_model(self.path, f"{key} is not a list")
        integers = [item for item in value if type(item) is int]
        if len(integers) != len(value):
            raise bad_model(self.path, f"{key} holds something else than integers")
        return integers

    def numbers(self, key: str) -> list[float]:
        value = self.metadata.get(key)
        if not isinstance(value, tuple):
            raise bad_model(self.path, f"{key} is not a list")
        numbers = [float(item) for item in value if type(item) in (int, float)]
        if len(numbers) != len(value):
            raise bad_model(self.path, f"{key} holds something else than numbers")
        return numbers

    def tensor(self, name: str, shape: tuple[int, ...]) -> TensorInfo:
        """The tensor of this name, if it has this shape."""
        info = self.tensors.get(name)
        if info is None:
            raise bad_model(self.path, f"it has no tensor {name}")
        if info.shape != shape:
            raise bad_model(self.path, f"{name} is {info.shape}, where {shape} is needed")
        return info


def read_gguf(path: Path) -> GgufFile:
    """The header of the file at `path`.

    Raises LocalError: NOT_FOUND when it cannot be opened, BAD_MODEL when it is not a whole GGUF
    file of types that this engine knows.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 24:
                raise bad_model(path, "it is too short to be a GGUF file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data, size).file()
    except OSError as error:
        raise LocalError(
            Code.NOT_FOUND, f"The weights at {path} cannot be read: {error.strerror}."
        ) from None


class _Reader:
    """A place in the file that only moves forward and never leaves it."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self._path = path
        self._data = data
        self._size = size
        self._at = 0

    def file(self) -> GgufFile:
        if self._take(4) != MAGIC:
            raise self._bad("it is no GGUF file")
        version = self._scalar("I")
        if version not in VERSIONS:
            raise self._bad(f"it is GGUF version {version}, and 2 and 3 are known")
        tensors, keys = self._count(TENSORS_MAX, "tensors"), self._count(KEYS_MAX, "keys")
        metadata: dict[str, Value] = {}
        for _ in range(keys):
            key = self._string()
            if key in metadata:
                raise self._bad("a key comes twice")
            metadata[key] = self._value(self._kind())
        infos = [self._tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= ALIGNMENT_MAX:
            raise self._bad("its alignment makes no sense")
        base = -(-self._at // alignment) * alignment
        return GgufFile(self._path, metadata, self._placed(infos, base))

    def _placed(self, infos: list[TensorInfo], base: int) -> dict[str, TensorInfo]:
        placed: dict[str, TensorInfo] = {}
        for info in infos:
            offset = base + info.offset
            if info.name in placed:
                raise self._bad("a tensor comes twice")
            if offset + info.size_bytes > self._size:
                raise self._bad("a tensor lies beyond the end of the file")
            placed[info.name] = TensorInfo(
                info.name, info.shape, info.format, offset, info.size_bytes
            )
        return placed

    def _tensor(self) -> TensorInfo:
        name = self._string()
        dimensions = int(self._scalar("I"))
        if not 1 <= dimensions <= DIMENSIONS_MAX:
            raise self._bad(f"a tensor has {dimensions} dimensions")
        shape = [int(self._scalar("Q")) for _ in range(dimensions)]
        kind, offset = int(self._scalar("I")), int(self._scalar("Q"))
        format = FORMATS.get(kind)
        if format is None:
            known = ", ".join(each.name for each in FORMATS.values())
            raise self._bad(f"a tensor is of type {kind}, and known are {known}")
        count = 1
        for length in shape:
            # Each factor is checked against the file, so the product stays a small number.
            if not 1 <= length <= self._size * format.values:
                raise self._bad("the shape of a tensor makes no sense")
            count *= length
        if shape[0] % format.values:
            raise self._bad(f"the rows of a tensor are no whole blocks of {format.name}")
        size = count // format.values * format.size_bytes
        if size > self._size:
            raise self._bad("a tensor is larger than the file")
        return TensorInfo(name, tuple(reversed(shape)), format, offset, size)

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(self._code(kind))
        item, count = self._kind(), self._count(ARRAY_ITEMS_MAX, "items of a list")
        if item == _STRING:
            return tuple(self._string() for _ in range(count))
        code = self._code(item)
        raw = self._take(struct.calcsize(code) * count)
        values: tuple[Scalar, ...] = struct.unpack(f"<{count}{code}", raw)
        return values

    def _code(self, kind: int) -> str:
        code = _SCALARS.get(kind)
        if code is None:
            raise self._bad(f"a value is of type {kind}, which has no place here")
        return code

    def _kind(self) -> int:
        return int(self._scalar("I"))

    def _count(self, most: int, what: str) -> int:
        count = int(self._scalar("Q"))
        if count > most:
            raise self._bad(f"it speaks of {count} {what}, and {most} are the most")
        return count

    def _string(self) -> str:
        length = int(self._scalar("Q"))
        if length > STRING_BYTES_MAX:
            raise self._bad(f"a text of {length} bytes is too long")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self._bad("a text is not UTF-8") from None

    def _scalar(self, code: str) -> int | float | bool:
        value: int | float | bool = struct.unpack(f"<{code}", self._take(struct.calcsize(code)))[0]
        return value

    def _take(self, count: int) -> bytes:
        if count > self._size - self._at:
            raise self._bad("it ends in the middle of its header")
        data = self._data[self._at : self._at + count]
        self._at += count
        return data

    def _bad(self, what: str) -> LocalError:
        return bad_model(self._path, what)
