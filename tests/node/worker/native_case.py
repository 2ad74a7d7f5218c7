"""A tiny model packed in memory and run by the native kernels, for tests of what they compute."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from node.worker.engine.blocks import blocks_for
from node.worker.engine.kernels import library
from node.worker.engine.kernels.library import Kernels
from node.worker.engine.model import Draw, Piece
from node.worker.engine.native_model import NativeModel
from node.worker.engine.packed_model import MemorySink, PackedModel, pack_model, packed_model_bytes
from node.worker.engine.room import Room
from node.worker.pipe import File
from node.worker.weights import open_weights
from protocol.job.sampling import Sampling
from tests.tiny_model import tiny_model

BLOCKS = 96
GREEDY = Draw(Sampling(), bytes(32), 0, (), ())


def kernels() -> Kernels:
    """The compiled library, or the test is skipped."""
    found = library.load()
    if found is None:
        pytest.skip("no kernels: run python -m node.worker.engine.kernels.build")
    return found


def weights_file(path: Path) -> File:
    return File("weights", path.name, str(path))


def packed_tiny(path: Path, kind: int, seed: int = 1) -> PackedModel:
    """A tiny model whose matrices are of this type, as packed weights."""
    with open_weights([weights_file(tiny_model(path, seed, kind))]) as weights:
        sink = MemorySink(packed_model_bytes(weights))
        return PackedModel(pack_model(weights, sink), sink.data)


def native(packed: PackedModel, threads: int = 1, path: int | None = None) -> NativeModel:
    """By the fastest path, or by this one; a cache of BLOCKS blocks."""
    found = kernels()
    chosen = found.paths()[0][0] if path is None else path
    return NativeModel(packed, found, Room(BLOCKS, 1024, ""), threads, chosen)


def prompt(tokens: int, seed: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.randrange(260) for _ in range(tokens)]


def whole(model: NativeModel, ids: Sequence[int], blocks: Sequence[int] | None = None) -> Tensor:
    """The logits after every token of a sequence that is read at once, by itself."""
    place = range(blocks_for(len(ids))) if blocks is None else blocks
    return model.logits([Piece(place, 0, ids, [GREEDY] * len(ids))])


def same_bits(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.view(torch.int32), second.view(torch.int32))
