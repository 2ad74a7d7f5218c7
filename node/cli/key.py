"""The node's key in a person's hands: its passphrase, asked for, and its words, shown."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from node.cli.output import Output
from node.cli.seed_words import words_shown
from node.config import Paths
from node.keystore import Prompt, find_passphrase, load_key
from protocol.errors import Code, LocalError
from protocol.identity import Seed


def load_node_key(paths: Paths, passphrase_file: Path | None = None) -> Seed:
    """The seed of this home. Raises LocalError NOT_FOUND, which names `ayni init`, or BAD_KEY."""
    if not paths.key_file.exists():
        raise LocalError(
            Code.NOT_FOUND, f"{paths.data_folder} holds no key yet: run `ayni init` first."
        )
    ask = _prompt("Passphrase of this node's key", new=False)
    return load_key(paths.key_file, lambda: find_passphrase(ask, passphrase_file))


def new_passphrase(passphrase_file: Path | None) -> bytes:
    """For a new key; a person gives it twice. Raises LocalError BAD_KEY."""
    ask = _prompt("A passphrase for the new key", new=True)
    try:
        return find_passphrase(ask, passphrase_file)
    except LocalError as error:
        hint = " For a trial, --no-passphrase keeps the key unencrypted."
        raise LocalError(error.code, error.sentence + hint) from None


def at_terminal() -> bool:
    """Whether a person can be asked: a question needs a terminal to read from and one to write
    to, and goes to stderr, since stdout may be a file."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def show_words(output: Output, words: Sequence[str]) -> None:
    """The words of the key, for a pen and a paper."""
    output.line(
        f"These {len(words)} words are this node's key. Whoever has them has the account with all "
        "its credits, and `ayni restore` brings it back from them. Write them on paper, in this "
        "order, and show them to nobody:"
    )
    output.line()
    output.line(words_shown(words))
    output.line()


def _prompt(question: str, *, new: bool) -> Prompt | None:
    """None where nobody can be asked."""
    if not at_terminal():
        return None

    def ask() -> str:
        answer = click.prompt(question, hide_input=True, confirmation_prompt=new, err=True)
        assert isinstance(answer, str)
        return answer

    return ask
