"""The packed layout read back in plain Python, as ayni_kernels.h describes it."""

import struct

import torch
from torch import Tensor

from node.worker.engine.packed_index import Q4


def unpacked(data: bytes, format: int, rows: int, columns: int) -> Tensor:
    """float32 [rows, columns]: what the packed bytes of a matrix stand for."""
    weights = torch.zeros(rows, columns)
    size = 160 if format == Q4 else 272
    for row in range(rows):
        for group in range(columns // 32):
            at = (row // 8 * (columns // 32) + group) * size
            eight = data[at : at + size]
            weights[row, 32 * group : 32 * group + 32] = _group(eight, format, row % 8)
    return weights


def _group(eight: bytes, format: int, r: int) -> Tensor:
    """The 32 weights of row `r` of a group of eight rows."""
    scale = torch.tensor(struct.unpack("<8e", eight[:16])[r])
    values = torch.zeros(32)
    if format == Q4:
        minimum = torch.tensor(struct.unpack("<8e", eight[16:32])[r])
        for c in range(4):
            for i in range(4):
                byte = eight[32 + 32 * c + 4 * r + i]
                values[4 * c + i] = byte & 15
                values[16 + 4 * c + i] = byte >> 4
        return values * scale + minimum
    for c in range(8):
        for i in range(4):
            (value,) = struct.unpack("b", eight[16 + 32 * c + 4 * r + i :][:1])
            assert value != -128
            values[4 * c + i] = value
    return values * scale
