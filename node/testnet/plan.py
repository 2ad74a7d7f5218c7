"""The homes of a testnet: keys, one genesis for all, and each node's settings on disk."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node.config import (
    ChannelSettings,
    Config,
    LedgerSettings,
    NetworkPlan,
    NodePlan,
    NodeSettings,
    Paths,
    find_paths,
    load_testnet,
    read_file,
    write,
)
from node.config import NetworkSettings as Listening
from node.keystore import create_key, load_key
from protocol.errors import Code, LocalError
from protocol.identity import Identity
from protocol.ids import NodeId
from protocol.ledger.genesis import (
    Genesis,
    NetworkFile,
    genesis_made,
    network_file_parsed,
    network_file_text,
)
from protocol.units import MICROCREDITS_PER_CREDIT

NODES_MAX = 32  # Each is a process of about 100 MB; one that shares has a model in memory too.
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
# A testnet's nodes come and go within minutes, so an advert there is short of life.
ADVERT_LIFE_SECONDS = 20
GRACE_SECONDS = 3
CLAIM_SECONDS = 2
AUDIT_SECONDS = 3
# So are its channels: what is settled in an hour elsewhere is settled in seconds.
CHANNEL_GRACE_MS = 2_000
CHANNEL_WINDOW_MS = 4_000
CHANNEL_LIFE_SECONDS = 600
CHANNEL_IDLE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Home:
    """One node of a testnet, on disk."""

    name: str
    folder: Path
    node: NodeId
    shares: bool

    @property
    def paths(self) -> Paths:
        return find_paths(self.folder)


def prepare(folder: Path, nodes: int | None) -> list[Home]:
    """Make the homes of a testnet in `folder`, or find those that are there.

    `nodes` None is as many as the plan names, or as there are. Raises LocalError BAD_REQUEST for
    a number that cannot be, or that differs from the testnet that is there.
    """
    plan = load_testnet()
    network_file = folder / "network.ayni"
    if network_file.exists():
        return _found(folder, nodes)
    wanted = _planned(plan, len(plan.nodes) if nodes is None else nodes)
    homes = [_made(folder / one.name, one) for one in wanted]
    amount = plan.credits_per_node * MICROCREDITS_PER_CREDIT
    allocations = {home.node: amount for home in homes if amount}
    genesis = genesis_made(
        plan.name,
        secrets.token_bytes(16),
        allocations,
        {home.node for home in homes},
        grace_ms=CHANNEL_GRACE_MS,
        window_ms=CHANNEL_WINDOW_MS,
    )
    for home in homes:
        join(home, genesis, ())
    network_file.write_text(network_file_text(NetworkFile(genesis, ())), encoding="utf-8")
    return homes


def join(home: Home, genesis: Genesis, bootstrap: Sequence[str]) -> None:
    """Give a home its network file."""
    text = network_file_text(NetworkFile(genesis, tuple(bootstrap)))
    home.paths.network_file.write_text(text, encoding="utf-8")


def genesis_of(folder: Path) -> Genesis:
    """The genesis of the testnet in `folder`."""
    return network_file_parsed((folder / "network.ayni").read_text(encoding="utf-8")).genesis


def _planned(plan: NetworkPlan, count: int) -> list[NodePlan]:
    if not 1 <= count <= NODES_MAX:
        raise LocalError(
            Code.BAD_REQUEST, f"{count} nodes were asked for; a testnet has 1 to {NODES_MAX}."
        )
    more = [NodePlan(name=f"node-{number}") for number in range(len(plan.nodes) + 1, count + 1)]
    return [*plan.nodes, *more][:count]


def _made(folder: Path, plan: NodePlan) -> Home:
    paths = find_paths(folder)
    if not paths.config_file.exists():
        config = Config(
            node=NodeSettings(name=plan.name, grace_seconds=GRACE_SECONDS),
            network=Listening(listen=(LOOPBACK,), advert_life_seconds=ADVERT_LIFE_SECONDS),
            share=plan.share,
            channels=ChannelSettings(
                life_seconds=CHANNEL_LIFE_SECONDS, idle_seconds=CHANNEL_IDLE_SECONDS
            ),
            ledger=LedgerSettings(claim_seconds=CLAIM_SECONDS, audit_seconds=AUDIT_SECONDS),
        )
        write(paths.config_file, config)
    if not paths.key_file.exists():
        create_key(paths.key_file, None)
    return _home(folder)


def _found(folder: Path, nodes: int | None) -> list[Home]:
    genesis = genesis_of(folder)
    accounts = {allocation.account for allocation in genesis.allocations} | set(genesis.witnesses)
    homes = [
        _home(entry) for entry in sorted(folder.iterdir()) if find_paths(entry).key_file.exists()
    ]
    order = {plan.name: place for place, plan in enumerate(load_testnet().nodes)}
    homes = sorted(
        (home for home in homes if home.node in accounts),
        key=lambda home: (order.get(home.name, len(order)), len(home.name), home.name),
    )
    if nodes not in (None, len(homes)):
        raise LocalError(
            Code.BAD_REQUEST,
            f"{nodes} nodes were asked for; the testnet in {folder} has {len(homes)}. Remove that "
            "folder, or name another with --home.",
        )
    return homes


def _home(folder: Path) -> Home:
    paths = find_paths(folder)
    config = read_file(paths.config_file, Config)
    node = Identity(load_key(paths.key_file, lambda: b"")).node
    return Home(folder.name, folder, node, config.share.enabled)
