"""`ayni restore`: a home out of 24 words, and its account back from the network."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from node.cli.key import at_terminal, new_passphrase
from node.cli.network_file import read_network, write_network
from node.cli.output import Output
from node.cli.seed_words import WORDS, check_words, seed_of_words, words_typed
from node.cli.session import Session, Verb
from node.config import Config, Paths, load, write_default
from node.keystore import api_key, create_key
from protocol.errors import Code, LocalError
from protocol.identity import Identity, Seed
from protocol.ids import node_text
from protocol.ledger.genesis import NetworkFile

_TEXT_BYTES_MAX: Final = 4096  # 24 words of 8 letters, each with a number: 300 bytes.
_RISK: Final = (
    "A witness that has not answered may hold an entry that this key signed before its disk was "
    "lost. If another is signed in its place, the account can be stuck for ever with all its "
    "credits. Waiting costs nothing."
)


@dataclass(frozen=True, slots=True)
class _Wish:
    """How the home is to be."""

    name: str
    passphrase_file: Path | None
    no_passphrase: bool


@click.command(cls=Verb, example="ayni restore --network field.ayni")
@click.option(
    "--network",
    "network_path",
    metavar="NAME.ayni",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The network of the account, from `ayni network invite` on any node of it.",
)
@click.option("--name", default="", help="What people see beside the node's id.")
@click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the passphrase of the key's new file from the first line of this file.",
)
@click.option("--no-passphrase", is_flag=True, help="Keep the key unencrypted on this disk.")
@click.option("--hide", is_flag=True, help="Do not show the words while they are typed.")
@click.option("--no-wait", is_flag=True, help="Make the home; `ayni up` does the rest.")
@click.option("--override", is_flag=True, help="Do not wait for all witnesses: a quorum will do.")
@click.option("--yes", is_flag=True, help="You have read what --override risks.")
@click.pass_obj
def restore(
    session: Session,
    /,
    *,
    network_path: Path | None,
    name: str,
    passphrase_file: Path | None,
    no_passphrase: bool,
    hide: bool,
    no_wait: bool,
    override: bool,
    yes: bool,
) -> None:
    """Bring a node back from the 24 words of its key.

    The words are asked for, on one line or on several, or read from standard input. Then the node
    starts, gives nothing to others, and asks the witnesses of its network for the end of its
    chain: identity, balance and channels come back. It waits for all of them, since one alone may
    have seen what was signed last; `ayni up` goes on waiting where this is broken off.
    """
    if no_passphrase and passphrase_file is not None:
        raise click.UsageError("--no-passphrase and --passphrase-file exclude each other.")
    _check_new(session.paths)
    network = None if network_path is None else read_network(network_path)
    if network is None and session.paths.network_file.exists():
        network = read_network(session.paths.network_file)
    if override and not yes:
        _warn(session.output)
    seed = _read_seed(hide=hide)
    config = _make_home(session, _Wish(name, passphrase_file, no_passphrase), seed, network)
    node = node_text(Identity(seed).node)
    session.output.remark(f"{node} has a home again, in {session.paths.config_folder}.")
    if network is None or no_wait:
        _tell_home(session, node, network)
        return
    # Late: it takes a second, and every refusal above is told without it.
    from node.cli.restore_run import Restoring

    back = Restoring(session, config, seed, network, override=override).until_back()
    if session.output.as_json:
        session.output.json(back)


def _check_new(paths: Paths) -> None:
    """Raises LocalError BAD_KEY where the home has a key."""
    if paths.key_file.exists():
        raise LocalError(
            Code.BAD_KEY,
            f"{paths.key_file} holds a key already, so nothing is restored over it. If it is the "
            "one that you are restoring, `ayni up` goes on; else name another home with --home.",
        )


def _warn(output: Output) -> None:
    output.remark(_RISK)
    if output.as_json or not at_terminal():
        raise click.UsageError("Read the warning, then say --override --yes.")
    click.confirm("Go on before all of them have answered?", abort=True, err=True)


def _read_seed(*, hide: bool) -> Seed:
    """Raises LocalError BAD_KEY for words that are none."""
    if not sys.stdin.isatty():
        text = sys.stdin.buffer.read(_TEXT_BYTES_MAX + 1)
        if len(text) > _TEXT_BYTES_MAX:
            raise LocalError(Code.BAD_KEY, f"{WORDS} words were wanted; far more came.")
        return seed_of_words(words_typed(text.decode("utf-8", "replace")))
    words: list[str] = []
    while len(words) < WORDS:
        left = WORDS - len(words)
        asked = f"The {WORDS} words" if not words else f"{left} more"
        line = words_typed(click.prompt(asked, hide_input=hide, err=True, prompt_suffix=": "))
        try:
            check_words(line, len(words))
        except LocalError as error:
            click.echo(f"{error.sentence} (This line was not taken.)", err=True)
            continue
        words += line
    return seed_of_words(words)


def _make_home(session: Session, wish: _Wish, seed: Seed, network: NetworkFile | None) -> Config:
    """Everything but the key first: a home that has its key is whole."""
    import trio

    from node.storage.fresh import make_restored

    paths = session.paths
    passphrase = None if wish.no_passphrase else new_passphrase(wish.passphrase_file)
    if not paths.config_file.exists():
        write_default(paths.config_file, wish.name)
    elif wish.name:
        raise click.UsageError(
            f"{paths.config_file} is there already: set `name` under [node] in it."
        )
    _, config = load(session.home)
    if network is not None:
        write_network(paths.network_file, network, new=False)
    trio.run(make_restored, paths.database_file)
    api_key(paths.api_key_file)
    create_key(paths.key_file, passphrase, seed)
    return config


def _tell_home(session: Session, node: str, network: NetworkFile | None) -> None:
    if session.output.as_json:
        session.output.json({"node": node, "ready": False})
        return
    join = "" if network is not None else "`ayni network join FILE`, then "
    session.output.line(
        f"Next: {join}`ayni up`. It brings balance and channels back from the network, once all "
        "witnesses have answered; `ayni wallet` shows how far that is."
    )
