"""`ayni init`."""

from pathlib import Path

import click

from node.cli.key import at_terminal, new_passphrase, show_words
from node.cli.seed_words import seed_words
from node.cli.session import Session, Verb
from node.config import Paths, load, write_default
from node.keystore import api_key, create_key
from protocol.identity import Identity, Seed
from protocol.ids import node_text


@click.command(cls=Verb, example="ayni init --name quinoa")
@click.option("--name", default="", help="What people see beside the node's id.")
@click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the passphrase from the first line of this file.",
)
@click.option("--no-passphrase", is_flag=True, help="Keep the key unencrypted on this disk.")
@click.option(
    "--words", is_flag=True, help="Print the 24 words of a new key, though this is no terminal."
)
@click.pass_obj
def init(
    session: Session, name: str, passphrase_file: Path | None, no_passphrase: bool, words: bool
) -> None:
    """Make this node's key and configuration.

    The key is this node's account. At a terminal its 24 words are shown, once: on paper they bring
    the account back when the disk is lost (`ayni restore`). Its passphrase is asked for, or comes
    from --passphrase-file, AYNI_PASSPHRASE or AYNI_PASSPHRASE_FILE. What is there already stays as
    it is.
    """
    if no_passphrase and passphrase_file is not None:
        raise click.UsageError("--no-passphrase and --passphrase-file exclude each other.")
    paths = session.paths
    new_config, new_key = not paths.config_file.exists(), not paths.key_file.exists()
    if name and not new_config:
        raise click.UsageError(
            f"{paths.config_file} is there already: set `name` under [node] in it."
        )
    if words and not new_key:
        raise click.UsageError("This home has its key already: `ayni key words` shows its words.")
    # Asked for before anything is written, so that a refusal leaves nothing behind.
    passphrase = new_passphrase(passphrase_file) if new_key and not no_passphrase else None
    if new_config:
        write_default(paths.config_file, name)
    load(session.home)  # A configuration that is wrong is told now rather than by `up`.
    seed = create_key(paths.key_file, passphrase) if new_key else None
    api_key(paths.api_key_file)
    if session.output.as_json:
        told: dict[str, object] = {
            "node": None if seed is None else node_text(Identity(seed).node),
            "config_file": str(paths.config_file),
            "key_file": str(paths.key_file),
            "new_config": new_config,
            "new_key": new_key,
        }
        session.output.json({**told, "words": seed_words(seed)} if seed and words else told)
        return
    _tell(session, paths, seed)
    if seed is not None and (words or session.output.for_person):
        session.output.line()
        show_words(session.output, seed_words(seed))
        _confirm(session)


def _tell(session: Session, paths: Paths, seed: Seed | None) -> None:
    node = [] if seed is None else [("node", node_text(Identity(seed).node))]
    session.output.facts(
        "This node was set up already." if seed is None else "This node is set up.",
        [
            *node,
            ("key", f"{paths.key_file} (the node's account; `ayni key words` shows its words)"),
            ("settings", str(paths.config_file)),
            ("next", "`ayni network create NAME` or `ayni network join FILE`, then `ayni up`"),
        ],
    )


def _confirm(session: Session) -> None:
    """At a terminal, see that the words are on paper."""
    if not at_terminal():
        return
    if not click.confirm("Are they on paper?", default=True, err=True):
        session.output.remark("`ayni key words` shows them again: do it before you earn credits.")
