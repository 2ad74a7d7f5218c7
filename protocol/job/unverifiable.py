"""Modes whose output nobody can recompute: how their tokens are counted, without any ids."""

from typing import Final

UNVERIFIABLE: Final = "unverifiable/"
"""How the name of such a mode begins: what runs the model is a program that we know nothing of."""
TOKEN_UNNAMED: Final = 0
"""The id of every token of such a mode: it counts one and names none."""
BYTES_PER_TOKEN: Final = 4  # Of a prompt: about what English text and most code have.


def is_unverifiable(mode: str) -> bool:
    """Whether a mode promises nothing that could be checked."""
    return mode.startswith(UNVERIFIABLE)


def input_tokens_counted(prompt_bytes: int) -> int:
    """The tokens that a prompt of so many canonical bytes counts as in such a mode.

    Both sides know its size, so neither has to believe what a server says of its tokenizer.
    """
    return -(-prompt_bytes // BYTES_PER_TOKEN)
