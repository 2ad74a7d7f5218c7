"""Byte-level BPE from the GGUF's own tokens and merges; control tokens only from the template."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

from node.worker.gguf import GgufFile, bad_model
from node.worker.template import ChatTemplate
from node.worker.text_stream import TextStream
from protocol.errors import Code, LocalError

# Types of token in a GGUF.
_CONTROL, _USER_DEFINED = 3, 4

_LLAMA_3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a name in `tokenizer.ggml.pre` stands for."""

    splits: Sequence[pre_tokenizers.PreTokenizer]
    whole_words: bool = False  # A word that is a token is one, whatever the merges say.
    begins: bool = False  # A text begins with the token for beginnings.


def _kind(name: str) -> _Kind | None:
    match name:
        case "smollm":
            return _Kind([pre_tokenizers.Digits(individual_digits=True), _bytes(split=True)])
        case "gpt-2" | "gpt2":
            return _Kind([_bytes(split=True)])
        case "llama-bpe" | "llama3" | "llama-v3":
            split = pre_tokenizers.Split(Regex(_LLAMA_3), "isolated")
            return _Kind([split, _bytes(split=False)], whole_words=True, begins=True)
    return None


def _bytes(split: bool) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)


def _letters() -> dict[str, int]:
    """GPT-2's way to write a byte as a letter that can be seen, as letter -> byte."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(b): b for b in seen} | {chr(256 + n): b for n, b in enumerate(unseen)}


_LETTERS: Final = _letters()


class ModelTokenizer:
    """The tokens of one model: prompts to ids, ids to text. Raises LocalError BAD_MODEL for a
    vocabulary that is inconsistent or of a kind that is not known by name."""

    def __init__(self, gguf: GgufFile, chat_template: str = "") -> None:
        self._path = gguf.path
        self._tokens = gguf.texts("tokenizer.ggml.tokens")
        self._types = gguf.integers("tokenizer.ggml.token_type")
        kind = self._known_kind(gguf)
        self._ids = {token: number for number, token in enumerate(self._tokens)}
        if not self._tokens or len(self._ids) != len(self._tokens):
            raise bad_model(gguf.path, "its vocabulary is empty or has a token twice")
        if len(self._types) != len(self._tokens):
            raise bad_model(gguf.path, "its tokens and their types differ in number")
        self._control = {
            token: number for token, number in self._ids.items() if self._types[number] == _CONTROL
        }
        if "" in self._control:
            raise bad_model(gguf.path, "a control token is empty")
        self._encoder = self._byte_pair_encoder(gguf, kind)
        self._cut = re.compile(
            "|".join(re.escape(t) for t in _longest_first(self._control)) or "$^"
        )
        self._token_bytes = [self._bytes_of(number) for number in range(len(self._tokens))]
        first = self._one(gguf, "bos_token_id")
        self._first = first if gguf.boolean("tokenizer.ggml.add_bos_token", kind.begins) else None
        last = self._one(gguf, "eos_token_id")
        self.ends = self._ending_tokens(gguf, last)
        source = chat_template or gguf.text("tokenizer.chat_template", "")
        names = {"bos_token": first, "eos_token": last}
        variables = {n: "" if t is None else self._tokens[t] for n, t in names.items()}
        self._template = ChatTemplate(source, variables, list(self._control)) if source else None

    @property
    def vocabulary(self) -> int:
        return len(self._tokens)

    def chat(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """The ids of a chat of (role, text) pairs, as the model's template writes it.

        Raises LocalError BAD_REQUEST: the model has no template, or it refuses the messages.
        """
        if self._template is None:
            raise LocalError(
                Code.BAD_REQUEST, "The model has no chat template: send it a plain text."
            )
        rendered, mark = self._template.render(messages)
        ids: list[int] = []
        at = 0
        for found in self._cut.finditer(rendered):
            ids += self._plain(rendered[at : found.start()].replace(mark, ""))
            ids.append(self._control[found.group()])
            at = found.end()
        return ids + self._plain(rendered[at:].replace(mark, ""))

    def text(self, text: str) -> list[int]:
        """The ids of a plain text. What looks like a control token in it is only text."""
        begin = [] if self._first is None else [self._first]
        return begin + self._plain(text)

    def stream(self, stops: Sequence[str]) -> TextStream:
        """A decoder for one answer."""
        return TextStream(self._token_bytes, stops)

    def _plain(self, text: str) -> list[int]:
        return list(self._encoder.encode(text, add_special_tokens=False).ids) if text else []

    def _known_kind(self, gguf: GgufFile) -> _Kind:
        model, pre = gguf.text("tokenizer.ggml.model"), gguf.text("tokenizer.ggml.pre", "gpt-2")
        kind = _kind(pre)
        if model != "gpt2" or kind is None:
            raise bad_model(
                gguf.path,
                f"its tokenizer is {model[:40]}/{pre[:40]}, and known are gpt2/smollm, gpt2/gpt-2 "
                "and gpt2/llama-bpe",
            )
        return kind

    def _byte_pair_encoder(self, gguf: GgufFile, kind: _Kind) -> Tokenizer:
        merges: list[tuple[str, str]] = []
        for merge in gguf.texts("tokenizer.ggml.merges"):
            left, space, right = merge.partition(" ")
            if not space or not {left, right, left + right} <= self._ids.keys():
                raise bad_model(gguf.path, "a merge of its tokenizer has parts that are no tokens")
            merges.append((left, right))
        # Published vocabularies lack a few control characters and bytes that UTF-8 seldom has;
        # the model never saw those, and they are left out of its prompts.
        needed = {letter for letter, byte in _LETTERS.items() if byte == 10 or 32 <= byte < 127}
        if not needed <= self._ids.keys():
            raise bad_model(gguf.path, "its tokenizer lacks letters of ASCII")
        encoder = Tokenizer(models.BPE(self._ids, merges, ignore_merges=kind.whole_words))
        encoder.pre_tokenizer = pre_tokenizers.Sequence(list(kind.splits))
        words = [t for t, n in self._ids.items() if self._types[n] == _USER_DEFINED and t]
        encoder.add_tokens([AddedToken(word, normalized=False, special=False) for word in words])
        return encoder

    def _bytes_of(self, number: int) -> bytes:
        token = self._tokens[number]
        if self._types[number] == _CONTROL:
            return b""
        if self._types[number] == _USER_DEFINED:
            return token.encode()
        return bytes(_LETTERS[c] for c in token) if all(c in _LETTERS for c in token) else b""

    def _one(self, gguf: GgufFile, name: str) -> int | None:
        key = f"tokenizer.ggml.{name}"
        if key not in gguf.metadata:
            return None
        number = gguf.integer(key)
        if not 0 <= number < len(self._tokens):
            raise bad_model(self._path, f"{key} is no token")
        return number

    def _ending_tokens(self, gguf: GgufFile, last: int | None) -> frozenset[int]:
        """Tokens that end an answer: those that the file names, and those known to end a turn."""
        named = {last, self._one(gguf, "eot_token_id"), self._one(gguf, "eom_token_id")}
        usual = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>")
        known = {self._control[token] for token in usual if token in self._control}
        return frozenset(known | {number for number in named if number is not None})


def _longest_first(tokens: Sequence[str] | dict[str, int]) -> list[str]:
    return sorted(tokens, key=len, reverse=True)
