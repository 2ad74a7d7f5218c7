"""Two or more nodes of one memory world: a provider with a scripted model, and a requester.

Channels and disks outlive the nodes, so that a node can start again.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from msgspec.structs import replace as replace_struct

from node.channels.scripted import ScriptedChannel, ScriptedChannels, ScriptedPayee, ScriptedPayer
from node.jobs.around import Surroundings
from node.jobs.attempt import Job
from node.jobs.inference import EmbedTask, Served, Task
from node.jobs.mailbox import Told
from node.jobs.provider import Provider
from node.jobs.requester import Requester
from node.jobs.scripted import EmbedScript, Script, ScriptedInference
from node.market.choice import Market, candidate
from node.market.desk import Desk
from node.network.base import Network
from node.network.memory import MemoryWorld
from node.network.memory_weather import CALM, Weather
from node.network.quota import Quotas
from node.sharing import Sharing
from node.storage.bills import BillStore
from node.storage.database import open_database
from node.storage.jobs import JobRecord
from protocol.capacity import Advert, ModelOffer
from protocol.errors import LocalError
from protocol.identity import Identity, Seed, digest
from protocol.ids import JobId, ModelId, NetworkId, NodeId
from protocol.job.kinds import MODEL_EMBEDS, MODEL_GENERATES
from protocol.job.sampling import Sampling
from protocol.job.terms import Message, Prompt
from protocol.matching import Wish
from protocol.messages import JOB_PROTOCOL

NETWORK = NetworkId(digest(b"test network"))
MODEL = ModelId(digest(b"test model"))
NAME = "scripted"
PRICE_IN, PRICE_OUT = 500_000, 2_000_000
BALANCE = 1_000_000_000
WORDS = Script([(number, f"w{number} ") for number in range(40)])


class World(MemoryWorld):
    """A memory world with accounts: each home has BALANCE to put into channels."""

    def __init__(self, weather: Weather = CALM) -> None:
        super().__init__(weather)
        names = ("maize", "potato", "quinoa", "oca", "mallory")
        balances = {identity(name).node: BALANCE for name in names}
        self.channels = ScriptedChannels(NETWORK, balances)
        self.bill_store = BillStore
        self.births: Counter[str] = Counter()

    def between(self, payer: str, payee: str) -> Sequence[ScriptedChannel]:
        """The channels from one home to another, the oldest first."""
        return self.channels.between(identity(payer).node, identity(payee).node)


class Records:
    """A history in a list."""

    def __init__(self) -> None:
        self.records: list[JobRecord] = []
        self.failure: LocalError | None = None  # Of the disk.

    async def put(self, record: JobRecord) -> None:
        if self.failure is not None:
            raise self.failure
        kept = [one for one in self.records if one.order_id != record.order_id]
        self.records = [*kept, record]


@dataclass
class Home:
    identity: Identity
    network: Network
    around: Surroundings
    quotas: Quotas
    records: Records
    market: Market
    requester: Requester
    adverts: dict[NodeId, Advert]
    payer: ScriptedPayer
    payee: ScriptedPayee
    bills: BillStore
    desk: Desk | None = None
    provider: Provider | None = None
    inference: ScriptedInference | None = None
    sharing: Sharing | None = None
    suspects: set[NodeId] = field(default_factory=set)
    prices: tuple[int, int] = (PRICE_IN, PRICE_OUT)
    dropped: list[NodeId] = field(default_factory=list)


def identity(name: str) -> Identity:
    return Identity(Seed(digest(name.encode())))


def counting_bytes(name: str) -> Callable[[int], bytes]:
    """Chance of a test: the same bytes in each run."""
    number = 0

    def draw(count: int) -> bytes:
        nonlocal number
        number += 1
        return digest(f"{name} {number}".encode())[:count]

    return draw


@asynccontextmanager
async def open_home(
    world: World,
    name: str,
    tmp_path,
    script: Callable[[Task], Script] | None = None,
    slots: int = 1,
    prices: tuple[int, int] = (PRICE_IN, PRICE_OUT),
    embeds: Callable[[EmbedTask], EmbedScript] | None = None,
) -> AsyncIterator[Home]:
    """Its model writes by `script`, or makes vectors by `embeds`."""
    me, quotas, records = identity(name), Quotas(), Records()
    world.births[name] += 1
    chance = counting_bytes(f"{name} {world.births[name]}")
    async with (
        open_database(tmp_path / f"{name}.db", inline=True) as disk,
        world.open_network(me.node, quotas) as network,
    ):
        bills = world.bill_store(disk)
        payer = ScriptedPayer(world.channels, me)
        payee = ScriptedPayee(world.channels, me.node)
        around = Surroundings(
            me, NETWORK, network, quotas, records, chance, lambda: 1_700_000_000_000
        )
        adverts: dict[NodeId, Advert] = {}
        suspects: set[NodeId] = set()
        market = Market(lambda: adverts, lambda node: node in suspects)

        async def connect(node: NodeId) -> None:
            await network.connect(world.networks[node].addresses[0])

        home = Home(
            me, network, around, quotas, records, market,
            Requester(around, market, connect, payer, bills), adverts, payer, payee, bills,
            suspects=suspects,
        )  # fmt: skip
        if script is not None or embeds is not None:
            kind = MODEL_GENERATES if embeds is None else MODEL_EMBEDS
            served = Served(MODEL, NAME, "cpu-f32/gguf", 2048, slots, 400_000, 20_000, kind)
            home.inference = ScriptedInference(
                [served], script or unasked, embeds or (lambda task: EmbedScript())
            )
            home.sharing = Sharing(enabled=True, pause_file=tmp_path / f"{name}.paused")
            home.prices = prices
            home.desk = Desk(home.sharing, lambda: offers(home))
            home.provider = Provider(around, home.desk, home.inference, payee, bills)
            network.serve(JOB_PROTOCOL, home.provider.serve)
        yield home


def unasked(task: Task) -> Script:
    raise AssertionError("a model for vectors was asked to write")


def offers(home: Home) -> list[ModelOffer]:
    assert home.inference is not None
    return [
        ModelOffer(
            served.model, served.name, served.kind, served.mode, served.context_tokens,
            *home.prices, served.prefill_millitokens_per_second,
            served.decode_millitokens_per_second, served.slots,
            home.inference.slots_free(served.model),
        )
        for served in home.inference.served
    ]  # fmt: skip


def introduce(requester: Home, *providers: Home) -> None:
    """The requester has heard these adverts."""
    for home in providers:
        requester.adverts[home.identity.node] = Advert(
            1, 1, 1, 20_000, home.identity.node.hex()[:6], "test", (), (), tuple(offers(home)),
            "on", "unknown", "",
        )  # fmt: skip


def pause(requester: Home, provider: Home) -> None:
    """The requester has heard that this provider has paused."""
    node = provider.identity.node
    requester.adverts[node] = replace_struct(requester.adverts[node], sharing="paused")


def job(
    requester: Home,
    *,
    tokens: int = 100,
    cost_max: int = 1_000_000,
    prompt_tokens: int = 8,
    **changes,
) -> Job:
    prompt = Prompt((Message("user", "Why is the sky blue?"),), "", ())
    number = JobId(requester.around.random_bytes(16))
    wish = Wish(number, [MODEL], (), prompt_tokens, tokens, cost_max, None)
    ranked = requester.market.candidates(wish)
    made = Job(
        id=number,
        candidates=[candidate(one) for one in ranked],
        modes=(),
        prompt=prompt,
        stop=(),
        sampling=Sampling(),
        output_tokens_max=tokens,
        time_ms_max=60_000,
        cost_max=cost_max,
        user_seed=None,
        model_names={MODEL: NAME},
    )
    return replace(made, **changes)


async def asked(requester: Home, wanted: Job) -> Sequence[Told]:
    """All that is told of one job, to its end."""
    async with requester.requester.ask(wanted) as told:
        return [one async for one in told]
