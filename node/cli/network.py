"""`ayni network`: create, join, show, invite."""

import secrets
from pathlib import Path

import click

from node.api.network_shown import network_shown
from node.api.views import ApiFile, Network, Status
from node.cli.client import connect, read_api_file
from node.cli.key import load_node_key
from node.cli.network_file import read_network, write_network
from node.cli.options import credits_given
from node.cli.seats import seats_warnings, seats_words
from node.cli.session import Session, VerbGroup
from protocol.errors import Code, LocalError
from protocol.identity import Identity
from protocol.ids import NodeId, node_parsed, node_text
from protocol.ledger.genesis import NetworkFile, genesis_made
from protocol.units import credits_parsed, credits_text


@click.group(cls=VerbGroup, epilog="Example: ayni network join field.ayni")
def network() -> None:
    """Create, join, show or hand on a network."""


def _show(session: Session, view: Network, first_line: str = "") -> None:
    if session.output.as_json:
        session.output.json(view)
        return
    if first_line:
        session.output.line(first_line)
    fee = view.entry_fee_microcredits
    session.output.facts(
        view.name,
        [
            ("id", view.id),
            ("supply", f"{credits_text(view.supply_microcredits)} credits"),
            ("accounts", f"{view.accounts} with credits from the start"),
            ("witnesses", "\n".join((seats_words(len(view.witnesses)), *view.witnesses))),
            *([("entry fee", f"{credits_text(fee)} credits")] if fee else []),
            ("bootstrap", "\n".join(view.bootstrap) or "none"),
        ],
    )


def _node(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> set[NodeId]:
    try:
        return {node_parsed(value) for value in values}
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _allocations(
    ctx: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> dict[NodeId, int]:
    shares: dict[NodeId, int] = {}
    for value in values:
        node, equals, amount = value.partition("=")
        try:
            if not equals:
                raise ValueError(f"{value!r} is not NODE=CREDITS, such as 12D3KooW...=1000")
            account = node_parsed(node)
            if account in shares:
                raise ValueError(f"{node} stands twice")
            shares[account] = credits_parsed(amount)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return shares


@network.command(example="ayni network create field --supply 4000 -o field.ayni")
@click.argument("name")
@click.option(
    "--allocate",
    multiple=True,
    metavar="NODE=CREDITS",
    callback=_allocations,
    help="Credits that a node starts with. May be given again.",
)
@click.option(
    "--supply",
    callback=credits_given,
    metavar="CREDITS",
    help="All credits there will ever be; what --allocate leaves goes to this node.",
)
@click.option(
    "--witness",
    multiple=True,
    metavar="NODE",
    callback=_node,
    help="A node that certifies payments; best are 4 or 7, of different owners. May be given "
    "again. This node alone, when left out.",
)
@click.option(
    "--entry-fee",
    callback=credits_given,
    metavar="CREDITS",
    help="What each entry of an account costs, for the witnesses; nothing, when left out.",
)
@click.option("--bootstrap", multiple=True, metavar="ADDRESS", help="Where to dial first.")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; NAME.ayni when left out.",
)
@click.pass_obj
def create(
    session: Session,
    /,
    *,
    name: str,
    allocate: dict[NodeId, int],
    supply: int | None,
    witness: set[NodeId],
    entry_fee: int | None,
    bootstrap: tuple[str, ...],
    path: Path | None,
) -> None:
    """Found a network: write its file, which friends join by.

    Who has credits, who certifies payments and what an entry costs is fixed for ever in it.
    """
    for address in bootstrap:
        _check_address(address)
    left = 0 if supply is None else supply - sum(allocate.values())
    if left < 0:
        raise click.UsageError("--allocate gives away more than --supply.")
    said: list[str] = []
    if left > 0 or (allocate and not witness):
        own = Identity(load_node_key(session.paths)).node
        said = _own_part(own, left, allocate, witness)
    nonce = secrets.token_bytes(16)
    genesis = genesis_made(name, nonce, allocate, witness, entry_fee=entry_fee or 0)
    file = NetworkFile(genesis, bootstrap)
    path = Path(f"{name}.ayni") if path is None else path
    write_network(path, file, new=True)
    _show(session, network_shown(file), f"Wrote {path}. Next: `ayni network join {path}`.")
    for line in (*said, *seats_warnings(genesis)):
        session.output.remark(line)


def _own_part(
    own: NodeId, left: int, allocate: dict[NodeId, int], witness: set[NodeId]
) -> list[str]:
    """What falls to this node where nobody else is named, and the sentences that say so."""
    name, said = node_text(own), []
    if left > 0:
        share = "All" if not allocate else "The other"
        allocate[own] = allocate.get(own, 0) + left
        said.append(f"{share} {credits_text(left)} credits begin with this node, {name}.")
    if not witness:
        witness.add(own)
        said.append(f"No --witness was given, so this node, {name}, is the only one.")
    return said


def _check_address(address: str) -> None:
    node = address.rpartition("/p2p/")[2]
    try:
        if not address.startswith("/"):
            raise ValueError("an address looks like /ip4/192.168.1.5/tcp/4001/p2p/12D3KooW...")
        node_parsed(node)
    except ValueError as error:
        raise click.UsageError(f"--bootstrap {address}: {error}") from None


@network.command(example="ayni network join field.ayni")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Leave the network that this home is in.")
@click.pass_obj
def join(session: Session, file: Path, replace: bool) -> None:
    """Make this home part of the network that FILE describes."""
    wanted, place = read_network(file), session.paths.network_file
    if place.exists() and not replace:
        present = network_shown(read_network(place))
        if present.id != network_shown(wanted).id:
            raise LocalError(
                Code.IN_USE,
                f"This home is in the network {present.name} ({present.id[:16]}) already. Use "
                "--replace to leave it, or --home for another node.",
            )
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_network(place, wanted, new=False)
    after = "Restart the node to use it." if _running(session) else "Next: `ayni up`."
    _show(session, network_shown(wanted), f"Joined {wanted.genesis.name}. {after}")


def _running(session: Session) -> ApiFile | None:
    try:
        return read_api_file(session.paths)
    except LocalError:
        return None


@network.command(example="ayni network show --json")
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.pass_obj
def show(session: Session, file: Path | None) -> None:
    """Show the network of this home, or the one in FILE."""
    if file is None and not session.paths.network_file.exists():
        raise no_network(session)
    _show(session, network_shown(read_network(file or session.paths.network_file)))


@network.command(example="ayni network invite -o field.ayni")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; NAME.ayni when left out.",
)
@click.pass_obj
def invite(session: Session, path: Path | None) -> None:
    """Write the network's file anew, with this running node's addresses to dial first."""
    status = connect(session.paths).get("/ayni/v1/status", Status)
    present = read_network(session.paths.network_file)
    outside = [address for address in status.addresses if not address.startswith(_LOOPBACK)]
    bootstrap = tuple(dict.fromkeys((*(outside or status.addresses), *present.bootstrap)))
    file = NetworkFile(present.genesis, bootstrap[:_BOOTSTRAP_OF_INVITE_MAX])
    path = Path(f"{present.genesis.name}.ayni") if path is None else path
    write_network(path, file, new=True)
    _show(session, network_shown(file), f"Wrote {path}: give it to a friend.")


_LOOPBACK = ("/ip4/127.", "/ip6/::1/")
_BOOTSTRAP_OF_INVITE_MAX = 16  # A few are enough to begin with, and the file stays short.


def no_network(session: Session) -> LocalError:
    """What `up` and `show` say in a home that has joined none."""
    return LocalError(
        Code.NO_NETWORK,
        f"This home ({session.paths.config_folder}) is in no network. Found one with `ayni network "
        "create NAME`, join a friend's with `ayni network join FILE`, or try everything on this "
        "machine with `ayni testnet up`.",
    )
