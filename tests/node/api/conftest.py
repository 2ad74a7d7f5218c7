"""A scripted node, and its API served on a real loopback port."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import httpx
import pytest

from node.api.backend import Accepted, ChatJob, Finished, Text
from node.api.scripted import ScriptedBackend, Step
from node.api.server import open_server
from node.api.views import (
    Check,
    Job,
    KnownModel,
    ListedModel,
    Models,
    Network,
    Offer,
    Peer,
    Sharing,
    Status,
    Worker,
)
from protocol.ids import NodeId, node_text

KEY = "the-key-of-a-test-that-is-long-enough"
MAIZE, POTATO = NodeId(b"m" * 32), NodeId(b"p" * 32)

ACCEPTED = Accepted(
    provider=MAIZE,
    provider_name="maize",
    model="tiny",
    mode="cpu-f32/gguf",
    prompt_tokens=7,
    price_in_microcredits=500_000,
    price_out_microcredits=2_000_000,
)
FINISHED = Finished(
    reason="stop",
    provider=MAIZE,
    input_tokens=7,
    output_tokens=3,
    cost_microcredits=10,
    ms_first=120,
    ms_total=480,
)
ANSWER: tuple[Step, ...] = (ACCEPTED, Text("The sky", 2), Text(" is blü.", 1), FINISHED)
OFFER = Offer(
    name="tiny",
    model="ab" * 32,
    mode="cpu-f32/gguf",
    context_tokens=2048,
    price_in_microcredits=500_000,
    price_out_microcredits=2_000_000,
    prefill_millitokens_per_second=90_000,
    decode_millitokens_per_second=21_500,
    slots=2,
    slots_free=1,
)
STATUS = Status(
    node=node_text(NodeId(b"q" * 32)),
    name="quinoa",
    version="0.1.0",
    network=Network(name="field", id="cd" * 32, supply_microcredits=4_000_000_000, accounts=4),
    started_at_ms=1_000,
    uptime_ms=65_000,
    addresses=("/ip4/127.0.0.1/tcp/4001/p2p/" + node_text(NodeId(b"q" * 32)),),
    sharing=Sharing(state="on"),
    worker=Worker(state="ready", pid=77, device="cpu"),
    offers=(OFFER,),
    peers=2,
)
PEERS = (
    Peer(node=node_text(MAIZE), name="maize", connected=True, offers=(OFFER,), advert_age_ms=900),
    Peer(node=node_text(POTATO), name="potato", connected=False),
)
JOBS = tuple(
    Job(
        job=f"{i:032x}",
        role="requester",
        peer=node_text(MAIZE),
        peer_name="maize",
        model="tiny",
        state="done",
        started_at_ms=i,
    )
    for i in range(30)
)
KNOWN = KnownModel(
    name="bigger",
    model="ef" * 32,
    modes=("cpu-f32/gguf",),
    context_tokens=4096,
    providers=1,
    slots_free=0,
    price_in_microcredits=1,
    price_out_microcredits=2,
)
LISTED = ListedModel(
    name="tiny",
    model="ab" * 32,
    licence="Apache-2.0",
    context_tokens=2048,
    size_bytes=9,
    cached=True,
)


def answers(steps: Sequence[Step]) -> ScriptedBackend:
    return ScriptedBackend(
        script=lambda job: steps,
        node=STATUS,
        known_peers=PEERS,
        history=JOBS,
        known_models=Models(served=(OFFER,), known=(KNOWN,), catalogue=(LISTED,)),
        checks=(Check(name="peers", state="ok", sentence="2 peers."),),
    )


@dataclass
class Scene:
    """One served backend whose script a test may change, and a client that has the key."""

    backend: ScriptedBackend
    url: str
    client: httpx.AsyncClient
    steps: list[Step] = field(default_factory=lambda: list(ANSWER))

    def played(self, job: ChatJob) -> Sequence[Step]:
        return self.steps

    async def chat(self, **fields: object) -> httpx.Response:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Why?"}], **fields}
        return await self.client.post("/v1/chat/completions", json=body)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    backend = answers(())
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        open_server(backend, KEY) as url,
        httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client,
    ):
        made = Scene(backend, url, client)
        backend.script = made.played
        yield made
