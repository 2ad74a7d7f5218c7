"""The Llama family: RMS norms, rotary positions, grouped-query attention, SwiGLU, as in
"LLaMA: Open and Efficient Foundation Language Models" (2302.13971) and "GQA" (2305.13245).

One call reads rows of several sequences: all rows go through each matrix together, and attention
goes sequence by sequence, over exactly what that sequence has said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from node.worker.engine.device import Device
from node.worker.engine.model import Piece
from node.worker.gguf import GgufFile, bad_model
from node.worker.weights import Weights, unpermuted

# Far beyond any model that a home machine holds; the file's own size bounds the tensors.
_LAYERS_MAX = 1024
_WIDTH_MAX = 1 << 20
_FEW_ROWS_MAX = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers that a file of weights gives for a model of this family."""

    layers: int
    width: int
    inner_width: int
    heads: int
    key_heads: int
    head_width: int
    vocabulary: int
    context_tokens: int
    norm_epsilon: float
    rope_base: float


def shape_of(gguf: GgufFile) -> Shape:
    """Raises LocalError BAD_MODEL for another architecture, or numbers that do not fit."""
    architecture = gguf.text("general.architecture")
    if architecture != "llama":
        raise bad_model(gguf.path, f"its architecture is {architecture[:40]}, and known is llama")
    heads = gguf.integer("llama.attention.head_count")
    width = gguf.integer("llama.embedding_length")
    shape = Shape(
        layers=gguf.integer("llama.block_count"),
        width=width,
        inner_width=gguf.integer("llama.feed_forward_length"),
        heads=heads,
        key_heads=gguf.integer("llama.attention.head_count_kv", heads),
        head_width=gguf.integer("llama.attention.key_length", width // max(heads, 1)),
        vocabulary=len(gguf.texts("tokenizer.ggml.tokens")),
        context_tokens=gguf.integer("llama.context_length"),
        norm_epsilon=gguf.number("llama.attention.layer_norm_rms_epsilon"),
        rope_base=gguf.number("llama.rope.freq_base", 10_000.0),
    )
    widths = (width, shape.inner_width, heads, shape.key_heads, shape.head_width)
    sound = (
        all(1 <= each <= _WIDTH_MAX for each in widths)
        and 1 <= shape.layers <= _LAYERS_MAX
        and heads % shape.key_heads == 0
        and shape.head_width % 2 == 0
        and shape.context_tokens >= 1
        and 0.0 < shape.norm_epsilon < 1.0
        and 1.0 < shape.rope_base < 1e12
    )
    if not sound:
        raise bad_model(gguf.path, "the sizes in its header do not fit each other")
    _refuse_variants(gguf, shape)
    return shape


def _refuse_variants(gguf: GgufFile, shape: Shape) -> None:
    """A relative that would load and then talk nonsense is refused by name instead."""
    if gguf.integer("llama.expert_count", 0):
        raise bad_model(gguf.path, "it is a mixture of experts")
    if gguf.text("llama.rope.scaling.type", "none") != "none":
        raise bad_model(gguf.path, "it stretches its positions (rope scaling)")
    if gguf.integer("llama.rope.dimension_count", shape.head_width) != shape.head_width:
        raise bad_model(gguf.path, "it rotates only a part of each head")
    if gguf.integer("llama.attention.value_length", shape.head_width) != shape.head_width:
        raise bad_model(gguf.path, "its keys and values differ in width")
    for name in gguf.tensors:
        if name.endswith(".bias"):
            raise bad_model(gguf.path, "it has biases")


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Tensor
    query_key_value: Tensor
    attention_out: Tensor
    feed_norm: Tensor
    gate_up: Tensor
    down: Tensor
    keys: Tensor  # [slots, key heads, context, head width], and the same for values.
    values: Tensor


class Llama:
    """Weights on a device, and the cache of keys and values of `slots` sequences.

    The cache is allocated whole and touched as sequences grow: on a CPU it costs memory only as
    far as it is used.
    """

    def __init__(
        self, weights: Weights, shape: Shape, device: Device, slots: int, context_tokens: int
    ) -> None:
        self.shape = shape
        self._device = device.torch_device
        self._numbers = device.numbers
        s = shape
        self._embedding = self._matrix(weights, "token_embd", (s.vocabulary, s.width))
        self._head = self._embedding
        if "output.weight" in weights:
            self._head = self._matrix(weights, "output", (s.vocabulary, s.width))
        self._norm = self._vector(weights, "output_norm", s.width)
        self._layers = [
            self._layer(weights, index, slots, context_tokens) for index in range(s.layers)
        ]
        self._cosines, self._sines = self._rotations(weights, context_tokens)

    def _matrix(self, weights: Weights, name: str, shape: tuple[int, int]) -> Tensor:
        return weights.tensor(f"{name}.weight", shape).to(self._device, self._numbers)

    def _vector(self, weights: Weights, name: str, length: int) -> Tensor:
        return weights.tensor(f"{name}.weight", (length,)).to(self._device)

    def _layer(self, weights: Weights, index: int, slots: int, context_tokens: int) -> _Layer:
        s, block = self.shape, f"blk.{index}."

        def matrix(name: str, rows: int, columns: int) -> Tensor:
            return self._matrix(weights, block + name, (rows, columns))

        query = matrix("attn_q", s.heads * s.head_width, s.width)
        key = matrix("attn_k", s.key_heads * s.head_width, s.width)
        value = matrix("attn_v", s.key_heads * s.head_width, s.width)
        gate = matrix("ffn_gate", s.inner_width, s.width)
        cache = (slots, s.key_heads, context_tokens, s.head_width)
        return _Layer(
            attention_norm=self._vector(weights, block + "attn_norm", s.width),
            query_key_value=torch.cat(
                (unpermuted(query, s.heads), unpermuted(key, s.key_heads), value)
            ),
            attention_out=matrix("attn_output", s.width, s.heads * s.head_width),
            feed_norm=self._vector(weights, block + "ffn_norm", s.width),
            gate_up=torch.cat((gate, matrix("ffn_up", s.inner_width, s.width))),
            down=matrix("ffn_down", s.width, s.inner_width),
            keys=torch.empty(cache, device=self._device, dtype=self._numbers),
            values=torch.empty(cache, device=self._device, dtype=self._numbers),
        )

    def _rotations(self, weights: Weights, context_tokens: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each position's angles, [context, 1, head width / 2], float32."""
        half = self.shape.head_width // 2
        exponents = torch.arange(half, dtype=torch.float64) / half
        frequencies = self.shape.rope_base**-exponents
        if "rope_freqs.weight" in weights:  # Llama 3's way to reach further.
            frequencies = frequencies / weights.tensor("rope_freqs.weight", (half,)).double()
        angles = torch.arange(context_tokens, dtype=torch.float64)[:, None, None] * frequencies
        return angles.cos().float().to(self._device), angles.sin().float().to(self._device)

    def hidden(self, pieces: Sequence[Piece]) -> Tensor:
        """Read the pieces, each of another slot, and give the row after the final norm of the
        last token of each piece that draws: [pieces that draw, width]."""
        ids = torch.tensor([token for piece in pieces for token in piece.ids], device=self._device)
        places = torch.cat([torch.arange(p.position, p.position + len(p.ids)) for p in pieces]).to(
            self._device
        )
        turn = self._cosines[places], self._sines[places]
        x = self._embedding[ids]
        for layer in self._layers:
            x = x + self._attention(layer, self._normed(x, layer.attention_norm), pieces, turn)
            gate, up = _linear(self._normed(x, layer.feed_norm), layer.gate_up).chunk(2, dim=-1)
            x = x + _linear(functional.silu(gate) * up, layer.down)
        ends: list[int] = []
        end = 0
        for piece in pieces:
            end += len(piece.ids)
            if piece.draw is not None:
                ends.append(end - 1)
        return self._normed(x[ends], self._norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 on the CPU, [rows, vocabulary]."""
        return _linear(hidden, self._head).float().cpu()

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.shape.norm_epsilon)
        return (wide * scale * weight).to(self._numbers)

    def _attention(
        self, layer: _Layer, x: Tensor, pieces: Sequence[Piece], turn: tuple[Tensor, Tensor]
    ) -> Tensor:
        s, rows = self.shape, x.shape[0]
        heads = _linear(x, layer.query_key_value).view(rows, -1, s.head_width)
        # The rows of the one matrix are queries, then keys, then values.
        query = _rotated(heads[:, : s.heads], turn)
        key = _rotated(heads[:, s.heads : s.heads + s.key_heads], turn)
        value = heads[:, s.heads + s.key_heads :]
        seen, start = [], 0
        for piece in pieces:
            end = start + len(piece.ids)
            here = slice(piece.position, piece.position + len(piece.ids))
            keys, values = layer.keys[piece.slot], layer.values[piece.slot]
            keys[:, here] = key[start:end].transpose(0, 1)
            values[:, here] = value[start:end].transpose(0, 1)
            seen.append(
                functional.scaled_dot_product_attention(
                    query[start:end].transpose(0, 1)[None],
                    keys[None, :, : here.stop],
                    values[None, :, : here.stop],
                    attn_mask=self._mask(piece),
                    is_causal=piece.position == 0 and len(piece.ids) > 1,
                    enable_gqa=True,
                )[0].transpose(0, 1)
            )
            start = end
        return _linear(torch.cat(seen).reshape(rows, -1), layer.attention_out)

    def _mask(self, piece: Piece) -> Tensor | None:
        """Which places each token may look at. One token sees all; a prompt's first part is
        causal from the corner, which the operator knows by itself."""
        count = len(piece.ids)
        if count == 1 or piece.position == 0:
            return None
        seen = torch.ones(count, piece.position + count, dtype=torch.bool, device=self._device)
        return seen.tril(diagonal=piece.position)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """x times the transposed weight. For a few rows of float32 the CPU library is twice as fast
    the other way round, which is what makes a second slot nearly free."""
    if 1 < x.shape[0] <= _FEW_ROWS_MAX and x.dtype == torch.float32 and x.device.type == "cpu":
        return (weight @ x.t()).t().contiguous()
    return functional.linear(x, weight)


def _rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions on [rows, heads, head width], by halves, computed in float32."""
    cosines, sines = turn
    first, second = x.float().chunk(2, dim=-1)
    turned = (first * cosines - second * sines, first * sines + second * cosines)
    return torch.cat(turned, dim=-1).to(x.dtype)
