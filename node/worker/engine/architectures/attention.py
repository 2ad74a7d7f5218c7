"""Grouped-query attention (2305.13245) over a cache in blocks, with windows and soft caps."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from node.worker.engine.architectures.batch import View


class Attention:
    """Not for several threads. A soft cap (Gemma 2, 2408.00118) squeezes the scores, which the
    fused operator cannot do; then they are computed plainly."""

    def __init__(self, scale: float, softcap: float) -> None:
        self._scale = scale
        self._softcap = softcap

    def seen(self, query: Tensor, keys: Tensor, values: Tensor, views: Sequence[View]) -> Tensor:
        """What each row makes of the values that it sees, [rows, heads, head width]. `query` is of
        that shape; `keys` and `values` are a layer's cache, [places, key heads, head width]."""
        parts = []
        for view in views:
            q, k, v = query[view.rows], keys[view.places], values[view.places]
            if view.each_alone:
                parts.append(self._each_alone(q, k, v, view))
            else:
                parts.append(self._attended(q[None], k[None], v[None], view)[0])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _each_alone(self, query: Tensor, keys: Tensor, values: Tensor, view: View) -> Tensor:
        """One row of each sequence: the heads that share keys are the rows of a product, so that
        nothing is repeated."""
        assert view.mask is not None
        rows, heads, width = query.shape
        q = query.reshape(rows, keys.shape[2], -1, width)
        scores = self._scores(q, keys.transpose(1, 2)).masked_fill(~view.mask, float("-inf"))
        # A place that is not seen may hold what another left, even what is no number.
        v = values.masked_fill(~view.mask.view(rows, -1, 1, 1), 0.0).transpose(1, 2)
        return (scores.softmax(-1).to(v.dtype) @ v).reshape(rows, heads, width)

    def _scores(self, query: Tensor, keys: Tensor) -> Tensor:
        scores = (query @ keys.transpose(-1, -2)).float() * self._scale
        return torch.tanh(scores / self._softcap) * self._softcap if self._softcap else scores

    def _attended(self, query: Tensor, keys: Tensor, values: Tensor, view: View) -> Tensor:
        """[batch, rows, heads, head width] from a query of that shape."""
        q, k, v = query.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
        if self._softcap:
            return self._capped(q, k, v, view).transpose(1, 2)
        return functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=view.mask,
            is_causal=view.causal,
            scale=self._scale,
            enable_gqa=True,
        ).transpose(1, 2)

    def _capped(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        batch, heads, rows, width = q.shape
        grouped = q.reshape(batch, k.shape[1], -1, rows, width)
        scores = self._scores(grouped, k[:, :, None])
        if view.causal:
            corner = torch.ones(rows, rows, dtype=torch.bool, device=q.device).tril()
            scores = scores.masked_fill(~corner, float("-inf"))
        elif view.mask is not None:
            scores = scores.masked_fill(~view.mask, float("-inf"))
        weights = scores.softmax(-1).to(v.dtype)
        return (weights @ v[:, :, None]).reshape(batch, heads, rows, width)
