"""The vocabulary that a GGUF holds: byte-level BPE by its merges, or SentencePiece's by scores."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from node.worker.gguf import GgufFile
from node.worker.splits import DEFAULT, LLAMA_3, QWEN_2
from node.worker.vocabulary import (
    LETTERS,
    SPACE,
    Vocabulary,
    ends_among,
    spelled_by_letters,
    spelled_by_pieces,
)
from node.worker.weight_file import bad_model

# Types of token in a GGUF.
_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
KINDS: Final = "gpt2/smollm, gpt2/gpt-2, gpt2/llama-bpe, gpt2/qwen2, gpt2/default and llama"


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a name in `tokenizer.ggml.pre` stands for."""

    splits: Sequence[pre_tokenizers.PreTokenizer]
    whole_words: bool = False  # A word that is a token is one, whatever the merges say.
    begins: bool = False  # A text begins with the token for beginnings.
    composed: bool = False  # Letters and their accents are put together first.


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The list of tokens, once it is consistent."""

    gguf: GgufFile
    written: Sequence[str]
    types: Sequence[int]
    ids: dict[str, int]

    def of_type(self, kind: int) -> dict[str, int]:
        return {token: n for token, n in self.ids.items() if self.types[n] == kind}

    def one(self, name: str) -> int | None:
        """The token that the file names for a purpose, if it does."""
        key = f"tokenizer.ggml.{name}"
        if key not in self.gguf.metadata:
            return None
        number = self.gguf.integer(key)
        if not 0 <= number < len(self.written):
            raise bad_model(self.gguf.path, f"{key} is no token")
        return number


def gguf_vocabulary(gguf: GgufFile) -> Vocabulary:
    """Raises LocalError BAD_MODEL for one that is inconsistent, or of a kind that is not known by
    name."""
    model = gguf.text("tokenizer.ggml.model")
    pre = gguf.text("tokenizer.ggml.pre", "gpt-2" if model == "gpt2" else "default")
    kind = _kind(pre) if model == "gpt2" else None
    if kind is None and model != "llama":
        raise bad_model(
            gguf.path, f"its tokenizer is {model[:40]}/{pre[:40]}, and known are {KINDS}"
        )
    tokens = _tokens(gguf)
    encoder = _by_scores(tokens) if kind is None else _by_merges(tokens, kind)
    _add_words(encoder, tokens)
    control = tokens.of_type(_CONTROL)
    first, last = tokens.one("bos_token_id"), tokens.one("eos_token_id")
    begins = gguf.boolean("tokenizer.ggml.add_bos_token", kind is None or kind.begins)
    named = {last, tokens.one("eot_token_id"), tokens.one("eom_token_id")}
    names = {"bos_token": first, "eos_token": last}

    def encode(text: str) -> Sequence[int]:
        ids: list[int] = encoder.encode(text, add_special_tokens=False).ids
        return ids

    return Vocabulary(
        path=gguf.path,
        spelled=[_spelled(tokens, number, kind is None) for number in range(len(tokens.written))],
        control=control,
        encode=encode,
        encode_more=encode,
        begins=[first] if begins and first is not None else [],
        ends=ends_among(control) | {number for number in named if number is not None},
        template=gguf.text("tokenizer.chat_template", ""),
        variables={n: "" if t is None else tokens.written[t] for n, t in names.items()},
    )


def _kind(name: str) -> _Kind | None:
    match name:
        case "smollm":
            return _Kind([pre_tokenizers.Digits(individual_digits=True), _bytes(split=True)])
        case "gpt-2" | "gpt2":
            return _Kind([_bytes(split=True)])
        case "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral":
            split = _split(LLAMA_3)
            return _Kind([split, _bytes(split=False)], whole_words=True, begins=True)
        case "qwen2" | "deepseek-r1-qwen":
            return _Kind([_split(QWEN_2), _bytes(split=False)], composed=True)
        case "default":
            return _Kind([*map(_split, DEFAULT), _bytes(split=False)])
    return None


def _split(expression: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(expression), "isolated")


def _bytes(split: bool) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)


def _tokens(gguf: GgufFile) -> _Tokens:
    written = gguf.texts("tokenizer.ggml.tokens")
    types = gguf.integers("tokenizer.ggml.token_type")
    ids = {token: number for number, token in enumerate(written)}
    if not written or len(ids) != len(written):
        raise bad_model(gguf.path, "its vocabulary is empty or has a token twice")
    if len(types) != len(written):
        raise bad_model(gguf.path, "its tokens and their types differ in number")
    if "" in ids and types[ids[""]] == _CONTROL:
        raise bad_model(gguf.path, "a control token is empty")
    return _Tokens(gguf, written, types, ids)


def _by_merges(tokens: _Tokens, kind: _Kind) -> Tokenizer:
    ids = {token: n for token, n in tokens.ids.items() if tokens.types[n] != _CONTROL}
    merges: list[tuple[str, str]] = []
    for merge in tokens.gguf.texts("tokenizer.ggml.merges"):
        left, space, right = merge.partition(" ")
        if not space or not {left, right, left + right} <= ids.keys():
            raise bad_model(
                tokens.gguf.path, "a merge of its tokenizer has parts that are no tokens"
            )
        merges.append((left, right))
    # Published vocabularies lack a few control characters and bytes that UTF-8 seldom has; the
    # model never saw those, and they are left out of its prompts.
    needed = {letter for letter, byte in LETTERS.items() if byte == 10 or 32 <= byte < 127}
    if not needed <= ids.keys():
        raise bad_model(tokens.gguf.path, "its tokenizer lacks letters of ASCII")
    encoder = Tokenizer(models.BPE(ids, merges, ignore_merges=kind.whole_words))
    encoder.pre_tokenizer = pre_tokenizers.Sequence(list(kind.splits))
    if kind.composed:
        encoder.normalizer = normalizers.NFC()
    return encoder


def _by_scores(tokens: _Tokens) -> Tokenizer:
    """The pair whose whole has the highest score is joined first, and what has no token of its
    own is spelled byte by byte: as transformers convert a SentencePiece model into merges
    (transformers, convert_slow_tokenizer.py, generate_merges)."""
    gguf = tokens.gguf
    scores = gguf.numbers("tokenizer.ggml.scores")
    if len(scores) != len(tokens.written) or not all(map(math.isfinite, scores)):
        raise bad_model(gguf.path, "its tokens and their scores do not fit")
    bytes_known = tokens.of_type(_BYTE)
    if not all(f"<0x{byte:02X}>" in bytes_known for byte in range(256)):
        raise bad_model(gguf.path, "its tokenizer lacks tokens of single bytes")
    kept = (_CONTROL, _UNKNOWN, _BYTE)
    pieces = {t: n for t, n in tokens.ids.items() if t and tokens.types[n] not in kept}
    merges = sorted(
        (-scores[whole], pieces[token[:cut]], pieces[token[cut:]], token[:cut], token[cut:])
        for token, whole in pieces.items()
        for cut in range(1, min(len(token), _PIECE_LETTERS_MAX + 1))
        if token[:cut] in pieces and token[cut:] in pieces
    )
    encoder = Tokenizer(
        models.BPE(
            pieces | bytes_known,
            [(left, right) for *_, left, right in merges],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = normalizers.Replace(" ", SPACE)
    prefix = gguf.boolean("tokenizer.ggml.add_space_prefix", True)
    encoder.normalizer = (
        normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefix else spaces
    )
    return encoder


_PIECE_LETTERS_MAX: Final = 256  # The longest that are published have 16, or 31 spaces.


def _add_words(encoder: Tokenizer, tokens: _Tokens) -> None:
    """Tokens that stand for themselves wherever they are written. One with a space in it is found
    by joining, since a text is searched for them before its spaces are replaced."""
    words = [word for word in tokens.of_type(_USER_DEFINED) if word and SPACE not in word]
    encoder.add_tokens([AddedToken(word, normalized=False, special=False) for word in words])


def _spelled(tokens: _Tokens, number: int, by_pieces: bool) -> bytes:
    token, kind = tokens.written[number], tokens.types[number]
    if kind == _CONTROL or (by_pieces and kind == _UNKNOWN):
        return b""
    if by_pieces:
        return spelled_by_pieces(token) if kind == _BYTE else token.replace(SPACE, " ").encode()
    return token.encode() if kind == _USER_DEFINED else spelled_by_letters(token)
