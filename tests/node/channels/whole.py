"""Nodes with real ledgers, channels and jobs, with scripted models, on a network with latency."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import trio

from node.channels.own import Around as ChannelsAround
from node.channels.policy import Limits
from node.channels.service import Channels, open_channels
from node.jobs.around import Surroundings as JobsAround
from node.jobs.attempt import Job
from node.jobs.inference import Served, Task
from node.jobs.mailbox import Told
from node.jobs.provider import Provider
from node.jobs.requester import Requester
from node.jobs.scripted import Script, ScriptedInference
from node.ledger import audit, journal
from node.ledger.service import NodeLedger, Settings, Surroundings, open_ledger
from node.market.choice import Market, candidate
from node.market.desk import Desk
from node.network.memory import MemoryNetwork, MemoryWorld
from node.network.memory_weather import Weather
from node.network.quota import Quotas
from node.sharing import Sharing
from node.storage.bills import BillStore
from node.storage.channels import VoucherStore
from node.storage.database import open_database
from node.storage.jobs import JobRecord
from protocol.capacity import Advert, ModelOffer
from protocol.identity import Identity, digest
from protocol.ids import JobId, ModelId, NodeId, node_text
from protocol.job.kinds import MODEL_GENERATES
from protocol.job.sampling import Sampling
from protocol.job.terms import Message, Prompt
from protocol.ledger.charter import charter
from protocol.ledger.genesis import genesis_made
from protocol.matching import Wish
from protocol.messages import JOB_PROTOCOL
from tests.node.ledger.village import WITNESSES
from tests.protocol.ledger.chains import ANNA, BRUNO

EPOCH_MS = 1_700_000_000_000
RICH = 1_000_000_000
GRACE_MS, WINDOW_MS = 2_000, 4_000
RULES = charter(
    genesis_made(
        "whole", bytes(16), {one.node: RICH for one in (ANNA, BRUNO)},
        {one.node for one in WITNESSES}, grace_ms=GRACE_MS, window_ms=WINDOW_MS,
    )
)  # fmt: skip
SETTINGS = Settings(
    journal=journal.Settings(claim_sources=3, claim_seconds=20, agree_seconds=2),
    audit=audit.Settings(round_seconds=3_600),
)
LIMITS = Limits(life_ms=600_000, idle_ms=120_000)
MODEL, NAME = ModelId(digest(b"a model")), "scripted"
SERVED = Served(MODEL, NAME, "cpu-f32/gguf", 2048, 8, 400_000, 20_000, MODEL_GENERATES)
PRICE_IN, PRICE_OUT = 500_000, 2_000_000


class Latency(Weather):
    """Each message takes so long one way; some nodes may be out of each other's reach."""

    def __init__(self) -> None:
        self.parted: set[frozenset[NodeId]] = set()

    def delay_seconds(self, sender: NodeId, receiver: NodeId) -> float:
        return 0.05

    def is_cut(self, sender: NodeId, receiver: NodeId) -> bool:
        return False

    def is_parted(self, one: NodeId, other: NodeId) -> bool:
        return frozenset((one, other)) in self.parted

    def copies_seconds(self, sender: NodeId, receiver: NodeId) -> Sequence[float]:
        return (0.05,)


class History:
    """A history in a list."""

    def __init__(self) -> None:
        self.records: list[JobRecord] = []

    async def put(self, record: JobRecord) -> None:
        self.records.append(record)


@dataclass
class Home:
    identity: Identity
    network: MemoryNetwork
    ledger: NodeLedger
    channels: Channels
    requester: Requester
    market: Market
    chance: Random
    adverts: dict[NodeId, Advert] = field(default_factory=dict)

    @property
    def node(self) -> NodeId:
        return self.identity.node

    @property
    def balance(self) -> int:
        return self.ledger.standing().balance


class World(MemoryWorld):
    """`said` are the protocols of all messages, in order."""

    def __init__(self) -> None:
        super().__init__(Latency(), self._hear)
        self.said: list[str] = []
        self.homes: list[Home] = []

    def _hear(self, sender: NodeId, receiver: NodeId, protocol: str, data: bytes) -> None:
        self.said.append(protocol)


def wall_ms() -> int:
    return EPOCH_MS + round(trio.current_time() * 1000)


def script(_: Task) -> Script:
    return Script([(number, f"w{number} ") for number in range(40)])


@asynccontextmanager
async def open_home(
    world: World, identity: Identity, tmp_path, *, serves: bool
) -> AsyncIterator[Home]:
    quotas, chance = Quotas(), Random(identity.node)
    name = identity.node.hex()[:8]
    async with (
        open_database(tmp_path / f"{name}.db", inline=True) as database,
        world.open_network(identity.node, quotas) as network,
        trio.open_nursery() as nursery,
    ):

        async def connect(node: NodeId) -> None:
            if node not in network.peers:
                await network.connect(f"/memory/x/p2p/{node_text(node)}")

        ledger = await open_ledger(
            RULES,
            identity,
            Surroundings(network, quotas, database, connect, chance.randbytes, wall_ms),
            SETTINGS,
        )
        channels = await open_channels(
            ChannelsAround(identity, RULES, ledger, wall_ms, LIMITS),
            VoucherStore(database),
            lambda: 32,
        )
        around = JobsAround(
            identity, RULES.network, network, quotas, History(), chance.randbytes, wall_ms
        )
        adverts: dict[NodeId, Advert] = {}
        market = Market(lambda: adverts, ledger.contradicted)
        bills = BillStore(database)
        requester = Requester(around, market, connect, channels.payer, bills)
        if serves:
            sharing = Sharing(enabled=True, pause_file=tmp_path / f"{name}.paused")
            desk = Desk(sharing, lambda: [offer()])
            provider = Provider(
                around, desk, ScriptedInference([SERVED], script), channels.payee, bills
            )
            network.serve(JOB_PROTOCOL, provider.serve)
        await nursery.start(ledger.run)
        nursery.start_soon(channels.run)
        for other in world.homes:
            await connect(other.node)
        home = Home(identity, network, ledger, channels, requester, market, chance, adverts)
        world.homes.append(home)
        yield home
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_world(tmp_path) -> AsyncIterator[tuple[World, Home, Home]]:
    """Four witnesses, Anna who asks, and Bruno who serves."""
    world = World()
    async with AsyncExitStack() as stack:
        for witness in WITNESSES:
            await stack.enter_async_context(open_home(world, witness, tmp_path, serves=False))
        bruno = await stack.enter_async_context(open_home(world, BRUNO, tmp_path, serves=True))
        anna = await stack.enter_async_context(open_home(world, ANNA, tmp_path, serves=False))
        anna.adverts[bruno.node] = Advert(
            1, 1, 1, 20_000, "bruno", "test", (), (), (offer(),), "on", "unknown", ""
        )
        yield world, anna, bruno


def offer() -> ModelOffer:
    return ModelOffer(
        MODEL, NAME, SERVED.kind, SERVED.mode, SERVED.context_tokens, PRICE_IN, PRICE_OUT,
        SERVED.prefill_millitokens_per_second, SERVED.decode_millitokens_per_second, 8, 8,
    )  # fmt: skip


def job(home: Home, tokens: int = 100) -> Job:
    number = JobId(home.chance.randbytes(16))
    ranked = home.market.candidates(Wish(number, [MODEL], (), 8, tokens, 1_000_000, None))
    return Job(
        id=number,
        candidates=[candidate(one) for one in ranked],
        modes=(),
        prompt=Prompt((Message("user", "Why is the sky blue?"),), "", ()),
        stop=(),
        sampling=Sampling(),
        output_tokens_max=tokens,
        time_ms_max=60_000,
        cost_max=1_000_000,
        user_seed=None,
        model_names={MODEL: NAME},
    )


async def asked(home: Home, wanted: Job) -> Sequence[Told]:
    """All that is told of one job, to its end."""
    async with home.requester.ask(wanted) as told:
        return [one async for one in told]
