"""The structs that the native kernels read: addresses of packed weights, and a shape's numbers."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from node.worker.engine.kernels import library
from node.worker.engine.kernels.library import Kernels, Rope
from node.worker.engine.model import BLOCK_TOKENS, STEP_ROWS_MAX
from node.worker.engine.packed_index import EMBEDDING, HEAD, OUTPUT_NORM, ROPE_DIVISORS
from node.worker.engine.packed_model import PackedModel
from node.worker.engine.room import Need, Room
from node.worker.shape import Shape
from protocol.errors import Code, LocalError

_ACTIVATIONS: Final = {"silu": 0, "gelu_tanh": 1}
_GUESSED_ROWS: Final = 8
_LAYER_MATRICES: Final = ("query_key_value", "attention_out", "gate_up", "down")
_LAYER_VECTORS: Final = (
    "attention_norm", "feed_norm", "query_norm", "key_norm", "attention_post_norm",
    "feed_post_norm",
)  # fmt: skip


def cache_numbers(shape: Shape) -> int:
    """float16 in one block of keys, and as many in one of values."""
    return shape.layers * shape.key_heads * shape.head_width * BLOCK_TOKENS


def need(shape: Shape, weights_bytes: int, kernels: Kernels, threads: int, slots: int) -> Need:
    """What a model of this shape takes. Raises LocalError UNAVAILABLE for a shape that the kernels
    refuse."""
    scratch = kernels.scratch_bytes(_numbers(shape, Room(1, shape.context_tokens, "")), threads)
    if not scratch:
        raise LocalError(Code.UNAVAILABLE, "The native kernels cannot run a model of this shape.")
    tables = 2 if _has_local_tables(shape) else 1
    # A row for each sequence, or for each guess where only a few of them are.
    logits = 4 * shape.vocabulary * max(slots, _GUESSED_ROWS)
    return Need(
        weights_bytes + scratch + logits, 4 * cache_numbers(shape), 4 * tables * shape.head_width
    )


class Plan:
    """An ayni_model and all that it points to."""

    def __init__(self, packed: PackedModel, kernels: Kernels, room: Room, threads: int) -> None:
        shape = packed.index.shape
        self.weights = packed.data
        self.shape = shape
        numbers = room.blocks * cache_numbers(shape)
        self.keys = torch.empty(numbers, dtype=torch.float16)
        self.values = torch.empty(numbers, dtype=torch.float16)
        self._tables = _tables(packed, kernels, room.context_tokens)
        model = _numbers(shape, room)
        self._layers = (library.Layer * shape.layers)(
            *(self._layer(packed, layer) for layer in range(shape.layers))
        )
        model.layer = self._layers
        model.embedding = _matrix(packed, EMBEDDING)
        model.head = _matrix(packed, EMBEDDING if shape.tied else HEAD)
        model.norm = _vector(packed, OUTPUT_NORM)
        model.keys, model.values = self.keys.data_ptr(), self.values.data_ptr()
        scratch_bytes = kernels.scratch_bytes(model, threads)
        assert scratch_bytes
        self.scratch = _aligned(scratch_bytes)
        model.scratch = self.scratch.data_ptr()
        self._model = model
        self.model = torch.frombuffer(model, dtype=torch.uint8)  # Its bytes, as torch has them.

    def _layer(self, packed: PackedModel, layer: int) -> library.Layer:
        shape = self.shape
        values = library.Layer()
        for name in _LAYER_MATRICES:
            setattr(values, name, _matrix(packed, f"{layer}.{name}"))
        for name in _LAYER_VECTORS:
            setattr(values, name, _vector(packed, f"{layer}.{name}"))
        windowed = shape.windowed[layer]
        local = windowed and _has_local_tables(shape)
        values.rotations = self._tables["local" if local else "global"].data_ptr()
        values.window = shape.window if windowed else 0
        return values


def _numbers(shape: Shape, room: Room) -> library.Model:
    """Without addresses: enough to ask how much scratch a step needs."""
    return library.Model(
        abi=library.ABI,
        layers=shape.layers,
        width=shape.width,
        inner_width=shape.inner_width,
        heads=shape.heads,
        key_heads=shape.key_heads,
        head_width=shape.head_width,
        vocabulary=shape.vocabulary,
        context=room.context_tokens,
        activation=_ACTIVATIONS[shape.activation],
        blocks=room.blocks,
        rows_max=STEP_ROWS_MAX,
        norm_epsilon=shape.norm_epsilon,
        attention_scale=shape.attention_scale,
        attention_softcap=shape.attention_softcap,
        logit_softcap=shape.logit_softcap,
        embedding_scale=shape.embedding_scale,
    )


def _has_local_tables(shape: Shape) -> bool:
    """Whether layers with a window rotate otherwise than those without."""
    return any(shape.windowed) and (
        shape.rope_base_local != shape.rope_base or shape.rope_scale != 1.0
    )


def _tables(packed: PackedModel, kernels: Kernels, positions: int) -> Mapping[str, Tensor]:
    """float32 [positions][half][2]: cosines and sines, of which layers share one or two."""
    shape = packed.index.shape
    ropes = {"global": Rope(shape.rope_base, shape.rope_scale, _vector(packed, ROPE_DIVISORS) or 0)}
    if _has_local_tables(shape):
        ropes["local"] = Rope(shape.rope_base_local, 1.0, 0)
    tables = {}
    for name, rope in ropes.items():
        table = _aligned(4 * positions * shape.head_width)
        kernels.rotations(table.data_ptr(), positions, shape.head_width // 2, rope)
        tables[name] = table
    return tables


def _matrix(packed: PackedModel, name: str) -> library.Matrix:
    matrix = packed.index.matrices[name]
    return library.Matrix(
        data=packed.data.data_ptr() + matrix.offset,
        bias=_vector(packed, f"{name}.bias"),
        format=matrix.format,
        rows=matrix.rows,
        columns=matrix.columns,
    )


def _vector(packed: PackedModel, name: str) -> int | None:
    """The address of a vector, None where this model has no such thing."""
    vector = packed.index.vectors.get(name)
    return None if vector is None else packed.data.data_ptr() + vector.offset


def _aligned(size_bytes: int) -> Tensor:
    """uint8 at a multiple of 64 bytes; nothing of it is there before it is written to."""
    raw = torch.empty(size_bytes + library.ALIGNMENT, dtype=torch.uint8)
    skipped = -raw.data_ptr() % library.ALIGNMENT
    return raw[skipped : skipped + size_bytes]
