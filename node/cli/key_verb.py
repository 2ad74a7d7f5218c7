"""`ayni key`: what the owner may do with the node's key."""

from pathlib import Path

import click

from node.cli.key import load_node_key, show_words
from node.cli.seed_words import seed_words
from node.cli.session import Session, VerbGroup
from protocol.identity import Identity
from protocol.ids import node_text


@click.group(cls=VerbGroup, epilog="Example: ayni key words")
def key() -> None:
    """See this node's key as words to keep on paper."""


@key.command(example="ayni key words")
@click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the passphrase from the first line of this file.",
)
@click.pass_obj
def words(session: Session, passphrase_file: Path | None) -> None:
    """Show the 24 words of this node's key again, once its passphrase is given.

    `ayni restore` makes the key of them on another disk. They are shown here and written nowhere.
    """
    seed = load_node_key(session.paths, passphrase_file)
    shown = seed_words(seed)
    if session.output.as_json:
        session.output.json({"node": node_text(Identity(seed).node), "words": shown})
    else:
        show_words(session.output, shown)
