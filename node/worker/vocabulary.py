"""What is known of a model's tokens, wherever it was read: what turns text to ids and back."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Tokens that are known to end a turn or an answer, whatever a file says of its end.
ENDS_USUAL: Final = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>",
    "<|end|>",
)  # fmt: skip
SPACE: Final = "\u2581"  # SentencePiece's letter for a space.
_BYTE: Final = re.compile(r"<0x([0-9A-F]{2})>")

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of one model."""

    path: Path
    """Of the file to name to people."""
    spelled: Sequence[bytes]
    """The bytes of each token by its id, b"" for a control token."""
    control: Mapping[str, int]
    """Tokens that only a template may write."""
    encode: Encode
    """The ids of a text at the beginning of a prompt. It may give control tokens by mistake, and
    they are to be dropped."""
    encode_more: Encode
    """The same after a control token."""
    begins: Sequence[int]
    """What stands before a plain text."""
    ends: frozenset[int]
    template: str
    """Jinja, or "" for none."""
    variables: Mapping[str, str]
    """`bos_token` and `eos_token`, for the template."""


def letters() -> dict[str, int]:
    """GPT-2's way to write a byte as a letter that can be seen, as letter -> byte."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(b): b for b in seen} | {chr(256 + n): b for n, b in enumerate(unseen)}


LETTERS: Final = letters()


def spelled_by_letters(token: str) -> bytes:
    """Of a byte-level vocabulary; b"" for a token that is not written in its letters."""
    return bytes(LETTERS[c] for c in token) if all(c in LETTERS for c in token) else b""


def spelled_by_pieces(token: str) -> bytes:
    """Of a vocabulary of SentencePiece's kind, where `<0x0A>` is a single byte."""
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(SPACE, " ").encode()


def ends_among(control: Mapping[str, int]) -> frozenset[int]:
    """Those known to end a turn."""
    return frozenset(control[token] for token in ENDS_USUAL if token in control)
