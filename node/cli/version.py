"""`ayni version`."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

import click

from node.cli.session import Session, Verb
from protocol.limits import PROTOCOL_VERSION


@click.command(cls=Verb, example="ayni version --json")
@click.pass_obj
def version(session: Session) -> None:
    """Show the version of Ayni, of the protocol that it speaks, and of Python."""
    try:
        ours = installed_version("ayni")
    except PackageNotFoundError:
        ours = "unknown (not installed)"
    if session.output.as_json:
        told = {"ayni": ours, "protocol": PROTOCOL_VERSION, "python": platform.python_version()}
        session.output.json(told)
    else:
        session.output.line(
            f"ayni {ours}, protocol {PROTOCOL_VERSION}, Python {platform.python_version()}"
        )
