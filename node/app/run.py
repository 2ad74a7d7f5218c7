"""Run one node: its parts composed, its API opened, its tasks kept running, its end."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from node.api.server import open_server
from node.api.views import ApiFile, Status
from node.app.backend import NodeBackend
from node.app.compose import Ground, compose
from node.app.parts import Parts
from node.config import Config, Paths
from node.discovery import hardware
from node.discovery.clock import system_clock
from node.keystore import api_key
from node.ledger.keeper import Steps, no_steps
from node.network.libp2p import open_network
from node.network.quota import Quotas
from node.storage.damage import Rescue
from node.storage.database import open_database
from node.storage.jobs import JobHistory
from node.storage.soundness import check_own
from node.supervise import background, supervise
from node.telemetry.logs import Log
from protocol.identity import Identity, Seed
from protocol.ledger.charter import charter
from protocol.ledger.genesis import NetworkFile

_log = Log("node")


async def run_node(
    paths: Paths,
    config: Config,
    seed: Seed,
    file: NetworkFile,
    ready: Callable[[Status], None],
    stop: trio.Event,
    *,
    steps: Steps = no_steps,
) -> None:
    """Run the node until `stop` is set and its jobs are over, or their grace time is.

    `ready` is told once, when the API answers; models may still be loading then. `steps` is told
    each durable step of paying and witnessing. Raises LocalError for what the owner has to mend:
    ports, disk, files.
    """
    quotas = Quotas()
    devices = await trio.to_thread.run_sync(hardware.devices)
    async with (
        open_database(paths.database_file, rescue=_rescue(seed, file)) as database,
        open_network(seed, config.network.listen, quotas) as network,
    ):
        await JobHistory(database).end_interrupted()
        ground = Ground(paths, config, Identity(seed), file, quotas, database, network, devices)
        parts = await compose(ground, stop.set, steps)
        backend = NodeBackend(parts)
        async with open_server(backend, api_key(paths.api_key_file), config.api.port) as url:
            backend.url = url
            # A part that fails is started again; the node goes on.
            tasks = [
                partial(supervise, "discovery", parts.discovery.run),
                partial(supervise, "ledger", parts.ledger.run),
                partial(supervise, "channels", parts.channels.run),
                partial(supervise, "recovery", parts.old_channels.run),
                partial(supervise, "worker", parts.shared.run_own),
                partial(supervise, "backends", parts.shared.run_backends),
            ]
            async with background(*tasks), _announced(paths, url):
                ready(backend.status())
                await stop.wait()
                await _drain(parts)


def _rescue(seed: Seed, file: NetworkFile) -> Rescue:
    """A database that is damaged, or whose own chain does not hold, is set aside."""
    check = partial(check_own, charter=charter(file.genesis), own=Identity(seed).node)
    return Rescue(system_clock().wall_ms, check)


@asynccontextmanager
async def _announced(paths: Paths, url: str) -> AsyncIterator[None]:
    """Say where the API is, for as long as it is there."""
    temporary = paths.api_file.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(ApiFile(url=url, pid=os.getpid())))
    os.replace(temporary, paths.api_file)
    try:
        yield
    finally:
        paths.api_file.unlink(missing_ok=True)


async def _drain(parts: Parts) -> None:
    """No new jobs; running ones, ours and those we serve, have the grace time to end."""
    parts.sharing.drain()
    served, asked = parts.desk.tally, parts.requester.tally
    _log.info("node.draining", served=served.count, asked=asked.count)
    with trio.move_on_after(parts.config.node.grace_seconds):
        await served.wait_idle()
        await asked.wait_idle()
