"""What a provider says to a requester that breaks the rules: a stable code, and no more."""

from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import pytest
import trio

from node.channels.base import PayTerms
from node.network.base import NetworkError
from node.network.framing import FrameStream
from protocol import codec
from protocol.envelope import Signed, seal
from protocol.errors import Code
from protocol.identity import Identity, digest
from protocol.ids import JobId, NetworkId
from protocol.job.commitment import prompt_commitment, prompt_size, stop_digest
from protocol.job.sampling import Sampling
from protocol.job.seed import seed_commitment
from protocol.job.terms import Message, Order, Prompt, Quote, Refuse, Request, Started
from protocol.limits import FAILED_CHECKS_MAX, QUOTE_VALID_MS, WINDOW_CHUNKS_MAX
from protocol.messages import JOB_PROTOCOL, FromProvider, job_body, job_frame
from tests.node.jobs.homes import (
    MODEL,
    NETWORK,
    WORDS,
    Home,
    World,
    asked,
    identity,
    introduce,
    job,
    open_home,
)

MALLORY = identity("mallory")
PROMPT = Prompt((Message("user", "hello"),), "", ())
R, SALT = digest(b"r"), digest(b"salt")
CHANNEL = digest(MALLORY.node + bytes(8))
"""That of mallory to maize: the first of its world."""


def request(maize: Home, **changes) -> Request:
    made = Request(
        version=1,
        network=NETWORK,
        provider=maize.identity.node,
        job=JobId(bytes(16)),
        kind="chat",
        model=MODEL,
        modes=(),
        sampling=Sampling(),
        stop_digest=stop_digest(SALT, ()),
        output_tokens_max=10,
        time_ms_max=60_000,
        cost_max=1_000_000,
        prompt_bytes=prompt_size(PROMPT),
        prompt_commitment=prompt_commitment(SALT, PROMPT),
        seed_commitment=seed_commitment(R),
        seed_source="drawn",
        first_t=0,
        prefix_hash=b"",
    )
    return msgspec.structs.replace(made, **changes)


def order(quote_id: bytes, **changes) -> Order:
    made = Order(quote_id, R, SALT, PROMPT, (), (), CHANNEL, None)
    return msgspec.structs.replace(made, **changes)


@dataclass
class Raw:
    """A client that says whatever it likes."""

    frames: FrameStream
    who: Identity = MALLORY

    async def say(self, message, network=NETWORK, signer=None) -> Signed:
        signed = seal(signer or self.who, network, message)
        await self.frames.send(codec.encode(signed))
        return signed

    async def hear(self):
        frame = await self.frames.receive()
        if frame is None:
            return None
        came = job_frame(frame)
        if not isinstance(came, Signed):
            return came
        return job_body(came, NETWORK, FromProvider).value


@asynccontextmanager
async def scene(tmp_path):
    """maize serves, quinoa is honest, mallory has a raw stream to maize."""
    world = World()
    world.channels.terms = PayTerms(WINDOW_CHUNKS_MAX, is_prompt_first=False)
    opened = world.channels.opened(MALLORY.node, identity("maize").node, 1_000_000)
    assert opened.id == CHANNEL
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
        world.open_network(MALLORY.node) as network,
    ):
        introduce(quinoa, maize)
        await network.connect(maize.network.addresses[0])

        async def open_raw() -> Raw:
            return Raw(FrameStream(await network.open(maize.identity.node, JOB_PROTOCOL)))

        yield maize, quinoa, network, open_raw


async def refusal(raw: Raw) -> Refuse:
    said = await raw.hear()
    assert isinstance(said, Refuse), said
    return said


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 2}, Code.WRONG_VERSION),
        ({"provider": MALLORY.node}, Code.WRONG_PROVIDER),
        ({"kind": "train"}, Code.KIND_NOT_SERVED),
        ({"first_t": 5}, Code.KIND_NOT_SERVED),
        ({"model": digest(b"another model")}, Code.MODEL_NOT_SERVED),
        ({"modes": ("native-1/q4",)}, Code.MODE_NOT_SERVED),
        ({"output_tokens_max": 5000}, Code.CONTEXT_EXCEEDED),
        ({"cost_max": 0}, Code.COST_EXCEEDED),
    ],
)
async def test_a_request_that_cannot_be_served(autojump_clock, tmp_path, changes, code):
    async with scene(tmp_path) as (maize, _, _, open_raw):
        raw = await open_raw()
        signed = await raw.say(request(maize, **changes))
        said = await refusal(raw)
        assert (said.code, said.refused) == (code, signed.id)
        assert len(said.sentence) > 20
        assert await raw.hear() is None


async def test_a_request_for_another_network_is_named_so(autojump_clock, tmp_path):
    other = NetworkId(digest(b"another network"))
    async with scene(tmp_path) as (maize, _, _, open_raw):
        raw = await open_raw()
        await raw.say(request(maize, network=other), network=other)
        assert (await refusal(raw)).code == Code.WRONG_NETWORK
        # Signed for ours while it names another: the rule finds what the signature does not.
        raw = await open_raw()
        await raw.say(request(maize, network=other))
        assert (await refusal(raw)).code == Code.WRONG_NETWORK


async def test_a_bad_signature_is_refused_by_code(autojump_clock, tmp_path):
    async with scene(tmp_path) as (maize, _, _, open_raw):
        raw = await open_raw()
        good = seal(MALLORY, NETWORK, request(maize))
        bad = msgspec.structs.replace(good, signature=bytes(64))
        await raw.frames.send(codec.encode(bad))
        assert (await refusal(raw)).code == Code.BAD_SIGNATURE


async def test_what_another_node_signed_is_refused_by_code(autojump_clock, tmp_path):
    async with scene(tmp_path) as (maize, quinoa, _, open_raw):
        raw = await open_raw()
        await raw.say(request(maize), signer=quinoa.identity)
        assert (await refusal(raw)).code == Code.WRONG_SIGNER


async def test_a_request_sent_again_is_a_replay(autojump_clock, tmp_path):
    async with scene(tmp_path) as (maize, _, _, open_raw):
        for expected in (Quote, Refuse):
            raw = await open_raw()
            await raw.say(request(maize))
            said = await raw.hear()
            assert isinstance(said, expected)
        assert said.code == Code.REPLAYED


async def test_an_order_for_a_quote_of_another_stream_is_a_replay(autojump_clock, tmp_path):
    async with scene(tmp_path) as (maize, _, _, open_raw):
        one, two = await open_raw(), await open_raw()
        await one.say(request(maize))
        await two.say(request(maize, job=JobId(bytes(15) + b"2")))
        quote = await one.hear()
        assert isinstance(await two.hear(), Quote)
        await two.say(order(digest(codec.encode(quote))))
        assert (await refusal(two)).code == Code.REPLAYED
        assert not maize.inference.tasks


async def test_a_second_order_on_one_stream_stops_the_job(autojump_clock, tmp_path):
    async with scene(tmp_path) as (maize, _, _, open_raw):
        raw = await open_raw()
        await raw.say(request(maize))
        wanted = order(digest(codec.encode(await raw.hear())))
        await raw.say(wanted)
        assert isinstance(await raw.hear(), Started)
        await raw.say(wanted)
        while not isinstance(said := await raw.hear(), Refuse):
            assert said is not None
        assert said.code == Code.REPLAYED
        await trio.sleep(1)
        assert maize.inference.slots_free(MODEL) == 1


async def test_an_order_that_comes_too_late_has_expired(autojump_clock, tmp_path):
    async with scene(tmp_path) as (maize, _, _, open_raw):
        raw = await open_raw()
        await raw.say(request(maize))
        quote = await raw.hear()
        await trio.sleep(QUOTE_VALID_MS / 1000 + 1)
        assert (await refusal(raw)).code == Code.EXPIRED
        with pytest.raises(NetworkError):
            await say_and_hear(raw, order(digest(codec.encode(quote))))
        assert not maize.inference.tasks


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": Prompt((Message("user", "jello"),), "", ())},
        {"salt": digest(b"other salt")},
        {"r": digest(b"other r")},
        {"stop": ("\n",)},
        {"prefix_ids": (1, 2)},
    ],
)
async def test_an_order_that_does_not_keep_its_request(autojump_clock, tmp_path, changes):
    async with scene(tmp_path) as (maize, _, _, open_raw):
        raw = await open_raw()
        await raw.say(request(maize))
        await raw.say(order(digest(codec.encode(await raw.hear())), **changes))
        assert (await refusal(raw)).code == Code.PROMPT_MISMATCH
        assert not maize.inference.tasks


async def say_and_hear(raw: Raw, message) -> None:
    await raw.say(message)
    await to_the_end(raw)


async def to_the_end(raw: Raw) -> None:
    while await raw.frames.receive() is not None:
        pass
    raise NetworkError("The stream was closed in order.")


async def hang_up(raw: Raw) -> None:
    """Wait until the provider has ended the stream."""
    with pytest.raises(NetworkError):
        await to_the_end(raw)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"garbage that is no MessagePack",
        b"\x93\xa6signed",
        codec.encode(PROMPT),
        codec.encode(Signed(MALLORY.node, b"\x90", bytes(64))),
    ],
)
async def test_garbage_costs_the_stream_and_nothing_else(autojump_clock, tmp_path, data):
    async with scene(tmp_path) as (_, quinoa, _, open_raw):
        raw = await open_raw()
        await raw.frames.send(data)
        await hang_up(raw)
        assert (await asked(quinoa, job(quinoa)))[-1].reason == "stop"


async def test_a_message_of_the_wrong_type_in_mid_job_stops_the_model(autojump_clock, tmp_path):
    async with scene(tmp_path) as (maize, quinoa, _, open_raw):
        raw = await open_raw()
        await raw.say(request(maize))
        await raw.say(order(digest(codec.encode(await raw.hear()))))
        assert isinstance(await raw.hear(), Started)
        await raw.say(request(maize))
        await hang_up(raw)
        await trio.sleep(1)
        assert maize.inference.slots_free(MODEL) == 1
        assert (await asked(quinoa, job(quinoa)))[-1].reason == "stop"


async def test_who_breaks_the_rules_again_and_again_loses_the_connection(autojump_clock, tmp_path):
    async with scene(tmp_path) as (maize, quinoa, network, open_raw):
        for _ in range(FAILED_CHECKS_MAX + 1):
            raw = await open_raw()
            await raw.frames.send(b"\xc1")
            await hang_up(raw)
        await trio.sleep(0.1)
        assert maize.identity.node not in network.peers
        with pytest.raises(NetworkError):
            await network.connect(maize.network.addresses[0])
        assert (await asked(quinoa, job(quinoa)))[-1].reason == "stop"


async def test_one_requester_may_not_hold_all_places(autojump_clock, tmp_path):
    async with scene(tmp_path) as (maize, quinoa, _, open_raw):
        codes = []
        for number in range(12):
            raw = await open_raw()
            await raw.say(request(maize, job=JobId(bytes(15) + bytes([number]))))
            said = await raw.hear()
            codes.append(said.code if isinstance(said, Refuse) else "quote")
        assert codes == ["quote"] * 8 + [Code.QUOTA] * 4
        assert (await asked(quinoa, job(quinoa)))[-1].reason == "stop"


async def test_a_requester_that_is_silent_after_the_bill_is_let_go(autojump_clock, tmp_path):
    async with scene(tmp_path) as (maize, _, _, open_raw):
        raw = await open_raw()
        await raw.say(request(maize))
        await raw.say(order(digest(codec.encode(await raw.hear()))))
        await trio.sleep(60)
        assert maize.desk.tally.count == 0
        assert maize.records.records[0].code is Code.TIMEOUT


async def test_a_provider_that_advertises_a_gift_and_quotes_a_channel_is_refused(
    autojump_clock, tmp_path
):
    """No channel is at hand for it; our own provider never quotes so."""
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS, prices=(0, 0)) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)

        async def serve(stream) -> None:
            frames = FrameStream(stream)
            asked_for = job_body(job_frame(await frames.receive()), NETWORK, Request)
            quote = maize.desk.quote(asked_for.value, asked_for.id, R, PayTerms(2, False))
            said = seal(maize.identity, NETWORK, msgspec.structs.replace(quote, payment="channel"))
            await frames.send(codec.encode(said))
            await frames.receive()

        maize.network.serve(JOB_PROTOCOL, serve)
        end = (await asked(quinoa, job(quinoa)))[-1]
    assert [failure.code for failure in end.failures] == [Code.COST_EXCEEDED]
