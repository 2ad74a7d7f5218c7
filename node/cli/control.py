"""`ayni status`, `pause`, `resume` and `down`."""

import time
from typing import Final

import click

from node.api.views import Sharing, Status
from node.cli.client import Daemon, connect, read_api_file
from node.cli.session import Session, Verb
from node.cli.words import bytes_words, main_rate, price_words, rate_words, span_words
from node.config import Paths
from protocol.errors import Code, LocalError

DOWN_SECONDS_MAX: Final = 60
_ASK_AGAIN_SECONDS: Final = 0.1
_SHARING: Final = {"off": "off", "on": "on", "paused": "paused", "draining": "ending"}


@click.command(cls=Verb, example="ayni status")
@click.pass_obj
def status(session: Session) -> None:
    """Show what the node is and does."""
    now = connect(session.paths).get("/ayni/v1/status", Status)
    if session.output.as_json:
        session.output.json(now)
        return
    title = f"{now.name or 'node'} {now.node}"
    session.output.facts(title, status_facts(now, session.paths))


def status_facts(now: Status, paths: Paths) -> list[tuple[str, str]]:
    """Names and values for a person; the start-up screen shows the same."""
    worker = now.worker
    device = worker.device or "no device yet"
    health = f"{worker.state} on {device}" if worker.state != "none" else "none"
    if worker.pid is not None:
        health += f", process {worker.pid}, {bytes_words(worker.memory_bytes)}"
    if worker.restarts:
        health += f", {worker.restarts} restarts"
    for each in worker.engines:
        health += f"\n{each.model}: {each.engine}"
        if each.note:
            health += f"\n  {each.note}"
    for words in worker.unconfined:
        health += f"\nnot confined: {words}"
    if worker.error:
        health += f"\nlast error: {worker.error}"
    shared = [
        f"{offer.name} ({offer.mode}) at {price_words(offer)} credits a million tokens in / out, "
        f"{rate_words(main_rate(offer))} tokens/s, "
        f"{offer.slots_free} of {offer.slots} slots free"
        for offer in now.offers
    ]
    return [
        *(("trouble", sentence) for sentence in now.troubles),
        ("network", f"{now.network.name} {now.network.id[:16]}"),
        ("running for", f"{span_words(now.uptime_ms)}, version {now.version}"),
        ("sharing", "\n".join([_sharing_words(now.sharing), *shared])),
        ("worker", health),
        ("jobs", f"{now.jobs_running} running"),
        ("peers", f"{now.peers} connected"),
        ("addresses", "\n".join(now.addresses) or "none"),
        ("API", f"{now.api_url}/v1 (key in {paths.api_key_file})"),
    ]


def _sharing_words(sharing: Sharing) -> str:
    return f"{_SHARING[sharing.state]} ({sharing.why})" if sharing.why else _SHARING[sharing.state]


@click.command(cls=Verb, example="ayni pause")
@click.pass_obj
def pause(session: Session) -> None:
    """Take no new jobs of others until `ayni resume`; running ones go on."""
    _show(session, connect(session.paths).post("/ayni/v1/pause", Sharing))


@click.command(cls=Verb, example="ayni resume")
@click.pass_obj
def resume(session: Session) -> None:
    """Take jobs of others again."""
    _show(session, connect(session.paths).post("/ayni/v1/resume", Sharing))


def _show(session: Session, sharing: Sharing) -> None:
    if session.output.as_json:
        session.output.json(sharing)
    else:
        session.output.line(f"Sharing: {_sharing_words(sharing)}")


@click.command(cls=Verb, example="ayni down")
@click.option("--no-wait", is_flag=True, help="Return at once while the node drains.")
@click.pass_obj
def down(session: Session, no_wait: bool) -> None:
    """Stop the node: no new jobs, running ones get a grace time to finish."""
    daemon = connect(session.paths)
    pid = read_api_file(session.paths).pid
    daemon.post("/ayni/v1/down", Sharing)
    if not no_wait:
        _wait_for_end(daemon, session.paths, pid)
    if session.output.as_json:
        session.output.json({"pid": pid, "ended": not no_wait})
    else:
        session.output.line("The node is stopping." if no_wait else "The node has stopped.")


def _wait_for_end(daemon: Daemon, paths: Paths, pid: int) -> None:
    """Until the process is gone, so that the home can be used at once."""
    deadline = time.monotonic() + DOWN_SECONDS_MAX
    while daemon.alive() or paths.api_file.exists() or _runs(pid):
        if time.monotonic() > deadline:
            raise LocalError(
                Code.TIMEOUT,
                f"The node still runs after {DOWN_SECONDS_MAX} s; its log is {paths.log_file}.",
            )
        time.sleep(_ASK_AGAIN_SECONDS)


def _runs(pid: int) -> bool:
    import psutil  # Late: of all verbs only this one asks.

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
