"""What packed weights hold and where: the index of a file of them, read without torch.

A file is 64 bytes (magic, layout, sizes, the digest of the header), the packed bytes, and the
header, in which the index is.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct

from node.worker.pipe import PACKED_LAYOUT
from node.worker.shape import Shape
from node.worker.shape_limits import is_sound

GROUP: Final = 32  # Columns that share a scale.
ROWS: Final = 8  # Rows that are packed together; the last eight are filled up with zeros.
Q4: Final = 0
Q8: Final = 1
GROUP_BYTES: Final = {Q4: 160, Q8: 272}  # Of eight rows.
ALIGNMENT: Final = 64  # Of every matrix and vector: a line of the processor's cache.
EMBEDDING: Final = "embedding"
HEAD: Final = "head"
ROPE_DIVISORS: Final = "rope_divisors"
OUTPUT_NORM: Final = "norm"
MAGIC: Final = b"ayni-pkd"
PRELUDE_BYTES: Final = 64
HEADER_BYTES_MAX: Final = 4 << 20  # Some 80 bytes for each matrix and vector.
DIGEST_BYTES: Final = 32
_PRELUDE: Final = struct.Struct("<8sIIQ32s8x")


class NotPackedError(Exception):
    """There is no file of packed weights here that can be used, and why."""


def packed_bytes(format: int, rows: int, columns: int) -> int:
    """The size of a whole packed matrix."""
    return -(-rows // ROWS) * (columns // GROUP) * GROUP_BYTES[format]


class Matrix(Struct, frozen=True, array_like=True):
    """Where a packed matrix is."""

    format: int
    rows: int
    columns: int
    offset: int

    @property
    def size_bytes(self) -> int:
        return packed_bytes(self.format, self.rows, self.columns)


class Vector(Struct, frozen=True, array_like=True):
    """Where so many float32 are."""

    count: int
    offset: int

    @property
    def size_bytes(self) -> int:
        return 4 * self.count


class Index(Struct, frozen=True, array_like=True):
    """All of a packed model but its bytes."""

    shape: Shape
    container: str  # "gguf" or "safetensors".
    losses: list[str]  # What was rounded, for people.
    matrices: dict[str, Matrix]
    vectors: dict[str, Vector]
    end: int  # Behind the last of them.

    @property
    def is_whole(self) -> bool:
        """Whether everything that the shape needs is inside, each with its right size, and the
        shape is one that a model can have."""
        if not is_sound(self.shape) or obstacle(self.shape):
            return False
        matrices, vectors = wanted_matrices(self.shape), dict(wanted_vectors(self.shape))
        for name in [name for name, each in vectors.items() if each.is_optional]:
            if name not in self.vectors:
                del vectors[name]
        sizes = {name: (each.rows, each.columns) for name, each in self.matrices.items()}
        if sizes != {name: (each.rows, each.columns) for name, each in matrices.items()}:
            return False
        counts = {name: each.count for name, each in self.vectors.items()}
        if counts != {name: each.count for name, each in vectors.items()}:
            return False
        if any(each.format not in GROUP_BYTES for each in self.matrices.values()):
            return False
        places: list[Matrix | Vector] = [*self.matrices.values(), *self.vectors.values()]
        return all(
            each.offset >= 0
            and each.offset % ALIGNMENT == 0
            and each.offset + each.size_bytes <= self.end
            for each in places
        )


class Header(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    model: bytes
    digest: bytes  # BLAKE2b of the packed bytes.
    index: Index


@dataclass(frozen=True, slots=True)
class WantedMatrix:
    """A matrix of the kernels: matrices of the file, one below the other."""

    columns: int
    parts: tuple[tuple[str, int], ...]  # The name and the rows of each.

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.parts)


@dataclass(frozen=True, slots=True)
class WantedVector:
    """A vector of the kernels: vectors of the file, one after the other."""

    parts: tuple[tuple[str, int], ...]
    is_optional: bool = False

    @property
    def count(self) -> int:
        return sum(count for _, count in self.parts)


def obstacle(shape: Shape) -> str:
    """Why the native kernels cannot run a model of this shape, for people; "" if they can."""
    for what, columns in (
        ("width", shape.width),
        ("feed-forward width", shape.inner_width),
        ("width of all heads", shape.heads * shape.head_width),
    ):
        if columns % GROUP:
            return f"its {what} is {columns}, no multiple of {GROUP}"
    if shape.head_width % ROWS or shape.head_width > 256:
        return f"the width of its heads is {shape.head_width}: it takes eights, up to 256"
    if shape.heads % shape.key_heads or shape.heads // shape.key_heads * shape.head_width % GROUP:
        return f"its {shape.heads} heads do not share {shape.key_heads} key heads evenly"
    return ""


def read_index(path: Path, model: bytes) -> Index:
    """The index of the file at `path`, after a look at its sizes and its header, not its bytes.
    Raises NotPackedError."""
    try:
        with path.open("rb") as file:
            return read_header(file, model).index
    except FileNotFoundError:
        raise NotPackedError("its packed weights are not on the disk") from None
    except OSError as error:
        raise NotPackedError(f"its packed weights cannot be read, {error.strerror}") from None


def read_header(file: IO[bytes], model: bytes) -> Header:
    size = os.fstat(file.fileno()).st_size
    first = file.read(PRELUDE_BYTES)
    if len(first) < PRELUDE_BYTES or first[:8] != MAGIC:
        raise NotPackedError("the file of its packed weights is none")
    _, layout, header_bytes, end, digest = _PRELUDE.unpack(first)
    if layout != PACKED_LAYOUT:
        raise NotPackedError(
            f"the layout of its packed weights is {layout}, and {PACKED_LAYOUT} is needed"
        )
    if size != PRELUDE_BYTES + end + header_bytes or header_bytes > HEADER_BYTES_MAX:
        raise NotPackedError("the file of its packed weights is cut short")
    file.seek(PRELUDE_BYTES + end)
    raw = file.read(header_bytes)
    if blake2b(raw, digest_size=DIGEST_BYTES).digest() != digest:
        raise NotPackedError("the header of its packed weights is damaged")
    try:
        header = msgspec.msgpack.decode(raw, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NotPackedError("the header of its packed weights is of another version") from None
    if header.model != model:
        raise NotPackedError("the packed weights are those of another model")
    if header.index.end != end or not header.index.is_whole:
        raise NotPackedError("the index of its packed weights does not fit")
    return header


def prelude(end: int, header: bytes) -> bytes:
    """What a file begins with."""
    assert len(header) <= HEADER_BYTES_MAX
    digest = blake2b(header, digest_size=DIGEST_BYTES).digest()
    return _PRELUDE.pack(MAGIC, PACKED_LAYOUT, len(header), end, digest)


def wanted_matrices(shape: Shape) -> Mapping[str, WantedMatrix]:
    """By name, in the order of the packed file: that in which a step reads them."""
    return dict(_matrices(shape))


def _matrices(shape: Shape) -> Iterator[tuple[str, WantedMatrix]]:
    width, inner = shape.width, shape.inner_width
    queries, keys = shape.heads * shape.head_width, shape.key_heads * shape.head_width
    yield EMBEDDING, WantedMatrix(width, (("token_embd.weight", shape.vocabulary),))
    for layer in range(shape.layers):
        of = f"blk.{layer}."
        yield (
            f"{layer}.query_key_value",
            WantedMatrix(
                width,
                (
                    (of + "attn_q.weight", queries),
                    (of + "attn_k.weight", keys),
                    (of + "attn_v.weight", keys),
                ),
            ),
        )
        yield (
            f"{layer}.attention_out",
            WantedMatrix(queries, ((of + "attn_output.weight", width),)),
        )
        yield (
            f"{layer}.gate_up",
            WantedMatrix(width, ((of + "ffn_gate.weight", inner), (of + "ffn_up.weight", inner))),
        )
        yield f"{layer}.down", WantedMatrix(inner, ((of + "ffn_down.weight", width),))
    if not shape.tied:
        yield HEAD, WantedMatrix(width, (("output.weight", shape.vocabulary),))


def wanted_vectors(shape: Shape) -> Mapping[str, WantedVector]:
    """By name, as the kernels have them."""
    return dict(_vectors(shape))


def _vectors(shape: Shape) -> Iterator[tuple[str, WantedVector]]:
    width = shape.width
    queries, keys = shape.heads * shape.head_width, shape.key_heads * shape.head_width
    for layer in range(shape.layers):
        of = f"blk.{layer}."
        norms = {"attention_norm": ("attn_norm", width), "feed_norm": ("ffn_norm", width)}
        if shape.query_key_norm:
            norms["query_norm"] = ("attn_q_norm", shape.head_width)
            norms["key_norm"] = ("attn_k_norm", shape.head_width)
        if shape.post_norms:
            norms["attention_post_norm"] = ("post_attention_norm", width)
            norms["feed_post_norm"] = ("post_ffw_norm", width)
        for name, (stored, count) in norms.items():
            yield f"{layer}.{name}", WantedVector(((f"{of}{stored}.weight", count),))
        if shape.query_key_value_bias:
            parts = (("attn_q", queries), ("attn_k", keys), ("attn_v", keys))
            biases = tuple((f"{of}{stored}.bias", count) for stored, count in parts)
            yield f"{layer}.query_key_value.bias", WantedVector(biases)
    yield OUTPUT_NORM, WantedVector((("output_norm.weight", width),))
    divisors = (("rope_freqs.weight", shape.head_width // 2),)
    yield ROPE_DIVISORS, WantedVector(divisors, is_optional=True)
