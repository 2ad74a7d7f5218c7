"""Values of options and arguments that several verbs read alike."""

import click

from node.api.ledger_views import AccountLine
from node.api.providers import provider_chosen
from node.api.views import Peer
from node.cli.client import Daemon
from protocol.ids import node_parsed
from protocol.units import Microcredits, credits_parsed


def credits_given(
    ctx: click.Context, option: click.Parameter, value: str | None
) -> Microcredits | None:
    """A callback: credits as a person writes them, in microcredits."""
    try:
        return None if value is None else credits_parsed(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def is_node_id(text: str) -> bool:
    """Whether it is a whole id, which means the same node to everybody."""
    try:
        node_parsed(text)
    except ValueError:
        return False
    return True


def account_id(daemon: Daemon, text: str) -> str:
    """The id that a person means by a whole id, the beginning or end of one, or a name that is
    known to the node. Raises LocalError NOT_FOUND when it is none or several."""
    if is_node_id(text):
        return text
    peers = daemon.get("/ayni/v1/peers", tuple[Peer, ...])
    lines = daemon.get("/ayni/v1/ledger/accounts", tuple[AccountLine, ...])
    pairs = [(peer.node, peer.name) for peer in peers]
    pairs += [(line.account.node, line.account.name) for line in lines]
    return provider_chosen(text, list(dict.fromkeys(pairs)))
