"""The parts of one node, made in the order in which they depend on each other."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from random import SystemRandom

from node.app.parts import Parts
from node.app.recovery import OldChannels, Recovery, bring_vouchers_back
from node.app.shared import Shared
from node.channels.own import Around as ChannelsAround
from node.channels.policy import Limits, chunk_cost_most
from node.channels.service import open_channels
from node.config import ChannelSettings, Config, Paths
from node.discovery.admission import Member
from node.discovery.clock import Clock, system_clock
from node.discovery.own import OwnState
from node.discovery.service import Discovery
from node.discovery.service import Settings as DiscoverySettings
from node.discovery.service import Surroundings as DiscoverySurroundings
from node.discovery.sound_clock import SoundClock
from node.jobs.around import Surroundings
from node.jobs.provider import Provider
from node.jobs.requester import Requester
from node.ledger.audit import Settings as AuditSettings
from node.ledger.compaction import Settings as CompactionSettings
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
from node.storage.channels import VoucherStore, no_copy
from node.storage.database import Database
from node.storage.jobs import JobHistory
from node.storage.peers import PeerStore
from node.storage.voucher_copy import VoucherCopy
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
    config, paths, system = ground.config, ground.paths, system_clock()
    rules = charter(ground.file.genesis)
    sound = SoundClock(system, rules.witnesses, ground.identity.node)
    clock = Clock(sound.now_ms, system.steady_ms)
    history = JobHistory(ground.database)
    catalogue = load_catalogue(paths.models_file)
    cache = ModelCache(paths.models_folder, paths.config_folder)
    sharing = Sharing(
        enabled=config.share.enabled and bool(config.share.names),
        pause_file=paths.data_folder / "paused",
    )
    shared = Shared(config, catalogue, cache, paths.config_folder)
    discovery = _discovery(ground, rules, clock, sound, lambda: _own(ground, sharing, shared))
    sharing.watch(partial(discovery.changed, urgent=True))
    shared.watch(lambda others: discovery.changed(urgent=others))
    ledger = await _ledger(ground, rules, discovery, sound, steps)
    copy = _voucher_copy(ground, rules)
    channels_around = ChannelsAround(
        ground.identity, rules, ledger, clock.wall_ms, _channel_limits(config.channels)
    )
    store = _voucher_store(ground, copy)
    await bring_vouchers_back(ground.database, store, copy, rules.network)
    channels = await open_channels(
        channels_around, store, lambda: chunk_cost_most(shared.offers()), steps
    )
    old_channels = OldChannels(ground.database, ledger, channels, channels_around)
    await old_channels.load()
    bills = BillStore(ground.database)
    around = Surroundings(
        identity=ground.identity,
        network_id=rules.network,
        network=ground.network,
        quotas=ground.quotas,
        recorder=history,
        random_bytes=secrets.token_bytes,
        wall_ms=clock.wall_ms,
    )
    desk = Desk(sharing, shared.offers, lambda: ground.database.trouble)
    provider = Provider(around, desk, shared, channels.payee, bills)
    ground.network.serve(JOB_PROTOCOL, provider.serve)
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
        channels=channels,
        old_channels=old_channels,
        recovery=Recovery(ground.database, sound, ledger, channels, copy, paths.data_folder),
        desk=desk,
        market=market,
        requester=Requester(around, market, discovery.connect_to, channels.payer, bills),
        history=history,
        catalogue=catalogue,
        cache=cache,
        data_folder=paths.data_folder,
        stop=stop,
        random_bytes=secrets.token_bytes,
        wall_ms=clock.wall_ms,
    )


def _discovery(
    ground: Ground,
    rules: Charter,
    clock: Clock,
    sound: SoundClock,
    own: Callable[[], OwnState],
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
        DiscoverySurroundings(ground.quotas, clock, SystemRandom(), dated=sound.heard),
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


async def _ledger(
    ground: Ground, rules: Charter, discovery: Discovery, sound: SoundClock, steps: Steps
) -> NodeLedger:
    pace = ground.config.ledger
    # A witness keeps all: whoever has lost its disk gets its whole chain back from it.
    keep = "all" if rules.number(ground.identity.node) is not None else pace.keep
    around = LedgerSurroundings(
        network=ground.network,
        quotas=ground.quotas,
        database=ground.database,
        connect=discovery.connect_to,
        random_bytes=secrets.token_bytes,
        wall_ms=sound.now_ms,
        clock_trusted=lambda: sound.is_trusted,
        steps=steps,
    )
    settings = LedgerSettings(
        JournalSettings(claim_seconds=pace.claim_seconds),
        AuditSettings(
            round_seconds=pace.audit_seconds,
            check_seconds=pace.check_seconds,
            only_own=keep == "own",
        ),
        CompactionSettings(is_on=keep == "recent"),
    )
    return await open_ledger(rules, ground.identity, around, settings)


def _channel_limits(settings: ChannelSettings) -> Limits:
    return Limits(
        life_ms=settings.life_seconds * 1000,
        idle_ms=settings.idle_seconds * 1000,
        deposit_percent=settings.deposit_percent,
        locked_percent=settings.locked_percent,
        settle_above=settings.settle_above,
        settle_percent=settings.settle_percent,
    )


def _voucher_copy(ground: Ground, rules: Charter) -> VoucherCopy | None:
    file = ground.config.channels.voucher_copy
    if not file:
        return None
    return VoucherCopy(ground.paths.config_folder / Path(file).expanduser(), rules.network)


def _voucher_store(ground: Ground, copy: VoucherCopy | None) -> VoucherStore:
    if copy is None:
        return VoucherStore(ground.database, no_copy)
    store = VoucherStore(ground.database, copy)
    copy.live = store.vouchers
    return store
