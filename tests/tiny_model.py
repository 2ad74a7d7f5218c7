"""Makes a tiny Llama with random weights as a real GGUF file, for tests with real processes.

It has a byte-level tokenizer with a few merges, control tokens and a chat template, so all that
happens with a real model happens with it; what it says is noise. The same arguments give the same
bytes. Only the standard library is used.
"""

import math
import os
import random
import struct
from dataclasses import dataclass
from pathlib import Path

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("t h", "th e", "i n", "a n", "Ġ a", "Ġ the", "e r", "o u")
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
F32, F16, Q4_0, Q4_1, Q8_0, BF16 = 0, 1, 2, 3, 8, 30
Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K = 6, 7, 10, 11, 12, 13, 14
# Of the formats with scales elsewhere than first: values and bytes of a block, and the scales with
# which any bytes stand for numbers with a deviation of about 0.1.
MIXED = {
    Q5_0: (32, 22, {0: 0.011}),
    Q5_1: (32, 24, {0: 0.011, 2: -0.17}),
    Q2_K: (256, 84, {80: 0.01, 82: 0.015}),
    Q3_K: (256, 110, {108: 0.0024}),
    Q4_K: (256, 144, {0: 0.0007, 2: 0.0052}),
    Q5_K: (256, 176, {0: 0.00035, 2: 0.0054}),
    Q6_K: (256, 210, {208: 0.000076}),
}


@dataclass(frozen=True)
class TinyShape:
    """Small numbers that still have everything: several layers, and shared key heads."""

    layers: int = 2
    width: int = 64
    inner_width: int = 96
    heads: int = 4
    key_heads: int = 2
    context_tokens: int = 1024
    tied: bool = True


def letters() -> list[str]:
    """GPT-2's visible letter for each byte."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = {b: 256 + n for n, b in enumerate(b for b in range(256) if b not in seen)}
    return [chr(others.get(byte, byte)) for byte in range(256)]


def vocabulary() -> tuple[list[str], list[int]]:
    """Tokens and their types: control tokens first, then bytes, then merged ones."""
    tokens = [*CONTROL, *letters(), *(merge.replace(" ", "") for merge in MERGES)]
    return tokens, [3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL))


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, value: object) -> bytes:
    """One key of the header with its value."""
    match value:
        case bool():
            return text(key) + struct.pack("<I?", 7, value)
        case int():
            return text(key) + struct.pack("<II", 4, value)
        case float():
            return text(key) + struct.pack("<If", 6, value)
        case str():
            return text(key) + struct.pack("<I", 8) + text(value)
        case [str(), *_]:
            assert isinstance(value, list)
            items = b"".join(text(item) for item in value)
            return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + items
        case [int(), *_]:
            assert isinstance(value, list)
            return text(key) + struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
        case [float(), *_]:
            assert isinstance(value, list)
            return text(key) + struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
    raise AssertionError(key)


def blocks(chance: random.Random, values: int, kind: int) -> bytes:
    """Random numbers with a deviation of about 0.1 in one of the formats."""
    if kind in (F32, F16):
        numbers = [chance.gauss(0, 0.1) for _ in range(values)]
        return struct.pack(f"<{values}{'f' if kind == F32 else 'e'}", *numbers)
    if kind == BF16:
        return b"".join(struct.pack("<f", chance.gauss(0, 0.1))[2:] for _ in range(values))
    if kind in MIXED:
        return b"".join(_mixed(chance, kind) for _ in range(values // MIXED[kind][0]))
    sizes = {Q8_0: ((0.0014,), 32), Q4_0: ((0.022,), 16), Q4_1: ((0.022, -0.165), 16)}
    scales, count = sizes[kind]
    head = struct.pack(f"<{len(scales)}e", *scales)
    return b"".join(head + chance.randbytes(count) for _ in range(values // 32))


def _mixed(chance: random.Random, kind: int) -> bytes:
    _, size, scales = MIXED[kind]
    block = bytearray(chance.randbytes(size))
    for at, scale in scales.items():
        struct.pack_into("<e", block, at, scale)
    return bytes(block)


def tiny_gguf(
    seed: int = 1,
    kind: int = Q8_0,
    shape: TinyShape | None = None,
    changes: dict[str, object] | None = None,
) -> bytes:
    """The whole file. `changes` replaces values of the header; None takes a key away."""
    s = shape or TinyShape()
    chance = random.Random(seed)
    infos, data = [], b""
    for name, dimensions, stored in _tensors(s, len(vocabulary()[0]), kind):
        data += bytes(-len(data) % 32)
        infos.append(_info(name, dimensions, stored, len(data)))
        count = math.prod(dimensions)
        if name.endswith("norm.weight"):
            data += struct.pack(f"<{count}f", *(1 + chance.gauss(0, 0.1) for _ in range(count)))
        else:
            data += blocks(chance, count, stored)
    return _head(s, changes or {}, infos) + data


def hollow_model(path: Path, shape: TinyShape) -> Path:
    """A model of any size in bfloat16: a header, and a hole where its weights would be, which
    takes no disk."""
    infos, size = [], 0
    for name, dimensions, stored in _tensors(shape, len(vocabulary()[0]), BF16):
        size += -size % 32
        infos.append(_info(name, dimensions, stored, size))
        size += math.prod(dimensions) * (4 if stored == F32 else 2)
    head = _head(shape, {}, infos)
    path.write_bytes(head)
    os.truncate(path, len(head) + size)
    return path


def _info(name: str, dimensions: list[int], stored: int, offset: int) -> bytes:
    """Where a tensor is, as the file's header says it."""
    shape = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return text(name) + shape + struct.pack("<IQ", stored, offset)


def _head(s: TinyShape, changes: dict[str, object], infos: list[bytes]) -> bytes:
    """All of the file before its tensors."""
    tokens, types = vocabulary()
    header: dict[str, object] = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.block_count": s.layers,
        "llama.context_length": s.context_tokens,
        "llama.embedding_length": s.width,
        "llama.feed_forward_length": s.inner_width,
        "llama.attention.head_count": s.heads,
        "llama.attention.head_count_kv": s.key_heads,
        "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    header |= changes
    header = {key: value for key, value in header.items() if value is not None}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(header))
    head += b"".join(entry(key, value) for key, value in header.items()) + b"".join(infos)
    return head + bytes(-len(head) % 32)


def _tensors(s: TinyShape, tokens: int, kind: int) -> list[tuple[str, list[int], int]]:
    """Name, dimensions in the file's order (columns first), and type."""
    head = s.width // s.heads
    tensors: list[tuple[str, list[int], int]] = [("token_embd.weight", [s.width, tokens], kind)]
    for index in range(s.layers):
        block = f"blk.{index}."
        tensors += [
            (block + "attn_norm.weight", [s.width], F32),
            (block + "attn_q.weight", [s.width, s.width], kind),
            (block + "attn_k.weight", [s.width, s.key_heads * head], kind),
            (block + "attn_v.weight", [s.width, s.key_heads * head], kind),
            (block + "attn_output.weight", [s.width, s.width], kind),
            (block + "ffn_norm.weight", [s.width], F32),
            (block + "ffn_gate.weight", [s.width, s.inner_width], kind),
            (block + "ffn_up.weight", [s.width, s.inner_width], kind),
            (block + "ffn_down.weight", [s.inner_width, s.width], kind),
        ]
    tensors.append(("output_norm.weight", [s.width], F32))
    if not s.tied:
        tensors.append(("output.weight", [s.width, tokens], kind))
    return tensors


def tiny_model(path: Path, seed: int = 1, kind: int = Q8_0) -> Path:
    """Write the file, about 150 KB, and give its path."""
    path.write_bytes(tiny_gguf(seed, kind))
    return path
