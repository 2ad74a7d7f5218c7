"""The tensors of a decoder, put together from its weights as they are multiplied."""

from dataclasses import dataclass

import torch
from torch import Tensor

from node.worker.engine.device import Device
from node.worker.quantised import dequantised
from node.worker.shape import Shape
from node.worker.weights import Weights


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. Norm weights are float32, of width, or of [heads, head width] for `head_norm`;
    what a family does not have is None."""

    attention_norm: Tensor
    query_key_value: Tensor  # Rows: all queries, then keys, then values.
    bias: Tensor | None  # For these rows.
    head_norm: Tensor | None  # For the queries' heads, then for the keys'.
    attention_out: Tensor
    attention_post_norm: Tensor | None
    feed_norm: Tensor
    gate_up: Tensor  # Rows: gate, then up.
    down: Tensor
    feed_post_norm: Tensor | None
    is_windowed: bool


class Loader:
    """Reads tensors to a device, one at a time."""

    def __init__(self, weights: Weights, device: Device) -> None:
        self._weights = weights
        self._device = device

    def matrix(self, name: str, rows: int, columns: int) -> Tensor:
        blocks = self._weights.blocks(f"{name}.weight", rows, columns)
        return dequantised(blocks, self._device.numbers).to(self._device.torch_device)

    def vector(self, name: str, length: int) -> Tensor:
        """float32."""
        return self._weights.tensor(name, (length,)).to(self._device.torch_device)

    def layer(self, index: int) -> Layer:
        """Raises LocalError BAD_MODEL as Weights does."""
        s, block = self._weights.shape, f"blk.{index}."
        query_rows, key_rows = s.heads * s.head_width, s.key_heads * s.head_width
        query_key_value = (
            self.matrix(block + "attn_q", query_rows, s.width),
            self.matrix(block + "attn_k", key_rows, s.width),
            self.matrix(block + "attn_v", key_rows, s.width),
        )
        gate_up = [self.matrix(block + name, s.inner_width, s.width) for name in _GATE_UP]
        post = s.post_norms
        return Layer(
            attention_norm=self.vector(block + "attn_norm.weight", s.width),
            query_key_value=torch.cat(query_key_value),
            bias=self._bias(block, query_rows, key_rows) if s.query_key_value_bias else None,
            head_norm=self._head_norm(block, s) if s.query_key_norm else None,
            attention_out=self.matrix(block + "attn_output", s.width, query_rows),
            attention_post_norm=(
                self.vector(block + "post_attention_norm.weight", s.width) if post else None
            ),
            feed_norm=self.vector(block + "ffn_norm.weight", s.width),
            gate_up=torch.cat(gate_up),
            down=self.matrix(block + "ffn_down", s.width, s.inner_width),
            feed_post_norm=self.vector(block + "post_ffw_norm.weight", s.width) if post else None,
            is_windowed=s.windowed[index],
        )

    def _bias(self, block: str, query_rows: int, key_rows: int) -> Tensor:
        rows = (("attn_q", query_rows), ("attn_k", key_rows), ("attn_v", key_rows))
        parts = [self.vector(f"{block}{name}.bias", count) for name, count in rows]
        return torch.cat(parts).to(self._device.numbers)

    def _head_norm(self, block: str, s: Shape) -> Tensor:
        query = self.vector(block + "attn_q_norm.weight", s.head_width)
        key = self.vector(block + "attn_k_norm.weight", s.head_width)
        return torch.cat((query.expand(s.heads, -1), key.expand(s.key_heads, -1)))

    def rotations(self, context_tokens: int, *, local: bool) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each position's angles, [context, 1, head width / 2], float32.
        `local` are those of Gemma 3's windowed layers, which neither divide nor stretch."""
        s = self._weights.shape
        half = s.head_width // 2
        exponents = torch.arange(half, dtype=torch.float64) / half
        positions = torch.arange(context_tokens, dtype=torch.float64)[:, None, None]
        if local:
            angles = positions * s.rope_base_local**-exponents
        else:
            frequencies = s.rope_base**-exponents * s.rope_scale
            if "rope_freqs.weight" in self._weights:  # Llama 3's way to reach further.
                divisors = self._weights.tensor("rope_freqs.weight", (half,))
                frequencies = frequencies / divisors.double()
            angles = positions * frequencies
        device = self._device.torch_device
        return angles.cos().float().to(device), angles.sin().float().to(device)


_GATE_UP = ("ffn_gate", "ffn_up")
