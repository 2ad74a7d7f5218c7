"""Small models of random numbers, packed as the kernels want them, and the same in plain torch.

The numbers come from SHAKE-256, so they are the same on every machine and with every torch.
"""

import ctypes
import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from node.worker.engine.kernels.library import ABI, Batch, Kernels, Layer, Matrix, Model, Rope

BLOCK = 32
GROUP = 32


@dataclass(frozen=True)
class Plan:
    """The sizes of a model, and which features it has."""

    layers: int = 2
    width: int = 96
    inner_width: int = 160
    heads: int = 6
    key_heads: int = 3
    head_width: int = 16
    vocabulary: int = 203  # Not a multiple of eight.
    context: int = 256
    blocks: int = 40
    rows_max: int = 96
    activation: int = 0
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    embedding_scale: float = 1.0
    windows: tuple[int, ...] = (0, 0)
    body: int = 0  # Q4; 1: Q8.
    bias: bool = False
    query_key_norm: bool = False
    post_norms: bool = False
    tied: bool = True
    seed: bytes = b"one"

    def but(self, **changes: object) -> Self:
        return replace(self, **changes)  # type: ignore[arg-type]


PLAIN = Plan()
GEMMA = Plan(
    activation=1,
    attention_softcap=5.0,
    logit_softcap=3.0,
    embedding_scale=9.75,
    windows=(40, 0),
    body=1,
    query_key_norm=True,
    post_norms=True,
    seed=b"gemma",
)
QWEN = Plan(
    head_width=24,
    heads=8,
    key_heads=2,
    vocabulary=128,
    bias=True,
    query_key_norm=True,
    tied=False,
    seed=b"qwen",
)


def numbers(plan: Plan, name: str, count: int) -> Tensor:
    """Bytes that follow from the seed and a name, as int16."""
    data = hashlib.shake_256(plan.seed + b"/" + name.encode()).digest(count)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(torch.int16)


def aligned(tensor: Tensor) -> Tensor:
    """A copy as bytes at a multiple of 64."""
    flat = tensor.contiguous().reshape(-1).view(torch.uint8)
    room = torch.zeros(flat.numel() + 64, dtype=torch.uint8)
    start = -room.data_ptr() % 64
    place = room[start : start + flat.numel()]
    place.copy_(flat)
    return place


@dataclass(frozen=True)
class Packed:
    """A matrix as bytes, and what it stands for."""

    format: int
    data: Tensor
    plain: Tensor  # float64 [rows, columns]
    bias: Tensor | None = None

    def matrix(self) -> Matrix:
        rows, columns = self.plain.shape
        bias = None if self.bias is None else self.bias.data_ptr()
        return Matrix(self.data.data_ptr(), bias, self.format, rows, columns, 0)


def packed(plan: Plan, name: str, shape: tuple[int, int], format_: int) -> Packed:
    """A random matrix. Its values are whole numbers, its scales whole multiples of 2^-14."""
    rows, columns = shape
    padded, groups = -(-rows // 8) * 8, columns // GROUP
    raw = numbers(plan, f"{name}/values", padded * columns).reshape(padded, groups, GROUP)
    drawn = numbers(plan, f"{name}/scales", padded * groups).reshape(padded, groups)
    live = (torch.arange(padded) < rows)[:, None]
    if format_ == 0:
        values = raw % 16
        scale = ((drawn % 64 + 32).double() * 2.0**-11 * live).half()
        minimum = (scale.double() * -(7 + drawn % 3 - 1).double()).half()
    else:
        values = (raw - 128).clamp(-127, 127)
        scale = ((drawn % 64 + 32).double() * 2.0**-14 * live).half()
        minimum = torch.zeros_like(scale)
    plain = values.double() * scale.double()[..., None] + minimum.double()[..., None]
    plain = plain.reshape(padded, columns)[:rows]
    heads = [_by_eights(scale)] + ([_by_eights(minimum)] if format_ == 0 else [])
    if format_ == 0:
        low, high = values[..., :16], values[..., 16:]
        body = (low | high << 4).to(torch.uint8).reshape(padded // 8, 8, groups, 4, 4)
    else:
        body = values.to(torch.int8).view(torch.uint8).reshape(padded // 8, 8, groups, 8, 4)
    body = body.permute(0, 2, 3, 1, 4).reshape(padded // 8, groups, -1)
    return Packed(format_, aligned(torch.cat([*heads, body], dim=2)), plain)


def _by_eights(numbers_: Tensor) -> Tensor:
    rows, groups = numbers_.shape
    eights = numbers_.reshape(rows // 8, 8, groups).permute(0, 2, 1).contiguous()
    return eights.view(torch.uint8).reshape(rows // 8, groups, 16)


@dataclass
class RandomModel:
    """A model of a plan; `model` points into what the object holds."""

    plan: Plan
    kernels: Kernels
    threads: int = 4
    kept: dict[str, Packed] = field(default_factory=dict)
    vectors: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = self.plan
        attended, width = plan.heads * plan.head_width, plan.width
        every = attended + 2 * plan.key_heads * plan.head_width
        shapes = {
            "query_key_value": (every, width),
            "attention_out": (width, attended),
            "gate_up": (2 * plan.inner_width, width),
            "down": (width, plan.inner_width),
        }
        self.kept["embedding"] = packed(plan, "embedding", (plan.vocabulary, width), 1)
        head = "embedding" if plan.tied else "head"
        self.kept["head"] = packed(plan, head, (plan.vocabulary, width), 1)
        for layer in range(plan.layers):
            for name, shape in shapes.items():
                body = packed(plan, f"{layer}/{name}", shape, plan.body)
                if plan.bias and name == "query_key_value":
                    bias = (numbers(plan, f"{layer}/bias", every) - 128).float() / 512
                    body = replace(body, bias=bias)
                self.kept[f"{layer}/{name}"] = body
        self.rotations = torch.empty(plan.context, plan.head_width // 2, 2)
        address = self.rotations.data_ptr()
        self.kernels.rotations(address, plan.context, plan.head_width // 2, Rope(10000.0, 1.0, 0))

    def vector(self, name: str, count: int, wanted: bool = True) -> Tensor | None:
        if not wanted:
            return None
        if name not in self.vectors:
            self.vectors[name] = 0.5 + numbers(self.plan, name, count).float() / 256
        return self.vectors[name]

    def layer_vectors(self, layer: int) -> dict[str, Tensor | None]:
        plan = self.plan
        qk, post = plan.query_key_norm, plan.post_norms
        return {
            "attention_norm": self.vector(f"{layer}/attention_norm", plan.width),
            "feed_norm": self.vector(f"{layer}/feed_norm", plan.width),
            "query_norm": self.vector(f"{layer}/query_norm", plan.head_width, qk),
            "key_norm": self.vector(f"{layer}/key_norm", plan.head_width, qk),
            "attention_post_norm": self.vector(f"{layer}/attention_post", plan.width, post),
            "feed_post_norm": self.vector(f"{layer}/feed_post", plan.width, post),
        }

    @cached_property
    def model(self) -> Model:
        plan = self.plan
        layers = (Layer * plan.layers)()
        for index in range(plan.layers):
            names = ("query_key_value", "attention_out", "gate_up", "down")
            for name in names:
                setattr(layers[index], name, self.kept[f"{index}/{name}"].matrix())
            for name, tensor in self.layer_vectors(index).items():
                setattr(layers[index], name, None if tensor is None else tensor.data_ptr())
            layers[index].rotations = self.rotations.data_ptr()
            layers[index].window = plan.windows[index]
        halves = plan.blocks * plan.layers * plan.key_heads * plan.head_width * BLOCK
        # What no step has written is no number: it must not matter.
        self.keys = torch.full((halves,), 0x7E00, dtype=torch.int16)
        self.values = self.keys.clone()
        self.layers = layers
        model = Model(
            ABI,
            *(plan.layers, plan.width, plan.inner_width, plan.heads, plan.key_heads),
            *(plan.head_width, plan.vocabulary, plan.context, plan.activation),
            *(plan.blocks, plan.rows_max, 1e-5, plan.head_width**-0.5, plan.attention_softcap),
            *(plan.logit_softcap, plan.embedding_scale, layers),
            *(self.kept["embedding"].matrix(), self.kept["head"].matrix()),
            self.vector("norm", plan.width).data_ptr(),  # type: ignore[union-attr]
            *(self.keys.data_ptr(), self.values.data_ptr(), 0),
        )
        size = self.kernels.scratch_bytes(model, self.threads)
        assert size > 0
        self.scratch = aligned(torch.zeros(size, dtype=torch.uint8))
        model.scratch = self.scratch.data_ptr()
        return model


@dataclass(frozen=True)
class Rows:
    """A batch: rows of (sequence, position, token), the blocks of each sequence, the rows that
    are wanted."""

    rows: list[tuple[int, int, int]]
    table: list[list[int]]
    wanted: list[int]


@dataclass
class Steps:
    """Runs batches on a model by one path with some threads."""

    random: RandomModel
    path: int
    threads: int = 1

    def __enter__(self) -> Self:
        self.pool = self.random.kernels.pool_open(self.threads)
        return self

    def __exit__(self, *_: object) -> None:
        self.random.kernels.pool_close(self.pool)

    def run(self, batch: Rows) -> tuple[Tensor, Tensor]:
        """Hidden rows and logits. The model has scratch for `threads` of the random model."""
        plan = self.random.plan
        sequence, position, token = torch.tensor(batch.rows, dtype=torch.int32).T.contiguous()
        table = torch.tensor(batch.table, dtype=torch.int32)
        wanted = torch.tensor(batch.wanted, dtype=torch.int32)
        hidden = torch.full((len(batch.wanted), plan.width), 7.0)
        logits = torch.full((len(batch.wanted), plan.vocabulary), 7.0)
        argument = Batch(
            *(len(batch.rows), table.shape[0], table.shape[1], len(batch.wanted)),
            *(token.data_ptr(), sequence.data_ptr(), position.data_ptr(), table.data_ptr()),
            *(wanted.data_ptr(), hidden.data_ptr(), logits.data_ptr()),
        )
        model = ctypes.byref(self.random.model)
        status = self.random.kernels.step(self.pool, self.path, model, ctypes.byref(argument))
        assert status == 0, status
        return hidden, logits

    def whole(self, ids: list[int], chunk: int = 96) -> tuple[Tensor, Tensor]:
        """All rows of one sequence, read in chunks, in blocks from 0 on."""
        table = [list(range(-(-len(ids) // BLOCK)))]
        parts = []
        for start in range(0, len(ids), chunk):
            some = list(enumerate(ids))[start : start + chunk]
            rows = [(0, position, token) for position, token in some]
            parts.append(self.run(Rows(rows, table, list(range(len(rows))))))
        return torch.cat([h for h, _ in parts]), torch.cat([x for _, x in parts])


def ids_of(plan: Plan, count: int, name: str = "ids") -> list[int]:
    """Random tokens."""
    drawn = numbers(plan, name, 2 * count).reshape(count, 2).to(torch.int64)
    return [int(high * 256 + low) % plan.vocabulary for high, low in drawn]
