"""BERT encoders: texts of any lengths, packed one after another, to one vector of length 1 each.

The model is that of Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers"
(2019), as Hugging Face computes it; the pooling that of Reimers and Gurevych, "Sentence-BERT"
(2019).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional

from node.worker.encoder_shape import EncoderShape

Read = Callable[[str, tuple[int, ...]], Tensor]
"""A tensor in float32 by its name, of a shape that it must have; LocalError BAD_MODEL."""


@dataclass(frozen=True, slots=True)
class _Linear:
    weight: Tensor  # [out, in], in the numbers that are computed in.
    bias: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.linear(rows.to(self.weight.dtype), self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Tensor  # float32.
    bias: Tensor
    epsilon: float

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True, slots=True)
class _Layer:
    query_key_value: _Linear
    attended: _Linear
    attended_norm: _Norm
    inner: _Linear
    outer: _Linear
    outer_norm: _Norm


class Bert:
    """Rows between layers, sums and norms are float32; matrices and attention are computed in
    `numbers`."""

    def __init__(
        self, shape: EncoderShape, read: Read, device: torch.device, numbers: torch.dtype
    ) -> None:
        self._shape = shape
        self._device = device
        loading = _Loading(shape, read, device, numbers)
        width = shape.width
        self._words = loading.table("embeddings.word_embeddings.weight", shape.vocabulary)
        positions = loading.table("embeddings.position_embeddings.weight", shape.positions)
        types = loading.table("embeddings.token_type_embeddings.weight", shape.token_types)
        self._places = positions[: shape.tokens_max] + types[0]  # All tokens are of one text.
        self._norm = loading.norm("embeddings.LayerNorm", width)
        self._layers = [loading.layer(number) for number in range(shape.layers)]

    @torch.inference_mode()
    def encode(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """float32 [texts, width], on the CPU, each row of length 1.

        `texts` are ids below `vocabulary`, 1 to `tokens_max` of each. Texts of equal length that
        stand beside each other are attended to together, so it pays to sort them.
        """
        lengths = [len(text) for text in texts]
        ids = torch.tensor([token for text in texts for token in text], device=self._device)
        places = torch.cat([torch.arange(length) for length in lengths]).to(self._device)
        rows = self._norm(functional.embedding(ids, self._words) + self._places[places])
        groups = list(_groups(lengths))
        for layer in self._layers:
            attended = self._attend(layer.query_key_value(rows), groups)
            rows = layer.attended_norm(rows + layer.attended(attended))
            inner = functional.gelu(layer.inner(rows))
            rows = layer.outer_norm(rows + layer.outer(inner))
        return functional.normalize(self._pooled(rows, lengths), dim=-1).cpu()

    def _attend(self, packed: Tensor, groups: Sequence[tuple[int, int, int]]) -> Tensor:
        """Each text attends to itself. `packed` is [tokens, 3 * width]; so is the answer, less the
        factor 3."""
        heads = self._shape.heads
        out = packed.new_empty(len(packed), self._shape.width)
        for start, texts, length in groups:
            end = start + texts * length
            split = packed[start:end].view(texts, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
            found = functional.scaled_dot_product_attention(split[0], split[1], split[2])
            out[start:end] = found.transpose(1, 2).reshape(end - start, -1)
        return out

    def _pooled(self, rows: Tensor, lengths: Sequence[int]) -> Tensor:
        counts = torch.tensor(lengths, device=self._device)
        if self._shape.pooling == "first":
            return rows[counts.cumsum(0) - counts]
        texts = torch.arange(len(lengths), device=self._device).repeat_interleave(counts)
        sums = rows.new_zeros(len(lengths), rows.shape[1]).index_add_(0, texts, rows)
        return sums / counts[:, None]


def _groups(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(first token, number of texts, length of each) for each run of equal lengths."""
    start = 0
    for length, run in groupby(lengths):
        texts = len(list(run))
        yield start, texts, length
        start += texts * length


@dataclass(frozen=True, slots=True)
class _Loading:
    """Parts of the model out of a file, by Hugging Face's names."""

    shape: EncoderShape
    read: Read
    device: torch.device
    numbers: torch.dtype

    def table(self, name: str, rows: int) -> Tensor:
        return self.read(name, (rows, self.shape.width)).to(self.device)

    def norm(self, name: str, width: int) -> _Norm:
        weight = self.read(f"{name}.weight", (width,)).to(self.device)
        bias = self.read(f"{name}.bias", (width,)).to(self.device)
        return _Norm(weight, bias, self.shape.epsilon)

    def linear(self, names: Sequence[str], rows: int, columns: int) -> _Linear:
        """One matrix of several that read the same rows."""
        weights = [self.read(f"{name}.weight", (rows, columns)) for name in names]
        biases = [self.read(f"{name}.bias", (rows,)) for name in names]
        return _Linear(
            torch.cat(weights).to(self.device, self.numbers),
            torch.cat(biases).to(self.device, self.numbers),
        )

    def layer(self, number: int) -> _Layer:
        width, inner = self.shape.width, self.shape.inner
        name = f"encoder.layer.{number}"
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        return _Layer(
            query_key_value=self.linear(parts, width, width),
            attended=self.linear([f"{name}.attention.output.dense"], width, width),
            attended_norm=self.norm(f"{name}.attention.output.LayerNorm", width),
            inner=self.linear([f"{name}.intermediate.dense"], inner, width),
            outer=self.linear([f"{name}.output.dense"], width, inner),
            outer_norm=self.norm(f"{name}.output.LayerNorm", width),
        )
