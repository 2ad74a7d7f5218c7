"""Texts to ids as a model's `tokenizer.json` says."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from node.worker.pipe import File
from node.worker.weight_file import bad_model, whole
from protocol.errors import Code, LocalError

# The parts that BERT's tokenizers are made of. Others are refused: some hold expressions of the
# file's author, which could run for ever.
_KNOWN: Final = {
    "normalizer": (None, "BertNormalizer"),
    "pre_tokenizer": ("BertPreTokenizer",),
    "model": ("WordPiece",),
    "post_processor": ("TemplateProcessing", "BertProcessing"),
    "decoder": (None, "WordPiece"),
}
_JSON_BYTES_MAX: Final = 64 << 20  # Those of today's largest vocabularies have some 20 MiB.


class TextTokenizer:
    """Whole texts, each cut to `tokens_max` ids, with the tokens that the model puts at both ends.

    Raises LocalError from the start: BAD_MODEL, NOT_FOUND.
    """

    def __init__(self, files: Sequence[File], tokens_max: int, vocabulary: int) -> None:
        path = next((Path(file.path) for file in files if file.role == "tokenizer"), None)
        if path is None:
            raise LocalError(
                Code.BAD_MODEL, "This encoder has no file of role tokenizer: get it again."
            )
        # It has a pool of its own, of all cores, and the owner said how many may be used.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._tokenizer = _read(path)
        # What the file says of padding and of lengths is for another program.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(tokens_max)
        largest = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        if largest >= vocabulary:
            raise bad_model(
                path, f"it has a token {largest} and the weights have {vocabulary} of them"
            )
        if not self._ids("a"):
            raise bad_model(path, "it makes no tokens of a text")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, at least one."""
        return [self._ids(text) for text in texts]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids


def _read(path: Path) -> Tokenizer:
    data = whole(path, _JSON_BYTES_MAX)
    _check_parts(path, data)
    try:
        return Tokenizer.from_buffer(data)
    except (ValueError, UnicodeDecodeError) as error:
        raise bad_model(path, f"it is no tokenizer ({error})"[:200]) from None


def _check_parts(path: Path, data: bytes) -> None:
    """Raises LocalError BAD_MODEL for a part that is of no known kind."""
    try:
        parts = json.loads(data)
    except (ValueError, RecursionError):
        raise bad_model(path, "it is no JSON") from None
    if not isinstance(parts, dict):
        raise bad_model(path, "it is no tokenizer")
    for name, known in _KNOWN.items():
        part = parts.get(name)
        kind = part.get("type") if isinstance(part, dict) else part
        if kind not in known:
            said = kind[:40] if isinstance(kind, str) else "nothing"
            wanted = " or ".join(word for word in known if word)
            raise bad_model(path, f"its {name} is {said}, and known is {wanted}")
