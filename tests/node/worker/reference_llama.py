"""A Llama in a few plain lines: one sequence, no cache, float64, and rotation of neighbouring pairs
on the file's own order of rows, whose values llama.cpp's own Python gives: so that it shares no
step with the engine but the header's reader."""

from collections.abc import Sequence
from pathlib import Path

import gguf as llama_cpp
import numpy
import torch
from torch import Tensor

from node.worker.gguf import GgufFile, read_gguf


def reference_logits(path: Path, ids: Sequence[int]) -> Tensor:
    """[tokens, vocabulary], float64."""
    gguf = read_gguf(path)
    layers, heads = gguf.integer("llama.block_count"), gguf.integer("llama.attention.head_count")
    key_heads = gguf.integer("llama.attention.head_count_kv")
    base = gguf.number("llama.rope.freq_base")
    epsilon = gguf.number("llama.attention.layer_norm_rms_epsilon")

    def get(name: str) -> Tensor:
        return stored(gguf, name)

    embedding = get("token_embd.weight")
    head = get("output.weight") if "output.weight" in gguf.tensors else embedding
    x = embedding[list(ids)]
    for number in range(layers):
        b = f"blk.{number}."
        y = norm(x, get(b + "attn_norm.weight"), epsilon)
        q = rotated(y @ get(b + "attn_q.weight").T, heads, base)
        k = rotated(y @ get(b + "attn_k.weight").T, key_heads, base)
        v = (y @ get(b + "attn_v.weight").T).view(len(ids), key_heads, -1)
        x = x + attention(q, k, v) @ get(b + "attn_output.weight").T
        y = norm(x, get(b + "ffn_norm.weight"), epsilon)
        gate = y @ get(b + "ffn_gate.weight").T
        up = y @ get(b + "ffn_up.weight").T
        x = x + (gate * torch.sigmoid(gate) * up) @ get(b + "ffn_down.weight").T
    return norm(x, get("output_norm.weight"), epsilon) @ head.T


def stored(gguf: GgufFile, name: str) -> Tensor:
    """float64, in the file's own order of rows."""
    info = gguf.tensors[name]
    with gguf.path.open("rb") as file:
        file.seek(info.offset)
        raw = numpy.frombuffer(file.read(info.size_bytes), dtype=numpy.uint8)
    kind = llama_cpp.GGMLQuantizationType[info.format.name]
    values = llama_cpp.dequantize(raw.reshape(info.shape[0], -1), kind)
    return torch.from_numpy(values.copy()).reshape(info.shape).double()


def norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weight


def rotated(x: Tensor, heads: int, base: float) -> Tensor:
    """Each pair of neighbours is a complex number that turns with its place."""
    tokens = x.shape[0]
    pairs = torch.view_as_complex(x.view(tokens, heads, -1, 2).contiguous())
    count = pairs.shape[-1]
    speeds = base ** (-torch.arange(count, dtype=torch.float64) / count)
    angles = torch.arange(tokens, dtype=torch.float64)[:, None, None] * speeds
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    tokens, heads, width = q.shape
    rows = []
    for at in range(tokens):
        said = []
        for h in range(heads):
            shared = h * k.shape[1] // heads
            scores = k[: at + 1, shared] @ q[at, h] / width**0.5
            said.append(scores.softmax(0) @ v[: at + 1, shared])
        rows.append(torch.cat(said))
    return torch.stack(rows)
