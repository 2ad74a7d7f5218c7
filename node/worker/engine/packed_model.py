"""Packs what the native kernels want of a model, one thing after another, into memory or a file."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from node.worker.engine.packed_index import (
    ALIGNMENT,
    ROWS,
    Index,
    Matrix,
    Vector,
    WantedMatrix,
    WantedVector,
    obstacle,
    packed_bytes,
    wanted_matrices,
    wanted_vectors,
)
from node.worker.engine.packing import Losses, packed, packed_format
from node.worker.weight_file import bad_model
from node.worker.weights import Weights


@dataclass(frozen=True, slots=True)
class PackedModel:
    """An index, and the bytes that it speaks of: uint8, 64-byte aligned."""

    index: Index
    data: Tensor


class Sink(Protocol):
    """Takes bytes one after another."""

    @property
    def place(self) -> int:
        """How many it has taken."""

    def write(self, data: Tensor) -> None:
        """Take uint8, contiguous. Raises OSError."""


class MemorySink:
    """Memory of at most so many bytes; those that nobody writes to are never really there."""

    def __init__(self, bytes_max: int) -> None:
        self._data = torch.empty(bytes_max, dtype=torch.uint8)
        self._place = 0

    @property
    def place(self) -> int:
        return self._place

    @property
    def data(self) -> Tensor:
        return self._data[: self._place]

    def write(self, data: Tensor) -> None:
        flat = data.reshape(-1)
        self._data[self._place : self._place + flat.numel()] = flat
        self._place += flat.numel()


def packed_model_bytes(weights: Weights) -> int:
    """What the packed model takes, known before anything is read. Raises LocalError BAD_MODEL
    where a tensor is missing."""
    total = 0
    for matrix in wanted_matrices(weights.shape).values():
        size = packed_bytes(_format(weights, matrix), matrix.rows, matrix.columns)
        total += size + -size % ALIGNMENT
    for vector in wanted_vectors(weights.shape).values():
        if _is_there(weights, vector):
            total += 4 * vector.count + -4 * vector.count % ALIGNMENT
    return total


def pack_model(weights: Weights, sink: Sink) -> Index:
    """Pack everything into `sink`, which must stand at a multiple of 64 bytes.

    Raises LocalError BAD_MODEL: a tensor is missing, has another shape, or numbers that are none;
    OSError from the sink.
    """
    shape = weights.shape
    assert not obstacle(shape)
    losses = Losses()
    matrices = {
        name: _matrix(weights, wanted, sink, losses)
        for name, wanted in wanted_matrices(shape).items()
    }
    vectors: dict[str, Vector] = {}
    for name, wanted in wanted_vectors(shape).items():
        if not _is_there(weights, wanted):
            continue
        tensors = [weights.tensor(part, (count,)) for part, count in wanted.parts]
        offset = sink.place
        sink.write(torch.cat(tensors).contiguous().view(torch.uint8))
        vectors[name] = Vector(wanted.count, offset)
        _align(sink)
    return Index(shape, weights.container, list(losses.sentences()), matrices, vectors, sink.place)


def _is_there(weights: Weights, wanted: WantedVector) -> bool:
    return not wanted.is_optional or wanted.parts[0][0] in weights


def _format(weights: Weights, wanted: WantedMatrix) -> int:
    return packed_format([weights.format(part) for part, _ in wanted.parts])


def _matrix(weights: Weights, wanted: WantedMatrix, sink: Sink, losses: Losses) -> Matrix:
    format, offset = _format(weights, wanted), sink.place
    for name, rows in wanted.parts:
        assert rows % ROWS == 0 or len(wanted.parts) == 1
        blocks = weights.blocks(name, rows, wanted.columns)
        try:
            for piece in packed(blocks, format, losses):
                sink.write(piece)
        except ValueError as error:
            raise bad_model(weights.path, f"{error}, in {name}") from None
    _align(sink)
    return Matrix(format, wanted.rows, wanted.columns, offset)


def _align(sink: Sink) -> None:
    """So that the next thing begins at a multiple of 64 bytes."""
    lacking = -sink.place % ALIGNMENT
    if lacking:
        sink.write(torch.zeros(lacking, dtype=torch.uint8))
