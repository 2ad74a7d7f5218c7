"""Tiny models of every family, made of nothing but counted noise: as transformers would save them,
and as GGUF by llama.cpp's own writer. The same arguments give the same weights anywhere."""

import json
import random
from pathlib import Path
from typing import Any, Final

import gguf
import torch
from torch import Tensor

from node.worker.pipe import File

Config = dict[str, Any]

_SMALL: Final[Config] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_LLAMA_3: Final = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LINEAR: Final = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}
_GEMMA: Final[Config] = {
    "hidden_activation": "gelu_pytorch_tanh",
    "head_dim": 24,
    "sliding_window": 16,
    "query_pre_attn_scalar": 24,
    "tie_word_embeddings": True,
}
_GEMMA_3_ROPE: Final = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}

FAMILIES: Final[dict[str, Config]] = {
    "llama": _SMALL | {"model_type": "llama", "hidden_act": "silu"},
    "llama-3": _SMALL
    | {
        "model_type": "llama",
        "hidden_act": "silu",
        "rope_parameters": _LLAMA_3,
        "head_dim": 24,
        "tie_word_embeddings": True,
    },
    "llama-linear": _SMALL
    | {"model_type": "llama", "hidden_act": "silu", "rope_parameters": _LINEAR},
    "qwen2": _SMALL | {"model_type": "qwen2", "hidden_act": "silu", "use_sliding_window": False},
    "qwen3": _SMALL
    | {"model_type": "qwen3", "hidden_act": "silu", "head_dim": 32, "tie_word_embeddings": True},
    "gemma2": _SMALL
    | _GEMMA
    | {
        "model_type": "gemma2",
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "gemma3": _SMALL
    | _GEMMA
    | {
        "model_type": "gemma3_text",
        "num_hidden_layers": 7,
        "rope_parameters": _GEMMA_3_ROPE,
        "layer_types": [*["sliding_attention"] * 5, "full_attention", "sliding_attention"],
    },
}


def tensors(config: Config, seed: int = 1) -> dict[str, Tensor]:
    """By transformers' names, float32."""
    kind, width, inner = config["model_type"], config["hidden_size"], config["intermediate_size"]
    query = config["num_attention_heads"] * config["head_dim"]
    key = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], width),
        "model.norm.weight": (width,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        shapes |= {
            layer + "input_layernorm.weight": (width,),
            layer + "post_attention_layernorm.weight": (width,),
            layer + "self_attn.q_proj.weight": (query, width),
            layer + "self_attn.k_proj.weight": (key, width),
            layer + "self_attn.v_proj.weight": (key, width),
            layer + "self_attn.o_proj.weight": (width, query),
            layer + "mlp.gate_proj.weight": (inner, width),
            layer + "mlp.up_proj.weight": (inner, width),
            layer + "mlp.down_proj.weight": (width, inner),
        }
        if kind == "qwen2":
            for name, rows in (("q", query), ("k", key), ("v", key)):
                shapes[f"{layer}self_attn.{name}_proj.bias"] = (rows,)
        if kind in ("qwen3", "gemma3_text"):
            for name in ("q_norm", "k_norm"):
                shapes[f"{layer}self_attn.{name}.weight"] = (config["head_dim"],)
        if kind.startswith("gemma"):
            for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm"):
                shapes[f"{layer}{name}.weight"] = (width,)
    chance = random.Random(seed)
    centre = 0.0 if kind.startswith("gemma") else 1.0
    return {
        name: _noise(chance, shape, centre if name.endswith("norm.weight") else 0.0)
        for name, shape in shapes.items()
    }


def _noise(chance: random.Random, shape: tuple[int, ...], centre: float) -> Tensor:
    """Whole numbers of 512ths between -1/4 and 1/4 about the centre: exact in bfloat16."""
    raw = bytearray(chance.randbytes(torch.Size(shape).numel()))
    return torch.frombuffer(raw, dtype=torch.int8).reshape(shape).float() / 512 + centre


def save(folder: Path, config: Config, parts: int = 1, seed: int = 1) -> list[File]:
    """A folder as transformers leaves it, and its files as the worker is told of them."""
    folder.mkdir(exist_ok=True)
    classes = {"gemma2": "Gemma2", "gemma3_text": "Gemma3", "qwen2": "Qwen2", "qwen3": "Qwen3"}
    name = classes.get(config["model_type"], "Llama")
    text = json.dumps(config | {"architectures": [f"{name}ForCausalLM"], "dtype": "float32"})
    (folder / "config.json").write_text(text)
    every = list(tensors(config, seed).items())
    if parts == 1:
        (folder / "model.safetensors").write_bytes(safetensors(dict(every)))
        return files_in(folder)
    index = {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        mine = dict(every[part::parts])
        (folder / file).write_bytes(safetensors(mine))
        index |= dict.fromkeys(mine, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    return files_in(folder)


def files_in(folder: Path) -> list[File]:
    return [
        File("weights" if "safetensors" in path.name else "config", path.name, str(path))
        for path in sorted(folder.iterdir())
    ]


def safetensors(tensors: dict[str, Tensor], changes: dict[str, Any] | None = None) -> bytes:
    """The whole file. `changes` replaces entries of the header; None takes one away."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    data = b""
    for name, tensor in tensors.items():
        raw = bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    header = {k: v for k, v in (header | (changes or {})).items() if v is not None}
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + data


def save_gguf(path: Path, config: Config, seed: int = 1) -> list[File]:
    """As llama.cpp's conversion writes it (convert_hf_to_gguf.py), with gguf-py's writer: its
    names of keys and tensors, not ours."""
    kind = config["model_type"].removesuffix("_text")
    writer = gguf.GGUFWriter(path, kind)
    _describe(writer, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], config["num_hidden_layers"])
    for name, values in tensors(config, seed).items():
        if kind == "llama" and ".q_proj." in name:
            values = interleaved(values, config["num_attention_heads"])
        if kind == "llama" and ".k_proj." in name:
            values = interleaved(values, config["num_key_value_heads"])
        if kind.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        writer.add_tensor(stored, values.numpy())
    if config["rope_parameters"].get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", _divisors(config).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return [File("weights", path.name, str(path))]


def _describe(writer: gguf.GGUFWriter, config: Config) -> None:
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if "sliding_window" in config:
        writer.add_sliding_window(config["sliding_window"])
    if "attn_logit_softcapping" in config:
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"<{number}>" for number in range(config["vocab_size"])])


def interleaved(rows: Tensor, heads: int) -> Tensor:
    """What the conversion of Llama does to Q and K: the two halves of each head take turns."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1)
    return halves.transpose(1, 2).reshape(rows.shape)


def _divisors(config: Config) -> Tensor:
    """The conversion's own words (LlamaModel.generate_extra_tensors)."""
    rope, head_dim = config["rope_parameters"], config["head_dim"]
    base, factor, before = rope["rope_theta"], rope["factor"], 64
    frequencies = 1.0 / (base ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    divisors = []
    for frequency in frequencies:
        wave = 2 * torch.pi / frequency
        if wave < before / rope["high_freq_factor"]:
            divisors.append(1.0)
        elif wave > before / rope["low_freq_factor"]:
            divisors.append(factor)
        else:
            smooth = (before / wave - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(divisors, dtype=torch.float32)
