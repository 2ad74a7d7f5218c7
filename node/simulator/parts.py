"""One life of a simulated node's process: the real parts, put together as `node.app.compose` does.

What is left out has nothing to say about money: discovery (all adverts are known), models (a
script answers) and the API.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from node.channels.base import Payee, Payer
from node.channels.own import Around as ChannelsAround
from node.channels.policy import Limits
from node.channels.service import Channels, open_channels
from node.jobs.around import Surroundings
from node.jobs.inference import Served, Task
from node.jobs.provider import Provider
from node.jobs.requester import Requester
from node.jobs.scripted import Script, ScriptedInference
from node.ledger.service import NodeLedger, open_ledger
from node.ledger.service import Settings as LedgerSettings
from node.ledger.service import Surroundings as LedgerSurroundings
from node.market.choice import Market
from node.market.desk import Desk
from node.network.base import Network
from node.network.quota import Quotas
from node.sharing import Sharing
from node.storage.bills import BillStore
from node.storage.channels import VoucherStore
from node.storage.database import Database
from node.storage.jobs import JobHistory
from node.supervise import Part, supervise
from protocol.capacity import ModelOffer
from protocol.identity import Identity, digest
from protocol.ids import ModelId, NodeId, node_text
from protocol.job.kinds import MODEL_GENERATES
from protocol.ledger.charter import Charter
from protocol.ledger.witness import Witness
from protocol.messages import JOB_PROTOCOL

MODEL: Final = ModelId(digest(b"simulated model"))
MODEL_NAME: Final = "simulated"
PRICE_IN: Final = 200_000_000  # Micro-credits for a million tokens: a word costs a few hundred.
PRICE_OUT: Final = 800_000_000
SERVED: Final = Served(MODEL, MODEL_NAME, "cpu-f32/gguf", 2048, 4, 400_000, 20_000, MODEL_GENERATES)
CHUNK_COST: Final = 16 * PRICE_OUT // 1_000_000


@dataclass(frozen=True, slots=True)
class Build:
    """What a node is built of beside the parts that are always the same. Tests put mistakes in
    here, to see that they are found."""

    rules: Callable[[Charter], Charter] = lambda rules: rules
    witness: Callable[[Charter, NodeId], Witness] = Witness
    vouchers: Callable[[Database], VoucherStore] = VoucherStore
    payer: Callable[[Payer], Payer] = lambda payer: payer
    payee: Callable[[Payee], Payee] = lambda payee: payee
    disk_image: Callable[[bytes], bytes] = lambda image: image
    """What a crash leaves of a disk."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a life stands on."""

    identity: Identity
    charter: Charter
    network: Network
    quotas: Quotas
    database: Database
    random_bytes: Callable[[int], bytes]
    wall_ms: Callable[[], int]
    steps: Callable[[str], Awaitable[None]]
    limits: Limits
    ledger: LedgerSettings


@dataclass(frozen=True, slots=True)
class Parts:
    """A node's parts, for as long as its process lives."""

    ledger: NodeLedger
    channels: Channels
    requester: Requester
    market: Market
    inference: ScriptedInference
    running: Sequence[Part]


async def compose(ground: Ground, build: Build) -> Parts:
    """All parts of a node; none runs yet. Raises LocalError when the disk fails."""
    rules, identity, network = build.rules(ground.charter), ground.identity, ground.network

    async def connect(node: NodeId) -> None:
        await network.connect(address(node))

    ledger = await open_ledger(
        rules, identity, _ledger_around(ground, build, connect), ground.ledger
    )
    channels = await open_channels(
        ChannelsAround(identity, rules, ledger, ground.wall_ms, ground.limits),
        build.vouchers(ground.database),
        lambda: CHUNK_COST,
        ground.steps,
    )
    around = Surroundings(
        identity=identity,
        network_id=rules.network,
        network=network,
        quotas=ground.quotas,
        recorder=JobHistory(ground.database),
        random_bytes=ground.random_bytes,
        wall_ms=ground.wall_ms,
    )
    bills = BillStore(ground.database)
    inference = ScriptedInference([SERVED], answer)
    sharing = Sharing(enabled=True, pause_file=Path("simulated.paused"))
    desk = Desk(sharing, lambda: offers(inference.slots_free(MODEL)))
    provider = Provider(around, desk, inference, build.payee(channels.payee), bills)
    network.serve(JOB_PROTOCOL, provider.serve)
    market = Market(dict, ledger.contradicted)  # Whom to ask, a deed says.
    requester = Requester(around, market, connect, build.payer(channels.payer), bills)
    running = (
        partial(supervise, "ledger", ledger.run),
        partial(supervise, "channels", channels.run),
    )
    return Parts(ledger, channels, requester, market, inference, running)


def address(node: NodeId) -> str:
    """Where a node of a MemoryWorld is dialled."""
    return f"/memory/simulated/p2p/{node_text(node)}"


def answer(task: Task) -> Script:
    """As many words as may be said."""
    return Script([(number, f"w{number} ") for number in range(task.output_tokens_max)])


def offers(slots_free: int) -> tuple[ModelOffer, ...]:
    """What every node shares."""
    return (
        ModelOffer(
            SERVED.model,
            SERVED.name,
            SERVED.kind,
            SERVED.mode,
            SERVED.context_tokens,
            PRICE_IN,
            PRICE_OUT,
            SERVED.prefill_millitokens_per_second,
            SERVED.decode_millitokens_per_second,
            SERVED.slots,
            slots_free,
        ),
    )


def _ledger_around(
    ground: Ground, build: Build, connect: Callable[[NodeId], Awaitable[None]]
) -> LedgerSurroundings:
    return LedgerSurroundings(
        network=ground.network,
        quotas=ground.quotas,
        database=ground.database,
        connect=connect,
        random_bytes=ground.random_bytes,
        wall_ms=ground.wall_ms,
        steps=ground.steps,
        witness=build.witness,
    )
