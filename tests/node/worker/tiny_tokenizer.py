"""Tokenizers as files of a folder, as transformers leave them: byte-level, and of SentencePiece's
kind. The first has the vocabulary of tests.tiny_model."""

import json
from pathlib import Path
from typing import Any, Final

from node.worker.pipe import File
from tests.tiny_model import CONTROL, MERGES, TEMPLATE, vocabulary

BYTES: Final = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
WORDS: Final = ("\u2581a", "\u2581the", "\u2581th", "th", "er", "in", "\u2581in", "\u2581\u2581")


def special(number: int, token: str, is_special: bool = True) -> dict[str, Any]:
    return {
        "id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": is_special,
    }  # fmt: skip


def byte_level(**changes: Any) -> dict[str, Any]:
    """`changes` replaces parts of the whole, and those of its model by `model__`."""
    tokens, _ = vocabulary()
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "vocab": {token: n for n, token in enumerate(tokens)}, "merges": list(MERGES),
    }  # fmt: skip
    return _changed(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [special(n, token) for n, token in enumerate(CONTROL)],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES],
            },
            "post_processor": None,
            "decoder": BYTES,
            "model": model,
        },
        changes,
    )


def pieces() -> tuple[list[str], list[int], list[float]]:
    """Tokens, types and scores of SentencePiece's kind: control tokens, bytes, letters, words."""
    letters = ["\u2581", *map(chr, range(0x21, 0x7F))]
    raw = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *raw, *WORDS, *letters]
    types = [2, 3, 3] + [6] * 256 + [1] * (len(WORDS) + len(letters))
    return tokens, types, [-float(number) for number in range(len(tokens))]


def piecewise(**changes: Any) -> dict[str, Any]:
    """As Llama 2's: a space before each piece of text, and bytes for what has no token."""
    tokens, _, _ = pieces()
    merges = [
        [token[:cut], token[cut:]]
        for token in WORDS
        for cut in range(1, len(token))
        if token[:cut] in tokens and token[cut:] in tokens
    ]
    model = {
        "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
        "vocab": {token: n for n, token in enumerate(tokens)}, "merges": merges,
    }  # fmt: skip
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    return _changed(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [special(n, token) for n, token in enumerate(("<unk>", "<s>", "</s>"))],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, spaces],
            },
            "pre_tokenizer": None,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "<s>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
            },
            "decoder": None,
            "model": model,
        },
        changes,
    )


def _changed(whole: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        if inner:
            whole[outer][inner] = value
        else:
            whole[outer] = value
    return whole


def write_tokenizer(
    folder: Path, tokenizer: dict[str, Any], said: dict[str, Any] | None = None, jinja: str = ""
) -> list[File]:
    """Its files and their roles. `said` is tokenizer_config.json; `jinja` the template's own."""
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    files = [("tokenizer", "tokenizer.json")]
    if said is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
        files.append(("template", "tokenizer_config.json"))
    if jinja:
        (folder / "chat_template.jinja").write_text(jinja)
        files.append(("template", "chat_template.jinja"))
    return [File(role, name, str(folder / name)) for role, name in files]


SAID: Final = {"chat_template": TEMPLATE, "bos_token": CONTROL[1], "eos_token": CONTROL[2]}
