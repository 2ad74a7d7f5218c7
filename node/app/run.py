"""Run one node: its parts in the order in which they depend on each other, and its end."""

import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from random import SystemRandom

import msgspec
import trio

from node.api.server import open_server
from node.api.views import ApiFile, Status
from node.app.backend import NodeBackend
from node.app.parts import Parts
from node.app.shared import Shared
from node.config import Config, Paths
from node.discovery import hardware
from node.discovery.admission import Member
from node.discovery.clock import system_clock
from node.discovery.own import OwnState
from node.discovery.service import Discovery
from node.discovery.service import Settings as DiscoverySettings
from node.discovery.service import Surroundings as DiscoverySurroundings
from node.jobs.around import Surroundings
from node.jobs.provider import Provider
from node.jobs.requester import Requester
from node.keystore import api_key
from node.market.choice import Market
from node.market.desk import Desk
from node.models.cache import ModelCache
from node.models.catalogue import load_catalogue
from node.network.base import Network
from node.network.libp2p import open_network
from node.network.quota import Quotas
from node.sharing import Sharing
from node.storage.database import Database, open_database
from node.storage.jobs import JobHistory
from node.storage.peers import PeerStore
from node.supervise import background, supervise
from node.telemetry.logs import Log
from protocol.capacity import Device
from protocol.identity import Identity, Seed
from protocol.ledger.genesis import NetworkFile, network_id
from protocol.messages import JOB_PROTOCOL

_log = Log("node")


async def run_node(
    paths: Paths,
    config: Config,
    seed: Seed,
    file: NetworkFile,
    ready: Callable[[Status], None],
    stop: trio.Event,
) -> None:
    """Run the node until `stop` is set and its jobs are over, or their grace time is.

    `ready` is told once, when the API answers; models may still be loading then. Raises
    LocalError for what the owner has to mend: ports, disk, files.
    """
    quotas = Quotas()
    devices = await trio.to_thread.run_sync(hardware.devices)
    async with (
        open_database(paths.database_file) as database,
        open_network(seed, config.network.listen, quotas) as network,
    ):
        await JobHistory(database).end_interrupted()
        compose = _Composition(paths, config, Identity(seed), file, quotas)
        parts = compose.parts(database, network, devices, stop.set)
        backend = NodeBackend(parts)
        async with open_server(backend, api_key(paths.api_key_file), config.api.port) as url:
            backend.url = url
            # A part that fails is started again; the node goes on.
            discovery = partial(supervise, "discovery", parts.discovery.run)
            worker = partial(supervise, "worker", parts.shared.run)
            async with background(discovery, worker), _announced(paths, url):
                ready(backend.status())
                await stop.wait()
                await _drain(parts)


class _Composition:
    """What is known before anything runs, and the parts made of it."""

    def __init__(
        self, paths: Paths, config: Config, identity: Identity, file: NetworkFile, quotas: Quotas
    ) -> None:
        self._paths = paths
        self._config = config
        self._identity = identity
        self._file = file
        self._network_id = network_id(file.genesis)
        self._quotas = quotas
        self._clock = system_clock()

    def parts(
        self,
        database: Database,
        network: Network,
        devices: tuple[Device, ...],
        stop: Callable[[], None],
    ) -> Parts:
        config, paths = self._config, self._paths
        history = JobHistory(database)
        catalogue = load_catalogue(paths.models_file)
        cache = ModelCache(paths.models_folder, paths.config_folder)
        sharing = Sharing(
            enabled=config.share.enabled and bool(config.share.models),
            pause_file=paths.data_folder / "paused",
        )
        shared = Shared(config, catalogue, cache)
        discovery = self._discovery(database, network, lambda: self._own(devices, sharing, shared))
        sharing.watch(partial(discovery.changed, urgent=True))
        shared.watch(lambda others: discovery.changed(urgent=others))
        around = Surroundings(
            identity=self._identity,
            network_id=self._network_id,
            network=network,
            quotas=self._quotas,
            recorder=history,
            random_bytes=secrets.token_bytes,
            wall_ms=self._clock.wall_ms,
        )
        desk = Desk(sharing, shared.offers)
        network.serve(JOB_PROTOCOL, Provider(around, desk, shared).serve)
        market = Market(discovery.adverts)
        return Parts(
            identity=self._identity,
            config=config,
            file=self._file,
            network_id=self._network_id,
            network=network,
            discovery=discovery,
            devices=devices,
            sharing=sharing,
            shared=shared,
            desk=desk,
            market=market,
            requester=Requester(around, market, discovery.connect_to),
            history=history,
            catalogue=catalogue,
            cache=cache,
            stop=stop,
            random_bytes=secrets.token_bytes,
            wall_ms=self._clock.wall_ms,
        )

    def _discovery(
        self, database: Database, network: Network, own: Callable[[], OwnState]
    ) -> Discovery:
        settings = DiscoverySettings(
            bootstrap=(*self._config.network.bootstrap, *self._file.bootstrap),
            life_ms=self._config.network.advert_life_seconds * 1000,
        )
        return Discovery(
            network,
            Member(self._identity, self._network_id),
            PeerStore(database),
            own,
            DiscoverySurroundings(self._quotas, self._clock, SystemRandom()),
            settings=settings,
        )

    def _own(self, devices: tuple[Device, ...], sharing: Sharing, shared: Shared) -> OwnState:
        return OwnState(
            name=self._config.node.name,
            software=f"ayni {version('ayni')}",
            devices=devices,
            offers=shared.offers(),
            sharing=sharing.word,
        )


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
