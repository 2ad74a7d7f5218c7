"""A testnet of real daemons that die at a step of paying, and what its ledgers must say after."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from msgspec.structs import replace

from node.config import ChannelSettings, Config, LedgerSettings, read_file, write
from node.testnet.plan import genesis_of, join, prepare
from tests.network.mortal_node import DIE_AT
from tests.network.testnet import PROVIDERS, ROOT, SAID_SECONDS_MAX, Node, Testnet, until

NAMES = ("quinoa", "maize", "potato", "oca")  # All are witnesses; three of them certify.
PACE = LedgerSettings(claim_seconds=1, audit_seconds=1)
CHANNELS = ChannelSettings(life_seconds=3600, idle_seconds=3600)
"""So long that a channel is settled only when a test says so."""


class Money(NamedTuple):
    """Of one node's account, as it shows itself."""

    worth: int  # The balance, what is earned and not yet part of it, and the rest in own channels.
    entries: int


class Mortals(Testnet):
    """Its daemons are each a `mortal_node`, so that a test may say where they die."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._lives: dict[str, subprocess.Popen[bytes]] = {}

    def prepare(self, count: int | None = None) -> None:
        super().prepare(count)
        for node in self.nodes.values():
            file = node.paths.config_file
            write(file, replace(read_file(file, Config), ledger=PACE, channels=CHANNELS))

    def start(self, *names: str) -> None:
        """Start these nodes, each with one that runs as its bootstrap; return when they answer."""
        homes = {home.name: home for home in prepare(self.folder, None)}
        genesis = genesis_of(self.folder)
        for name in names:
            addresses = self._addresses()
            join(homes[name], genesis, addresses)
            self._lives[name] = self._born(self.nodes[name])
            self._started.append(self._lives[name])
            if not addresses:
                self._await(name)
        for name in names:
            self._await(name)
        self.remember()

    def _addresses(self) -> Sequence[str]:
        """Of a node that runs; none, where none does. One that is doomed may die as it is asked."""
        for name in self.alive:
            with suppress(httpx.TransportError, KeyError):
                return list(self.nodes[name].get("status")["addresses"])
        return ()

    def _born(self, node: Node) -> subprocess.Popen[bytes]:
        node.paths.api_file.unlink(missing_ok=True)
        with (node.folder / "up.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.network.mortal_node", str(node.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.variables,
                cwd=ROOT,
                start_new_session=True,
            )

    def _await(self, name: str) -> None:
        node, life = self.nodes[name], self._lives[name]
        until(f"{name} answers", lambda: node.answers() or life.poll() is not None)
        assert life.poll() is None, (node.folder / "up.log").read_text()[-2000:]

    @property
    def alive(self) -> list[str]:
        return [name for name, life in self._lives.items() if life.poll() is None]

    def doom(self, name: str, step: str, count: int = 1) -> None:
        """This node dies when it comes by this step for so many times from now on."""
        file = self.nodes[name].folder / DIE_AT
        new = file.with_suffix(".new")
        new.write_text(f"{step} {count}")
        new.replace(file)

    def wait_dead(self, name: str) -> None:
        """Return when a doomed node has died of that, and of nothing else."""
        assert self._lives[name].wait(SAID_SECONDS_MAX) == -signal.SIGKILL
        assert not (self.nodes[name].folder / DIE_AT).exists()

    def kill(self, *names: str) -> None:
        self.remember()
        for name in names:
            self._lives[name].kill()
            self._lives[name].wait(SAID_SECONDS_MAX)

    def stop(self, name: str) -> None:
        """As `ayni down`: return when it has ended in order."""
        self.remember()
        self._lives[name].terminate()
        assert self._lives[name].wait(SAID_SECONDS_MAX) == 0

    def revive(self) -> None:
        """Start whoever is dead."""
        self.start(*[name for name in self._lives if name not in self.alive])

    def whole(self) -> None:
        """All alive and doomed no more, connected, nothing running and nothing on its way."""
        for node in self.nodes.values():
            (node.folder / DIE_AT).unlink(missing_ok=True)
        self.revive()
        self.settle()
        until("all connected", lambda: all(connected(node) for node in self.living()))
        until("all may sign", lambda: all(node.get("wallet")["ready"] for node in self.living()))
        self.quiet()

    def living(self) -> list[Node]:
        return [self.nodes[name] for name in self.alive]

    def quiet(self) -> dict[str, Money]:
        """What each living node has, once nothing is on its way any more."""
        until("nothing is on its way", lambda: all(is_quiet(node) for node in self.living()))
        return {node.name: money(node) for node in self.living()}


def send(node: Node, to: str, microcredits: int) -> None:
    """Credits to an account, certified when this returns."""
    body = {"to": to, "amount_microcredits": microcredits, "wait_ms": 20_000}
    with node.http() as client:
        sent = client.post("/ayni/v1/wallet/send", json=body).raise_for_status().json()
    assert sent["certified"], sent


def connected(node: Node) -> bool:
    """Whether a node is connected to all other witnesses."""
    peers = node.peers()
    return all(name in peers and peers[name]["connected"] for name in NAMES if name != node.name)


def is_quiet(node: Node) -> bool:
    """Whether its money stays as it is: nothing waits, runs, settles or has to be found out."""
    wallet = node.get("wallet")
    busy = (wallet["waiting"], wallet["owed_to_us"], wallet["claimable_microcredits"])
    lines = channels(node)
    moving = [
        one for one in lines if one["moved_microcredits"] is None or one["state"] == "settled"
    ]
    return not any(busy) and not moving


def money(node: Node) -> Money:
    wallet = node.get("wallet")
    parts = ("balance_microcredits", "claimable_microcredits", "earned_microcredits")
    locked = sum(one["amount_microcredits"] for one in wallet["locked"])
    return Money(sum(wallet[part] for part in parts) + locked, wallet["seq"])


def channels(node: Node, role: str = "", other: str = "") -> list[dict[str, Any]]:
    """The channels of a node that are not over, all or those in a role or with another node."""
    return [
        one
        for one in node.get("wallet/channels")
        if role in ("", one["role"]) and other in ("", one["party"]["name"])
    ]


def open_channel(payer: Node, payee: Node) -> dict[str, Any]:
    """The one out of which the next job there is paid. It must be there, or on its way."""

    def found() -> dict[str, Any] | None:
        lines = channels(payer, "payer", payee.name)
        return next((one for one in lines if one["state"] == "open"), None)

    return until(f"a channel of {payer.name} to {payee.name}", found) or {}


def settle(node: Node, channel: str) -> None:
    """Say that a channel is to be settled now, once the node may sign; it may be settled already,
    and gone."""
    until(f"{node.name} may sign", lambda: node.get("wallet")["ready"])
    with node.http() as client:
        answer = client.post("/ayni/v1/wallet/settle", json={"channel": channel})
    assert answer.status_code in (200, 404), answer.text


def settled(payer: Node, payee: Node, channel: str) -> None:
    """Settle a channel; both have taken their shares when this returns."""
    settle(payee, channel)
    for node in (payer, payee):
        until(f"{node.name} has its share", lambda node=node: not _holds(node, channel))


def _holds(node: Node, channel: str) -> bool:
    return any(one["channel"] == channel for one in channels(node))


def entries_of(teller: Node, account: Node | str, limit: int = 200) -> list[dict[str, Any]]:
    """The certified entries of an account as one node has them, the oldest first."""
    id_ = account if isinstance(account, str) else node_id(account)
    shown = teller.get(f"ledger/show?account={id_}&limit={limit}")
    return list(reversed(shown["entries"]))


def node_id(node: Node) -> str:
    return str(node.get("status")["node"])


def check_verified(teller: Node) -> dict[str, Any]:
    """All chains that a node has hold, and M2's terms make the supply."""
    report: dict[str, Any] = {}

    def whole() -> bool:
        nonlocal report
        with teller.http() as client:
            report = client.post("/ayni/v1/ledger/verify").raise_for_status().json()
        # A claim may be here a moment before the settlement that it takes from.
        return report["complete"] and all(one["code"] != "NEED" for one in report["faults"])

    until(f"{teller.name} has all chains", whole)
    assert report["ok"], report["faults"]
    parts = ("balances", "pays_unclaimed", "channels", "fees")
    terms = [f"{part}_microcredits" for part in parts]
    assert sum(report[term] for term in terms) == report["supply_microcredits"]
    assert report["total_microcredits"] == report["supply_microcredits"]
    return report


@contextmanager
def open_mortals(folder: Path, names: Sequence[str] = NAMES) -> Iterator[Mortals]:
    """Four homes, of which these run at first; gone at the end."""
    mortals = Mortals(folder)
    try:
        mortals.prepare(len(NAMES))
        mortals.start(*names)
        until("free providers", lambda: all(mortals.nodes[name].free for name in PROVIDERS))
        yield mortals
    finally:
        mortals.down()
