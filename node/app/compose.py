"""The parts of one node, made in the order in which they depend on each other."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from random import SystemRandom

from node.app.parts import Parts
from node.app.shared import Shared
from node.config import Config, Paths
from node.discovery.admission import Member
from node.discovery.clock import Clock, system_clock
from node.discovery.own import OwnState
from node.discovery.service import Discovery
from node.discovery.service import Settings as DiscoverySettings
from node.discovery.service import Surroundings as DiscoverySurroundings
from node.jobs.around import Surroundings
from node.jobs.billing import Billing, open_billing
from node.jobs.debts import Risk
from node.jobs.provider import Provider
from node.jobs.requester import Requester
from node.ledger.audit import Settings as AuditSettings
from node.ledger.journal import Settings as JournalSettings
from node.ledger.keeper import Steps
from node.ledger.service import NodeLedger, open_ledger
from node.ledger.service import Settings as LedgerSettings
from node.ledger.service import Surroundings as LedgerSurroundings
from node.market.choice import Market
from node.market.desk import Desk
from node.models.cache import ModelCache
from node.models.catalogue import load_catalogue
from node.network.base import Network
from node.network.quota import Quotas
from node.sharing import Sharing
from node.storage.bills import BillStore
from node.storage.database import Database
from node.storage.jobs import JobHistory
from node.storage.peers import PeerStore
from protocol.capacity import Device
from protocol.identity import Identity
from protocol.ledger.charter import Charter, charter
from protocol.ledger.genesis import NetworkFile
from protocol.messages import JOB_PROTOCOL


@dataclass(frozen=True, slots=True)
class Ground:
    """What the parts stand on: the owner's settings, the key, the network, the disk."""

    paths: Paths
    config: Config
    identity: Identity
    file: NetworkFile
    quotas: Quotas
    database: Database
    network: Network
    devices: Sequence[Device]


async def compose(ground: Ground, stop: Callable[[], None], steps: Steps) -> Parts:
    """All parts of a node. None of them runs yet, but jobs of others are answered from now on.

    Raises LocalError for settings that cannot be, or when the disk fails.
    """
    config, paths, clock = ground.config, ground.paths, system_clock()
    rules = charter(ground.file.genesis)
    history = JobHistory(ground.database)
    catalogue = load_catalogue(paths.models_file)
    cache = ModelCache(paths.models_folder, paths.config_folder)
    sharing = Sharing(
        enabled=config.share.enabled and bool(config.share.names),
        pause_file=paths.data_folder / "paused",
    )
    shared = Shared(config, catalogue, cache, paths.config_folder)
    discovery = _discovery(ground, rules, clock, lambda: _own(ground, sharing, shared))
    sharing.watch(partial(discovery.changed, urgent=True))
    shared.watch(lambda others: discovery.changed(urgent=others))
    ledger = await _ledger(ground, rules, discovery, steps)
    billing = await _billing(ground, rules, ledger, steps)
    around = Surroundings(
        identity=ground.identity,
        network_id=rules.network,
        network=ground.network,
        quotas=ground.quotas,
        recorder=history,
        random_bytes=secrets.token_bytes,
        wall_ms=clock.wall_ms,
    )
    desk = Desk(sharing, shared.offers)
    ground.network.serve(JOB_PROTOCOL, Provider(around, desk, shared, billing).serve)
    market = Market(discovery.adverts, ledger.contradicted)
    return Parts(
        identity=ground.identity,
        config=config,
        file=ground.file,
        charter=rules,
        network=ground.network,
        discovery=discovery,
        sharing=sharing,
        shared=shared,
        ledger=ledger,
        billing=billing,
        desk=desk,
        market=market,
        requester=Requester(around, market, discovery.connect_to, billing),
        history=history,
        catalogue=catalogue,
        cache=cache,
        data_folder=paths.data_folder,
        stop=stop,
        random_bytes=secrets.token_bytes,
        wall_ms=clock.wall_ms,
    )


def _discovery(
    ground: Ground, rules: Charter, clock: Clock, own: Callable[[], OwnState]
) -> Discovery:
    settings = DiscoverySettings(
        bootstrap=(*ground.config.network.bootstrap, *ground.file.bootstrap),
        life_ms=ground.config.network.advert_life_seconds * 1000,
    )
    return Discovery(
        ground.network,
        Member(ground.identity, rules.network),
        PeerStore(ground.database),
        own,
        DiscoverySurroundings(ground.quotas, clock, SystemRandom()),
        settings=settings,
    )


def _own(ground: Ground, sharing: Sharing, shared: Shared) -> OwnState:
    return OwnState(
        name=ground.config.node.name,
        software=f"ayni {version('ayni')}",
        devices=ground.devices,
        offers=shared.offers(),
        sharing=sharing.word,
    )


async def _ledger(ground: Ground, rules: Charter, discovery: Discovery, steps: Steps) -> NodeLedger:
    pace = ground.config.ledger
    around = LedgerSurroundings(
        network=ground.network,
        quotas=ground.quotas,
        database=ground.database,
        connect=discovery.connect_to,
        random_bytes=secrets.token_bytes,
        steps=steps,
    )
    settings = LedgerSettings(
        JournalSettings(claim_seconds=pace.claim_seconds),
        AuditSettings(round_seconds=pace.audit_seconds),
    )
    return await open_ledger(rules, ground.identity, around, settings)


async def _billing(ground: Ground, rules: Charter, ledger: NodeLedger, steps: Steps) -> Billing:
    risk = Risk(
        stranger_microcredits=ground.config.risk.stranger_microcredits,
        pay_min=rules.pay_min,
        allocations=rules.allocations,
    )
    return await open_billing(BillStore(ground.database), ledger, risk, steps)
