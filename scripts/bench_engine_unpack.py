"""Reads a GGUF as transformers does and saves what it made of it; run by the peers' Python.

    python bench_engine_unpack.py SOURCE TARGET

transformers unpacks a GGUF to float32 at each start, which takes it some ten seconds; from the
folder that this writes it starts at once, with the same weights.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM


def unpack(source: Path, target: Path) -> None:
    folder, name = str(source.parent), source.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # What it read calls itself quantised and cannot be saved; the same weights in a plain one can.
    config = LlamaConfig(**{**read.config.to_dict(), "quantization_config": None})
    del config.quantization_config
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
