"""Writes a GGUF with random weights; run by the peers' Python, which has `gguf`.

    python bench_engine_random.py SOURCE TARGET

The body is that of Llama 3.2 1B, the words are SOURCE's (SmolLM2's), so that every engine can load
the one file whole: it answers nonsense, at the speed of a real model of its size.
"""

import sys
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np

LAYERS: Final = 16
WIDTH: Final = 2048
INNER_WIDTH: Final = 8192
HEADS: Final = 32
KEY_HEADS: Final = 8
HEAD_WIDTH: Final = WIDTH // HEADS
CONTEXT_TOKENS: Final = 8192
ROPE_BASE: Final = 500_000.0
NORM_EPSILON: Final = 1e-5
SCALE: Final = 0.004  # Of a block: weights of 4 bits then deviate by about 0.02.
SEED: Final = 5
COPIED: Final = "tokenizer."


def blocks(
    random: np.random.Generator, rows: int, columns: int, kind: gguf.GGMLQuantizationType
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [rows, bytes of a row]: a float16 scale before every 32 weights, as ggml lays them."""
    bytes_each = gguf.GGML_QUANT_SIZES[kind][1]
    data = random.integers(0, 256, (rows, columns // 32, bytes_each), dtype=np.uint8)
    wide = kind == gguf.GGMLQuantizationType.Q8_0
    if wide:  # ggml itself never writes -128.
        data[data == 128] = 129
    scales = random.uniform(0.5, 1.5, (rows, columns // 32, 1)) * (SCALE / 16 if wide else SCALE)
    data[..., :2] = scales.astype(np.float16).view(np.uint8)
    return data.reshape(rows, -1)


def copy_words(source: Path, writer: gguf.GGUFWriter) -> int:
    """The tokenizer, field by field. Returns the size of the vocabulary."""
    fields = gguf.GGUFReader(source).fields
    for name, field in fields.items():
        if name.startswith(COPIED):
            kind = field.types[0]
            element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, element)
    return len(fields["tokenizer.ggml.tokens"].data)


def write(source: Path, target: Path) -> None:
    writer = gguf.GGUFWriter(target, "llama")
    vocabulary = copy_words(source, writer)
    writer.add_name("random weights, the shape of Llama 3.2 1B")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER_WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    random = np.random.default_rng(SEED)
    q4, q8 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0

    def add(name: str, rows: int, columns: int, kind: gguf.GGMLQuantizationType = q4) -> None:
        writer.add_tensor(f"{name}.weight", blocks(random, rows, columns, kind), raw_dtype=kind)

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    add("token_embd", vocabulary, WIDTH, q8)
    for layer in range(LAYERS):
        prefix = f"blk.{layer}"
        add_norm(f"{prefix}.attn_norm")
        add(f"{prefix}.attn_q", WIDTH, WIDTH)
        add(f"{prefix}.attn_k", KEY_HEADS * HEAD_WIDTH, WIDTH)
        add(f"{prefix}.attn_v", KEY_HEADS * HEAD_WIDTH, WIDTH)
        add(f"{prefix}.attn_output", WIDTH, WIDTH)
        add_norm(f"{prefix}.ffn_norm")
        add(f"{prefix}.ffn_gate", INNER_WIDTH, WIDTH)
        add(f"{prefix}.ffn_up", INNER_WIDTH, WIDTH)
        add(f"{prefix}.ffn_down", WIDTH, INNER_WIDTH)
    add_norm("output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
