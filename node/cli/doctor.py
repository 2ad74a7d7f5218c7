"""`ayni doctor`: what is well, what is not, and what to do about it."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click

from node.api.ledger_views import Wallet
from node.api.views import Check, Models, Peer, Status
from node.cli.client import connect
from node.cli.doctor_engine import kernels_check, worker_checks
from node.cli.doctor_ledger import crowded_check, ledger_check, witnesses_check
from node.cli.network_file import read_network
from node.cli.session import Session, Verb
from node.config import Config, Paths, load
from node.keystore import is_encrypted
from protocol.errors import AyniError, Code, LocalError

_GB: Final = 1_000_000_000
DISK_BYTES_WANTED: Final = 3 * _GB  # A model, its download and the database, with room to spare.
DISK_BYTES_NEEDED: Final = _GB // 2
CLOCK_SECONDS_MIN: Final = 1_767_225_600  # 2026-01-01: a clock before it was never set.
_SIGNS: Final = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


@click.command(cls=Verb, example="ayni doctor")
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check this node and say what to do about each lack.

    Exit status 1 when a check fails; a warning is no failure.
    """
    session: Session = ctx.obj
    # The running node comes last and knows best: where both tell of a thing, its word stands.
    checks = list({check.name: check for check in findings(session.home)}.values())
    if session.output.as_json:
        session.output.json(checks)
    else:
        for check in checks:
            _print(session, check)
    if any(check.state == "fail" for check in checks):
        ctx.exit(1)


def _print(session: Session, check: Check) -> None:
    sign, colour = _SIGNS[check.state]
    shown = click.style(sign.ljust(4), fg=colour) if session.output.for_person else sign.ljust(4)
    click.echo(f"{shown} ", nl=False)
    session.output.line(f"{check.name}: {check.sentence}")
    if check.remedy:
        session.output.line(f"       {check.remedy}")


def findings(home: Path | None) -> Iterator[Check]:
    """Every check; a broken one does not keep the others from being made."""
    yield _python()
    yield _clock(time.time())
    try:
        paths, config = load(home)
    except LocalError as error:
        yield _failed("configuration", error, "Mend that line of the file.")
        return
    yield _configuration(paths)
    yield _disk(paths.models_folder)
    yield _checked("key", lambda: _key(paths), "Run `ayni init`, or restore a backup of the key.")
    yield _checked(
        "network",
        lambda: _network(paths),
        "`ayni network create NAME`, `ayni network join FILE`, or `ayni testnet up`.",
    )
    yield kernels_check(config)
    yield from _witnesses(paths)
    yield from _daemon(paths, config)


def _failed(name: str, error: AyniError, remedy: str) -> Check:
    return Check(name=name, state="fail", sentence=error.sentence, remedy=remedy)


def _checked(name: str, check: Callable[[], Check], remedy: str) -> Check:
    try:
        return check()
    except AyniError as error:
        return _failed(name, error, remedy)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Check(name="python", state="ok", sentence=f"{version} at {sys.prefix}.")
    return Check(
        name="python",
        state="fail",
        sentence=f"{version}; Ayni runs on 3.11 to 3.13.",
        remedy="Run ./scripts/demo or ./scripts/bootstrap.py, which find one of these.",
    )


def _clock(unix_seconds: float) -> Check:
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_seconds))
    if unix_seconds >= CLOCK_SECONDS_MIN:
        return Check(name="clock", state="ok", sentence=f"{shown}.")
    return Check(
        name="clock",
        state="fail",
        sentence=f"It says {shown}, so other nodes refuse what this one says of itself.",
        remedy="Set the clock, best by NTP.",
    )


def _configuration(paths: Paths) -> Check:
    if paths.config_file.exists():
        return Check(name="configuration", state="ok", sentence=f"{paths.config_file}.")
    return Check(
        name="configuration",
        state="warn",
        sentence=f"There is no {paths.config_file}: every setting has its default.",
        remedy="`ayni init` writes one with all settings explained.",
    )


def _disk(folder: Path) -> Check:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    sentence = f"{free / _GB:.1f} GB free for models at {folder}."
    if free >= DISK_BYTES_WANTED:
        return Check(name="disk", state="ok", sentence=sentence)
    return Check(
        name="disk",
        state="fail" if free < DISK_BYTES_NEEDED else "warn",
        sentence=sentence,
        remedy="Make room, or set `folder` under [models], or AYNI_MODELS_DIR.",
    )


def _key(paths: Paths) -> Check:
    if is_encrypted(paths.key_file):
        return Check(name="key", state="ok", sentence=f"{paths.key_file}, encrypted.")
    return Check(
        name="key",
        state="warn",
        sentence=f"{paths.key_file} is not encrypted: who can read this disk can be this node.",
        remedy="Fit for a trial. For a node that earns, `ayni init` in a fresh home sets one up "
        "with a passphrase.",
    )


def _network(paths: Paths) -> Check:
    if not paths.network_file.exists():
        raise LocalError(Code.NO_NETWORK, "This home is in no network.")
    file = read_network(paths.network_file)
    return Check(name="network", state="ok", sentence=f"{file.genesis.name}.")


def _witnesses(paths: Paths) -> Iterator[Check]:
    """Of the network's file; where that is wrong, another check says so."""
    try:
        genesis = read_network(paths.network_file).genesis
    except AyniError:
        return
    yield witnesses_check(genesis)


def _daemon(paths: Paths, config: Config) -> Iterator[Check]:
    """What only a running node can tell."""
    try:
        daemon = connect(paths)
        status = daemon.get("/ayni/v1/status", Status)
        models = daemon.get("/ayni/v1/models", Models)
        own = daemon.get("/ayni/v1/doctor", tuple[Check, ...])
        peers = daemon.get("/ayni/v1/peers", tuple[Peer, ...])
        wallet = daemon.get("/ayni/v1/wallet", Wallet)
    except AyniError as error:
        down = error.code == Code.UNAVAILABLE
        yield _failed("daemon", error, "`ayni up`." if down else f"Its log is {paths.log_file}.")
        return
    yield Check(name="daemon", state="ok", sentence=f"Up, and answers at {status.api_url}.")
    yield from (_worker(status, config), _peers(status), _models(models, config))
    yield from worker_checks(status.worker)
    yield from crowded_check(status, peers)
    yield ledger_check(wallet)
    yield from own


def _worker(status: Status, config: Config) -> Check:
    worker = status.worker
    if not config.share.enabled:
        return Check(name="worker", state="ok", sentence="None is needed: nothing is shared.")
    said = f"{worker.state}, {worker.restarts} restarts."
    if worker.state == "ready" and not worker.restarts:
        return Check(name="worker", state="ok", sentence=f"Ready on {worker.device}.")
    if worker.state in ("ready", "starting"):
        return Check(
            name="worker",
            state="ok" if not worker.error else "warn",
            sentence=f"{said} {worker.error}".strip(),
            remedy="" if not worker.error else "It works again; the log says what happened.",
        )
    return Check(
        name="worker",
        state="fail",
        sentence=f"{said} {worker.error}".strip(),
        remedy="Mend what it says; the node starts it again by itself.",
    )


def _peers(status: Status) -> Check:
    if status.peers:
        return Check(name="peers", state="ok", sentence=f"{status.peers} connected.")
    return Check(
        name="peers",
        state="warn",
        sentence="No other node is connected.",
        remedy="Is another one up? Join by a file of `ayni network invite`, which holds addresses.",
    )


def _models(models: Models, config: Config) -> Check:
    if not config.share.enabled:
        return Check(name="models", state="ok", sentence="None is needed: nothing is shared.")
    served = {offer.name for offer in models.served}
    missing = [name for name in config.share.models if name not in served]
    if not missing:
        serving = ", ".join(sorted(served)) or "none now"
        return Check(name="models", state="ok", sentence=f"Serving {serving}.")
    on_disk = {listed.name for listed in models.catalogue if listed.cached}
    away = [name for name in missing if name not in on_disk]
    return Check(
        name="models",
        state="warn",
        sentence=f"Not served yet: {', '.join(missing)}.",
        remedy=f"`ayni models --fetch {away[0]}`." if away else "It is on disk and being loaded.",
    )
