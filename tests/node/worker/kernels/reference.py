"""The step in plain float64 torch: what the kernels should come close to."""

import torch
from torch import Tensor

from tests.node.worker.kernels.random_model import GROUP, RandomModel


def quantised(rows: Tensor) -> Tensor:
    """Rows rounded in groups of 32 to whole numbers of -127 to 127 times a scale."""
    groups = rows.reshape(rows.shape[0], -1, GROUP)
    scale = groups.abs().amax(-1, keepdim=True).clamp(min=2.0**-100) / 127
    return ((groups / scale).round() * scale).reshape(rows.shape)


def reference(random: RandomModel, ids: list[int], exact: bool) -> tuple[Tensor, Tensor]:
    """Hidden rows and logits of all tokens, float64. With `exact` nothing is rounded on the way;
    without, activations and the cache are rounded where the kernels round them."""
    plan = random.plan
    rounded = (lambda x: x) if exact else quantised
    cached = (lambda x: x) if exact else (lambda x: x.half().double())
    states = random.kept["embedding"].plain[torch.tensor(ids)] * plan.embedding_scale
    for layer in range(plan.layers):
        vectors = random.layer_vectors(layer)

        def times(name: str, rows: Tensor, layer: int = layer) -> Tensor:
            matrix = random.kept[f"{layer}/{name}"]
            out = rounded(rows) @ matrix.plain.T
            return out if matrix.bias is None else out + matrix.bias.double()

        mixed = times("query_key_value", normed(states, vectors["attention_norm"]))
        out = times("attention_out", attention(random, layer, mixed, cached))
        post = vectors["attention_post_norm"]
        states = states + (out if post is None else normed(out, post))
        gate, up = times("gate_up", normed(states, vectors["feed_norm"])).chunk(2, dim=1)
        kind = torch.nn.functional.silu if plan.activation == 0 else _gelu
        out = times("down", kind(gate) * up)
        post = vectors["feed_post_norm"]
        states = states + (out if post is None else normed(out, post))
    hidden = normed(states, random.vector("norm", plan.width))
    logits = rounded(hidden) @ random.kept["head"].plain.T
    return hidden, softcapped(logits, plan.logit_softcap)


def _gelu(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def normed(rows: Tensor, weights: Tensor | None) -> Tensor:
    assert weights is not None
    return rows * (rows.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weights.double()


def softcapped(scores: Tensor, cap: float) -> Tensor:
    return (scores / cap).tanh() * cap if cap else scores


def rotated(heads: Tensor, rotations: Tensor) -> Tensor:
    """[heads, tokens, head_width] turned by halves."""
    a, b = heads.chunk(2, dim=-1)
    cosine, sine = rotations[: heads.shape[1]].double().unbind(-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)


def attention(random: RandomModel, layer: int, mixed: Tensor, cached: object) -> Tensor:
    plan, tokens = random.plan, mixed.shape[0]
    vectors = random.layer_vectors(layer)
    heads = mixed.reshape(tokens, -1, plan.head_width).transpose(0, 1)
    query, key, value = heads.split([plan.heads, plan.key_heads, plan.key_heads])
    if plan.query_key_norm:
        query, key = normed(query, vectors["query_norm"]), normed(key, vectors["key_norm"])
    query, key = rotated(query, random.rotations), rotated(key, random.rotations)
    each = plan.heads // plan.key_heads
    key = cached(key).repeat_interleave(each, 0)  # type: ignore[operator]
    value = cached(value).repeat_interleave(each, 0)  # type: ignore[operator]
    scores = softcapped(query @ key.transpose(1, 2) * plan.head_width**-0.5, plan.attention_softcap)
    back = torch.arange(tokens)[:, None] - torch.arange(tokens)[None, :]
    window = plan.windows[layer] or tokens
    seen = (back >= 0) & (back < window)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return (weights @ value).transpose(0, 1).reshape(tokens, -1)
