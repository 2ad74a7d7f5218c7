"""A tiny BERT encoder with random weights, as files that a worker or a node can load."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

WIDTH, LAYERS, HEADS, INNER, POSITIONS, TOKENS_MAX = 16, 2, 2, 32, 40, 24
WORDS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "a", "sky", "sea", "is", "blue", "green", "why",
    "##s", "##ly", "one", "two", "three", "potato", "maize", "of", ".", "?",
)  # fmt: skip

CONFIG = {
    "model_type": "bert",
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "vocab_size": len(WORDS),
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}


def tiny_encoder(folder: Path, seed: int = 7) -> Path:
    """Write model.safetensors, config.json, sentence_bert_config.json and tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tiny_tensors(seed), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    sentences = {"max_seq_length": TOKENS_MAX, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(sentences), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()), encoding="utf-8")
    return folder


def tiny_tensors(seed: int) -> dict[str, torch.Tensor]:
    """By Hugging Face's names."""
    chance = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=chance) * 0.3

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": 1 + drawn(WIDTH), f"{name}.bias": drawn(WIDTH)}

    def linear(name: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": drawn(rows, columns), f"{name}.bias": drawn(rows)}

    tensors = {
        "embeddings.word_embeddings.weight": drawn(len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": drawn(POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": drawn(2, WIDTH),
        **norm("embeddings.LayerNorm"),
    }
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            tensors |= linear(f"{layer}.attention.self.{part}", WIDTH, WIDTH)
        tensors |= linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        tensors |= norm(f"{layer}.attention.output.LayerNorm")
        tensors |= linear(f"{layer}.intermediate.dense", INNER, WIDTH)
        tensors |= linear(f"{layer}.output.dense", WIDTH, INNER)
        tensors |= norm(f"{layer}.output.LayerNorm")
    return tensors


def _tokenizer() -> dict[str, object]:
    """A `tokenizer.json` of WordPiece, which pads to a length of its own unless it is told not to,
    as that of all-MiniLM-L6-v2 does."""
    numbers = {word: number for number, word in enumerate(WORDS)}
    special = [
        {"id": numbers[word], "content": word, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False, "special": True}
        for word in WORDS[:4]
    ]  # fmt: skip

    def ends(part: str) -> dict[str, object]:
        return {"SpecialToken": {"id": part, "type_id": 0}}

    one = [ends("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, ends("[SEP]")]
    tokens = {
        word: {"id": word, "ids": [numbers[word]], "tokens": [word]} for word in ("[CLS]", "[SEP]")
    }
    return {
        "version": "1.0",
        "truncation": {
            "max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right",
        },
        "padding": {
            "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": special,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
            "strip_accents": None, "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing", "single": one, "pair": one, "special_tokens": tokens,
        },
        "decoder": None,
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": numbers,
        },
    }  # fmt: skip
