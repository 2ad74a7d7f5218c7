"""The formats that weights are stored in, and exactly the float32 values that they stand for.

The layouts are ggml's (https://github.com/ggml-org/ggml: src/ggml-common.h, src/ggml-quants.c):
rows of blocks, each block with its scales and its values. Arithmetic is in float32 and in the
order of ggml's own reference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

SUPER_VALUES: Final = 256  # Of one block of a K format: 8 groups of 32, or 16 of 16.
_VALUES_AT_ONCE: Final = 1 << 19  # What is computed on the way then stays in a CPU's cache.


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """How a type of tensor is stored: so many values in so many bytes."""

    name: str
    values: int
    size_bytes: int


BLOCK_FORMATS: Final = {
    each.name: each
    for each in (
        BlockFormat("F32", 1, 4),
        BlockFormat("F16", 1, 2),
        BlockFormat("BF16", 1, 2),
        BlockFormat("Q4_0", 32, 18),
        BlockFormat("Q4_1", 32, 20),
        BlockFormat("Q5_0", 32, 22),
        BlockFormat("Q5_1", 32, 24),
        BlockFormat("Q8_0", 32, 34),
        BlockFormat("Q2_K", SUPER_VALUES, 84),
        BlockFormat("Q3_K", SUPER_VALUES, 110),
        BlockFormat("Q4_K", SUPER_VALUES, 144),
        BlockFormat("Q5_K", SUPER_VALUES, 176),
        BlockFormat("Q6_K", SUPER_VALUES, 210),
    )
}


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix as its file stores it."""

    format: str  # A name in BLOCK_FORMATS.
    rows: int
    columns: int
    data: Tensor  # uint8, [rows, bytes of a row], contiguous, on the CPU.


def row_bytes(format: str, columns: int) -> int:
    """Of one row; `columns` are whole blocks of this format."""
    known = BLOCK_FORMATS[format]
    assert columns % known.values == 0
    return columns // known.values * known.size_bytes


def dequantised(blocks: Blocks, numbers: torch.dtype = torch.float32) -> Tensor:
    """[rows, columns]: what the blocks stand for, rounded once to `numbers`."""
    plain = _PLAIN.get(blocks.format)
    if plain is not None:
        return blocks.data.view(plain).to(numbers)
    known, values = BLOCK_FORMATS[blocks.format], _VALUES_OF[blocks.format]
    result = torch.empty(blocks.rows, blocks.columns, dtype=numbers)
    rows = max(1, _VALUES_AT_ONCE // blocks.columns)
    for start in range(0, blocks.rows, rows):
        some = blocks.data[start : start + rows].reshape(-1, known.size_bytes)
        result[start : start + rows] = values(some).reshape(-1, blocks.columns)
    return result


_PLAIN: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

# Each of these takes [blocks, bytes of a block] and gives float32 of as many rows.


def _q4_0(raw: Tensor) -> Tensor:
    return (_nibbles(raw[:, 2:]) - 8.0) * _half(raw, 0)


def _q4_1(raw: Tensor) -> Tensor:
    return _nibbles(raw[:, 4:]) * _half(raw, 0) + _half(raw, 2)


def _q5_0(raw: Tensor) -> Tensor:
    return (_nibbles(raw[:, 6:]) + 16.0 * _bits(raw[:, 2:6]) - 16.0) * _half(raw, 0)


def _q5_1(raw: Tensor) -> Tensor:
    values = _nibbles(raw[:, 8:]) + 16.0 * _bits(raw[:, 4:8])
    return values * _half(raw, 0) + _half(raw, 2)


def _q8_0(raw: Tensor) -> Tensor:
    return raw[:, 2:].view(torch.int8) * _half(raw, 0)


def _q2_k(raw: Tensor) -> Tensor:
    scales, values = raw[:, :16], _crumbs(raw[:, 16:80]).reshape(-1, 16, 16)
    scale = _half(raw, 80) * (scales & 15)
    minimum = _half(raw, 82) * (scales >> 4)
    return values * scale[..., None] - minimum[..., None]


def _q3_k(raw: Tensor) -> Tensor:
    # Bit b of byte l of the mask is the third bit of value 32 * b + l; without it, 4 is taken off.
    mask = torch.stack([raw[:, :32] >> bit & 1 for bit in range(8)], dim=1).float()
    values = _crumbs(raw[:, 32:96]) + (mask.reshape(-1, SUPER_VALUES) - 1.0) * 4.0
    packed = raw[:, 96:108]
    low = torch.cat((packed[:, :8] & 15, packed[:, :8] >> 4), dim=1)
    high = torch.cat([packed[:, 8:] >> shift & 3 for shift in (0, 2, 4, 6)], dim=1)
    scale = _half(raw, 108) * ((low | high << 4).float() - 32.0)
    return scale[..., None] * values.reshape(-1, 16, 16)


def _q4_k(raw: Tensor) -> Tensor:
    return _scaled(raw, _half_bytes(raw[:, 16:]))


def _q5_k(raw: Tensor) -> Tensor:
    # Bit b of byte l is the fifth bit of value 32 * b + l.
    fifth = torch.stack([raw[:, 16:48] >> bit & 1 for bit in range(8)], dim=1)
    return _scaled(raw, _half_bytes(raw[:, 48:]) + 16.0 * fifth.float())


def _q6_k(raw: Tensor) -> Tensor:
    low, high = raw[:, :128].reshape(-1, 2, 64), raw[:, 128:192].reshape(-1, 2, 32)
    low = torch.cat((low & 15, low >> 4), dim=2)
    high = torch.cat([high >> shift & 3 for shift in (0, 2, 4, 6)], dim=2)
    values = (low | high << 4).float() - 32.0
    scale = _half(raw, 208) * raw[:, 192:208].view(torch.int8)
    return scale[..., None] * values.reshape(-1, 16, 16)


_VALUES_OF: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}


def _half(raw: Tensor, at: int) -> Tensor:
    """The float16 that stands at this byte of each block, as a float32 column."""
    return raw[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """A block's 16 bytes hold its first 16 values in their low halves, then 16 in the high."""
    return torch.cat((packed & 15, packed >> 4), dim=1).float()


def _bits(packed: Tensor) -> Tensor:
    """32 bits of four bytes, the lowest first."""
    return torch.stack([packed >> bit & 1 for bit in range(8)], dim=2).reshape(-1, 32).float()


def _crumbs(packed: Tensor) -> Tensor:
    """256 values of two bits: 32 bytes hold four times 32 values, the lowest bits first."""
    halves = packed.reshape(-1, 2, 32)
    values = torch.stack([halves >> shift & 3 for shift in (0, 2, 4, 6)], dim=2)
    return values.reshape(-1, SUPER_VALUES).float()


def _half_bytes(packed: Tensor) -> Tensor:
    """[blocks, 8, 32] values of four bits: 32 bytes hold 32 values low, then 32 high."""
    chunks = packed.reshape(-1, 4, 32)
    return torch.stack((chunks & 15, chunks >> 4), dim=2).reshape(-1, 8, 32).float()


def _scaled(raw: Tensor, values: Tensor) -> Tensor:
    """Values of Q4_K and Q5_K, whose eight scales and minima have six bits each: the first four
    stand alone, the upper bits of the others in the two spare bits of those."""
    packed = raw[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat((first & 63, third & 15 | first >> 6 << 4), dim=1)
    minima = torch.cat((second & 63, third >> 4 | second >> 6 << 4), dim=1)
    scale, minimum = _half(raw, 0) * scales, _half(raw, 2) * minima
    return values * scale[..., None] - minimum[..., None]
