"""Two homes and what a job between them costs."""

from contextlib import asynccontextmanager

import trio
import trio.testing

from node.network.framing import FrameStream
from protocol import codec
from protocol.envelope import seal
from protocol.identity import Identity, digest
from protocol.ids import MessageId
from protocol.job.commitment import prompt_size
from protocol.job.requester import Finished
from protocol.job.terms import Message, Prompt, Receipt
from protocol.limits import TEMPLATE_TOKENS_MAX
from protocol.messages import JOB_PROTOCOL
from protocol.pricing import cost
from tests.node.jobs.homes import (
    NETWORK,
    PRICE_IN,
    PRICE_OUT,
    WORDS,
    Home,
    World,
    asked,
    identity,
    introduce,
    job,
    open_home,
)
from tests.node.jobs.test_refusals import Raw, order, request

MAIZE, QUINOA = identity("maize").node, identity("quinoa").node
DEAR, CHEAP = (20_000_000, 40_000_000), (PRICE_IN, PRICE_OUT)


def worst_of(wanted, prices=CHEAP) -> int:
    tokens_in = prompt_size(wanted.prompt) + TEMPLATE_TOKENS_MAX
    return min(wanted.cost_max, cost(tokens_in, wanted.output_tokens_max, *prices))


PROMPT = Prompt((Message("user", "Why is the sky blue?"),), "", ())
WORST = cost(prompt_size(PROMPT) + TEMPLATE_TOKENS_MAX, 100, PRICE_IN, PRICE_OUT)


@asynccontextmanager
async def two_homes(tmp_path, world: World, prices=CHEAP, script=WORDS, slots=4):
    async with (
        open_home(world, "maize", tmp_path, lambda task: script, slots, prices) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        yield maize, quinoa


async def end_of(home: Home, wanted=None) -> Finished:
    end = (await asked(home, wanted or job(home)))[-1]
    assert isinstance(end, Finished)
    return end


async def settled() -> None:
    """Whatever can go on without more words has."""
    await trio.sleep(1)


def receipt_id(end: Finished) -> MessageId:
    return seal(identity("quinoa"), NETWORK, end.receipt).id


PROMPT_TOKENS = len("user\nWhy is the sky blue?\n")
COST = cost(PROMPT_TOKENS, len(WORDS.tokens), PRICE_IN, PRICE_OUT)


@asynccontextmanager
async def raw_stream(world: World, maize: Home, who: Identity):
    async with world.open_network(who.node) as network:
        await network.connect(maize.network.addresses[0])
        yield Raw(FrameStream(await network.open(MAIZE, JOB_PROTOCOL)), who)


async def vanish(world: World, maize: Home, who: Identity) -> Receipt:
    """Have a whole job done, and be gone before the receipt is signed."""
    async with raw_stream(world, maize, who) as raw:
        await raw.say(request(maize))
        await raw.say(order(digest(codec.encode(await raw.hear()))))
        while not isinstance(said := await raw.hear(), Receipt):
            assert said is not None
    await settled()
    return said
