"""A decoder of the Llama kind: RMS norms, rotary positions, grouped-query attention and a gated
feed-forward, as in "LLaMA: Open and Efficient Foundation Language Models" (2302.13971), with what
Qwen (2412.15115, 2505.09388) and Gemma (2408.00118, 2503.19786) have beside: biases, norms of
heads, norms after, soft caps, windows.

One call reads rows of several sequences: all rows go through each matrix together, and attention
goes over exactly what each sequence has said. It is written to be read: the native kernels compute
the same, and are tested against it.
"""

import torch
from torch import Tensor
from torch.nn import functional

from node.worker.engine.architectures.attention import Attention
from node.worker.engine.architectures.batch import Batch
from node.worker.engine.architectures.layers import Layer, Loader
from node.worker.engine.device import Device
from node.worker.engine.model import BLOCK_TOKENS
from node.worker.shape import Shape
from node.worker.weights import Weights

_FEW_ROWS_MAX = 4


def has_local_turns(shape: Shape) -> bool:
    """Whether layers with a window turn queries and keys in another way than the others."""
    same = shape.rope_base_local == shape.rope_base and shape.rope_scale == 1.0
    return any(shape.windowed) and not same


class Decoder:
    """Weights on a device, and a cache of keys and values in `blocks` blocks.

    The cache is allocated whole and touched as sequences grow: on a CPU it costs memory only as
    far as it is used.
    """

    def __init__(self, weights: Weights, device: Device, blocks: int, context_tokens: int) -> None:
        """Raises LocalError BAD_MODEL as Weights does."""
        s = self.shape = weights.shape
        self._numbers = device.numbers
        loader = Loader(weights, device)
        self._embedding = loader.matrix("token_embd", s.vocabulary, s.width)
        self._head = self._embedding
        if not s.tied:
            self._head = loader.matrix("output", s.vocabulary, s.width)
        self._norm = loader.vector("output_norm.weight", s.width)
        self._layers = [loader.layer(index) for index in range(s.layers)]
        self._turns = loader.rotations(context_tokens, local=False)
        self._local_turns = self._turns
        if has_local_turns(s):
            self._local_turns = loader.rotations(context_tokens, local=True)
        self._attention = Attention(s.attention_scale, s.attention_softcap)
        cache = (blocks * BLOCK_TOKENS, s.key_heads, s.head_width)
        make = torch.empty if device.torch_device.type == "cpu" else torch.zeros
        self._cache = [
            (
                make(cache, device=device.torch_device, dtype=device.numbers),
                make(cache, device=device.torch_device, dtype=device.numbers),
            )
            for _ in range(s.layers)
        ]

    def hidden(self, batch: Batch) -> Tensor:
        """Read the rows of the batch into the cache, and give the rows after the final norm that
        `batch.outputs` names: [outputs, width]."""
        turn = self._turns[0][batch.positions], self._turns[1][batch.positions]
        local_turn = turn
        if self._local_turns is not self._turns:
            cosines, sines = self._local_turns
            local_turn = cosines[batch.positions], sines[batch.positions]
        x = self._embedding[batch.ids]
        if self.shape.embedding_scale != 1.0:
            x = x * self.shape.embedding_scale
        for layer, cache in zip(self._layers, self._cache, strict=True):
            y = self._normed(x, layer.attention_norm)
            y = self._attended(y, layer, cache, batch, local_turn if layer.is_windowed else turn)
            if layer.attention_post_norm is not None:
                y = self._normed(y, layer.attention_post_norm)
            x = x + y
            y = self._fed(self._normed(x, layer.feed_norm), layer)
            if layer.feed_post_norm is not None:
                y = self._normed(y, layer.feed_post_norm)
            x = x + y
        return self._normed(x[batch.outputs], self._norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """float32, [rows, vocabulary], on the device."""
        logits = _linear(hidden, self._head).float()
        cap = self.shape.logit_softcap
        return torch.tanh(logits / cap) * cap if cap else logits

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.shape.norm_epsilon)
        return (wide * scale * weight).to(self._numbers)

    def _fed(self, x: Tensor, layer: Layer) -> Tensor:
        gate, up = _linear(x, layer.gate_up).chunk(2, dim=-1)
        if self.shape.activation == "silu":
            return _linear(functional.silu(gate) * up, layer.down)
        return _linear(functional.gelu(gate, approximate="tanh") * up, layer.down)

    def _attended(
        self,
        x: Tensor,
        layer: Layer,
        cache: tuple[Tensor, Tensor],
        batch: Batch,
        turn: tuple[Tensor, Tensor],
    ) -> Tensor:
        s, rows, (keys, values) = self.shape, x.shape[0], cache
        heads = _linear(x, layer.query_key_value, layer.bias).view(rows, -1, s.head_width)
        turned = heads[:, : s.heads + s.key_heads]
        if layer.head_norm is not None:
            turned = self._normed(turned, layer.head_norm)
        turned = _rotated(turned, turn)
        keys.index_copy_(0, batch.places, turned[:, s.heads :])
        values.index_copy_(0, batch.places, heads[:, s.heads + s.key_heads :])
        views = batch.windowed if layer.is_windowed else batch.full
        seen = self._attention.seen(turned[:, : s.heads], keys, values, views)
        return _linear(seen.reshape(rows, -1), layer.attention_out)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x times the transposed weight. For a few rows of float32 the CPU library is twice as fast
    the other way round, which is what makes a second sequence nearly free."""
    if 1 < x.shape[0] <= _FEW_ROWS_MAX and x.dtype == torch.float32 and x.device.type == "cpu":
        product = (weight @ x.t()).t().contiguous()
        return product if bias is None else product + bias
    return functional.linear(x, weight, bias)


def _rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions (2104.09864) on [rows, heads, head width], by halves, in float32."""
    cosines, sines = turn
    first, second = x.float().chunk(2, dim=-1)
    turned = (first * cosines - second * sines, first * sines + second * cosines)
    return torch.cat(turned, dim=-1).to(x.dtype)
