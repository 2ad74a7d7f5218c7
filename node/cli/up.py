"""`ayni up`: run the node in this process until it is told to stop."""

import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.api.views import Status
from node.cli.key import load_node_key
from node.cli.network import no_network
from node.cli.network_file import read_network
from node.cli.session import Session, Verb
from node.cli.words import short_node
from node.config import Config, Paths, load
from node.keystore import home_lock
from protocol.errors import AyniError
from protocol.identity import Seed
from protocol.ledger.genesis import NetworkFile
from protocol.units import credits_text

if TYPE_CHECKING:
    import trio


@click.command(cls=Verb, example="ayni up")
@click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the passphrase from the first line of this file.",
)
@click.pass_obj
def up(session: Session, passphrase_file: Path | None) -> None:
    """Run the node, until Ctrl-C or `ayni down`.

    At a terminal it shows what it is and shares, then its log; elsewhere plain log lines. With
    --json it prints its status once when it is ready, and its log lines are JSON. The first
    Ctrl-C lets running jobs finish within a grace time, a second one ends them.
    """
    paths, config = load(session.home)
    if not paths.network_file.exists():
        raise no_network(session)
    network = read_network(paths.network_file)
    with home_lock(paths.lock_file):
        seed = load_node_key(paths, passphrase_file)
        _Run(session, paths, config).until_stopped(seed, network)


@dataclass(frozen=True, slots=True)
class _Run:
    session: Session
    paths: Paths
    config: Config

    def until_stopped(self, seed: Seed, network: NetworkFile) -> None:
        # Late: these take a second, and every refusal above is told without them.
        import trio

        from node.telemetry.logs import setup

        as_json = self.session.output.as_json
        setup(self.config.log.level, "json" if as_json else None, self.paths.log_file)
        trio.run(self._serve, seed, network)

    async def _serve(self, seed: Seed, network: NetworkFile) -> None:
        import trio

        from node.app.run import run_node

        stop = trio.Event()
        failure: AyniError | None = None
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_heed, signals, stop, nursery.cancel_scope)
                try:
                    await run_node(self.paths, self.config, seed, network, self._ready, stop)
                except AyniError as error:
                    failure = error  # Out of the nursery it would come within a group.
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _ready(self, status: Status) -> None:
        from node.telemetry.logs import Log

        output = self.session.output
        if output.as_json:
            output.json(status)
        elif output.for_person:
            title = f"Ayni: {status.name or short_node(status.node)} is up."
            output.facts(title, start_facts(status, self.config, self.paths))
            output.line()
        Log("up").info(
            "node.ready",
            node=status.node,
            name=status.name,
            network=status.network.id[:16],
            api=status.api_url,
            peers=status.peers,
        )


async def _heed(signals: AsyncIterator[int], stop: "trio.Event", run: "trio.CancelScope") -> None:
    """The first signal drains, the second ends at once."""
    async for _ in signals:
        if stop.is_set():
            run.cancel()
        stop.set()


def start_facts(status: Status, config: Config, paths: Paths) -> list[tuple[str, str]]:
    """What the start-up screen tells, and what to do next."""
    share = config.share
    shared = "nothing; set `enabled = true` under [share] to earn"
    if share.enabled:
        prices = [(model, share.price(model)) for model in share.names]
        shared = "\n".join(
            f"{model} at {credits_text(price.price_in)} / {credits_text(price.price_out)} credits "
            "a million tokens in / out"
            for model, price in prices
        )
        if status.sharing.state != "on":
            shared += f"\n{status.sharing.state}: {status.sharing.why}"
    return [
        ("node", status.node),
        ("network", f"{status.network.name} {status.network.id[:16]}"),
        ("device", status.worker.device or "looking for the best one"),
        ("sharing", shared or "no models; name some under [share]"),
        ("peers", f"{status.peers} connected; `ayni peers` lists them"),
        ("addresses", "\n".join(status.addresses) or "none"),
        ("API", f"{status.api_url}/v1 (key in {paths.api_key_file})"),
        ("log", str(paths.log_file)),
        ("next", 'in another terminal: ayni ask "Why is the sky blue?"'),
    ]
