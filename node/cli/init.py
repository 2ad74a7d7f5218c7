"""`ayni init`."""

from pathlib import Path

import click

from node.cli.key import new_passphrase
from node.cli.session import Session, Verb
from node.config import load, write_default
from node.keystore import api_key, create_key
from protocol.identity import Identity
from protocol.ids import node_text


@click.command(cls=Verb, example="ayni init --name quinoa")
@click.option("--name", default="", help="What people see beside the node's id.")
@click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the passphrase from the first line of this file.",
)
@click.option("--no-passphrase", is_flag=True, help="Keep the key unencrypted on this disk.")
@click.pass_obj
def init(session: Session, name: str, passphrase_file: Path | None, no_passphrase: bool) -> None:
    """Make this node's key and configuration.

    The key is this node's account: keep a copy of its file. Its passphrase is asked for, or
    comes from --passphrase-file, AYNI_PASSPHRASE or AYNI_PASSPHRASE_FILE. What is there already
    stays as it is.
    """
    if no_passphrase and passphrase_file is not None:
        raise click.UsageError("--no-passphrase and --passphrase-file exclude each other.")
    paths = session.paths
    new_config, new_key = not paths.config_file.exists(), not paths.key_file.exists()
    if name and not new_config:
        raise click.UsageError(
            f"{paths.config_file} is there already: set `name` under [node] in it."
        )
    # Asked for before anything is written, so that a refusal leaves nothing behind.
    passphrase = new_passphrase(passphrase_file) if new_key and not no_passphrase else None
    if new_config:
        write_default(paths.config_file, name)
    load(session.home)  # A configuration that is wrong is told now rather than by `up`.
    node = node_text(Identity(create_key(paths.key_file, passphrase)).node) if new_key else ""
    api_key(paths.api_key_file)
    if session.output.as_json:
        session.output.json(
            {
                "node": node or None,
                "config_file": str(paths.config_file),
                "key_file": str(paths.key_file),
                "new_config": new_config,
                "new_key": new_key,
            }
        )
        return
    session.output.facts(
        "This node is set up." if new_key else "This node was set up already.",
        [
            *([("node", node)] if node else []),
            ("key", f"{paths.key_file} (keep a copy: it is the node's account)"),
            ("settings", str(paths.config_file)),
            ("next", "`ayni network create NAME` or `ayni network join FILE`, then `ayni up`"),
        ],
    )
