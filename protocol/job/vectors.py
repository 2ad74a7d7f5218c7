"""Vectors of an `embed` job: how they go into chunks, and what makes one acceptable."""

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from protocol.errors import Code, RemoteError
from protocol.limits import CHUNK_VECTORS_BYTES_MAX, CHUNK_VECTORS_MAX

NUMBER_BYTES: Final = 4  # A float32, little endian.
LENGTH_SQUARED_ERROR_MAX: Final = 2e-3
"""How far from 1 the square of a vector's length may be: bfloat16 is rounded to 4e-3, and the sum
of hundreds of such squares is far nearer to 1 than each; float32 is off by 1e-6."""


def vectors_grouped(vectors: Sequence[bytes]) -> Iterator[tuple[bytes, ...]]:
    """The vectors in order, in as few groups as each fit one chunk. All have one width, of at
    most VECTOR_BYTES_MAX."""
    if not vectors:
        return
    size = min(CHUNK_VECTORS_MAX, CHUNK_VECTORS_BYTES_MAX // len(vectors[0]))
    for start in range(0, len(vectors), size):
        yield tuple(vectors[start : start + size])


def check_vectors(vectors: Sequence[bytes], bytes_before: int) -> None:
    """Whether these can be what a model made: numbers, of one width, of length 1.

    `bytes_before` is the size of each vector that came before, 0 for the first. Raises RemoteError
    CONTRADICTION.
    """
    size = bytes_before or len(vectors[0]) if vectors else 0
    for vector in vectors:
        if len(vector) != size or size % NUMBER_BYTES:
            raise RemoteError(
                Code.CONTRADICTION,
                f"A vector of {len(vector)} bytes came; those before it have {size}.",
            )
        numbers = struct.unpack(f"<{size // NUMBER_BYTES}f", vector)
        # Rounded once, whatever the order: all machines judge alike.
        squared = math.fsum(number * number for number in numbers)
        # Written so that no comparison with "not a number" lets one through.
        if not abs(squared - 1) <= LENGTH_SQUARED_ERROR_MAX:
            raise RemoteError(
                Code.CONTRADICTION, f"A vector came whose length squared is {squared:.4g}, not 1."
            )
