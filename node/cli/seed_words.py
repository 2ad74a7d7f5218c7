"""The 24 words of a node's key, and back: BIP-39 English of the 32-byte Ed25519 seed itself.

No passphrase and no derivation stand between them: the words are the seed and its checksum, so
that any program that knows BIP-39 reads the same 32 bytes out of them.
"""

import difflib
import re
from collections.abc import Sequence
from functools import cache
from typing import Final

from mnemonic import Mnemonic

from protocol.errors import Code, LocalError
from protocol.identity import Seed

WORDS: Final = 24
_COLUMNS: Final = 4
_NUMBER: Final = re.compile(r"\d+[.):]?")


@cache
def _book() -> Mnemonic:
    return Mnemonic("english")


def seed_words(seed: Seed) -> tuple[str, ...]:
    """The words of a seed. Whoever has them has the account."""
    return tuple(_book().to_mnemonic(seed).split())


def words_typed(text: str) -> list[str]:
    """The words in what a person typed or pasted: numbers before them and capitals do not count."""
    return [word for word in text.lower().split() if not _NUMBER.fullmatch(word)]


def check_words(words: Sequence[str], before: int = 0) -> None:
    """Whether each is one of the list; `before` words came earlier.

    Raises LocalError BAD_KEY, which names the first that is none, and the most similar ones.
    """
    book = _book().wordlist
    for place, word in enumerate(words, before + 1):
        if word not in book:
            near = difflib.get_close_matches(word, book, n=3, cutoff=0.6)
            hint = f" Do you mean {' or '.join(near)}?" if near else ""
            raise LocalError(
                Code.BAD_KEY,
                f"Word {place}, {word!r}, is none of the 2,048 words that a key is written in."
                f"{hint} Look at your paper and type it again.",
            )


def seed_of_words(words: Sequence[str]) -> Seed:
    """The seed that 24 words stand for.

    Raises LocalError BAD_KEY: for another number of words, for one that is not in the list, and
    where they do not fit their checksum.
    """
    if len(words) != WORDS:
        raise LocalError(
            Code.BAD_KEY,
            f"{len(words)} words came, and a key has {WORDS}. Look at your paper and type all of "
            "them, in their order.",
        )
    check_words(words)
    try:
        return Seed(bytes(_book().to_entropy(list(words))))
    except ValueError:
        raise LocalError(
            Code.BAD_KEY,
            f"Each of the {WORDS} is a word of the list, but together they are no key: one is "
            "another than on your paper, or two have changed places. Compare them, in their order.",
        ) from None


def words_shown(words: Sequence[str]) -> str:
    """Numbered, to be read line by line."""
    cells = [f"{number:>2}. {word:<8}" for number, word in enumerate(words, 1)]
    rows = [cells[start : start + _COLUMNS] for start in range(0, len(cells), _COLUMNS)]
    return "\n".join("  ".join(row).rstrip() for row in rows)
