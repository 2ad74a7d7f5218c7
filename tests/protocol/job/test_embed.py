"""Embeds: what is asked, what a requester takes, and both machines joined, whatever happens."""

import math
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from protocol import codec
from protocol.errors import Code, RemoteError
from protocol.job.checks import check_order, check_request, cost_worst
from protocol.job.commitment import RUNNING_START, prompt_size, running_hash_vectors
from protocol.job.kinds import EMBED, input_tokens_most, kind_of, model_kind
from protocol.job.terms import Chunk, Delta, Message, Prompt, Receipt
from protocol.job.vectors import check_vectors, vectors_grouped
from protocol.limits import (
    CHUNK_VECTORS_BYTES_MAX,
    CHUNK_VECTORS_MAX,
    TEXTS_MAX,
    VECTOR_BYTES_MAX,
)
from protocol.messages import BODY_BYTES_MAX
from protocol.pricing import cost
from tests.protocol.job.joint import Joint, honest
from tests.protocol.job.test_joined import check, opening, perform
from tests.protocol.samples import (
    CHUNK,
    NETWORK,
    PROMPT_IDS,
    PROVIDER,
    Agreement,
    agreement,
)

TEXTS = ("a", "the sky", "¿por qué?")
WRONG = bytes([1]) * 32


def deal_of(texts: Sequence[str] = TEXTS, **changes) -> Agreement:
    plain = {"prompt": Prompt((), "", tuple(texts)), "output_tokens_max": 0, "stop": ()}
    return agreement(**{**plain, **changes})


def vector(number: int, width: int = 4) -> bytes:
    """One of length 1."""
    raw = [math.sin(number + place) for place in range(width)]
    length = math.hypot(*raw)
    return struct.pack(f"<{width}f", *(each / length for each in raw))


def vectors(count: int, first: int = 0, width: int = 4) -> list[bytes]:
    return [vector(number, width) for number in range(first, first + count)]


# What is asked.


def test_a_prompt_says_its_kind_and_the_kind_says_its_model():
    prompts = [Prompt((Message("user", "x"),), "", ()), Prompt((), "x", ()), Prompt((), "", ("x",))]
    assert [kind_of(prompt) for prompt in prompts] == ["chat", "completion", "embed"]
    assert [model_kind(kind_of(one)) for one in prompts] == ["generate", "generate", "embed"]


@pytest.mark.parametrize(("kind", "tokens"), [("embed", 1), ("chat", 0), ("completion", 0)])
def test_a_request_for_a_length_that_its_kind_does_not_have_is_refused(kind, tokens):
    request = replace(deal_of().request, kind=kind, output_tokens_max=tokens)
    with pytest.raises(RemoteError) as caught:
        check_request(request, NETWORK, PROVIDER.node)
    assert caught.value.code is Code.BAD_MESSAGE
    check_request(deal_of().request, NETWORK, PROVIDER.node)


@pytest.mark.parametrize(
    ("prompt", "stop"),
    [
        (Prompt((), "a", TEXTS), ()),
        (Prompt((Message("user", "a"),), "", TEXTS), ()),
        (Prompt((), "", TEXTS), ("END",)),
        (Prompt((), "", ("a", "the sky", "¿por que?")), ()),
    ],
)
def test_an_order_that_is_no_embed_is_refused(prompt, stop):
    deal = deal_of()
    check_order(deal.order, deal.request)
    with pytest.raises(RemoteError) as caught:
        check_order(replace(deal.order, prompt=prompt, stop=stop), deal.request)
    assert caught.value.code is Code.PROMPT_MISMATCH


texts_of_any_length = st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=40)


@given(texts_of_any_length)
def test_the_bound_on_input_tokens_lets_a_token_a_byte_and_two_ends_a_text_through(texts):
    prompt = Prompt((), "", tuple(texts))
    most = sum(len(text.encode()) + 2 for text in texts)
    assert most <= input_tokens_most(EMBED, prompt_size(prompt))


def test_the_worst_cost_of_an_embed_is_of_its_input_alone():
    deal = deal_of()
    tokens = input_tokens_most(EMBED, deal.request.prompt_bytes)
    assert cost_worst(deal.request, deal.quote) == cost(tokens, 0, deal.quote.price_in, 0)


# Vectors.


@given(st.integers(0, 200), st.sampled_from([1, 4, 384, 1024, VECTOR_BYTES_MAX // 4]))
@settings(deadline=None)
def test_vectors_are_grouped_in_order_and_each_group_fits_a_chunk(count, width):
    made = [number.to_bytes(4, "little") * width for number in range(count)]
    groups = list(vectors_grouped(made))
    assert [one for group in groups for one in group] == made
    for group in groups:
        assert 0 < len(group) <= CHUNK_VECTORS_MAX
        assert sum(map(len, group)) <= CHUNK_VECTORS_BYTES_MAX
        largest = replace(CHUNK, vectors=group, cost=1 << 62, first_t=1 << 30, finish="cancelled")
        assert len(codec.encode(largest)) <= BODY_BYTES_MAX[Chunk]


@given(st.lists(st.floats(width=32), min_size=1, max_size=8))
def test_only_numbers_of_length_one_are_taken(raw):
    data = struct.pack(f"<{len(raw)}f", *raw)
    squared = sum(number * number for number in raw)
    if math.isfinite(squared) and abs(squared - 1) <= 2e-3:
        check_vectors([data], 0)
    else:
        with pytest.raises(RemoteError) as caught:
            check_vectors([data], 0)
        assert caught.value.code is Code.CONTRADICTION


@pytest.mark.parametrize(
    ("given_", "before"),
    [
        ([vector(1, 4), vector(2, 5)], 0),
        ([vector(1, 4)], 20),
        ([vector(1, 4)[:-1]], 0),
        ([b""], 0),
        ([struct.pack("<2f", math.nan, 1)], 0),
        ([struct.pack("<2f", math.inf, 0)], 0),
    ],
)
def test_vectors_of_two_widths_or_of_no_numbers_are_refused(given_, before):
    with pytest.raises(RemoteError) as caught:
        check_vectors(given_, before)
    assert caught.value.code is Code.CONTRADICTION


# Both machines.

many = st.lists(st.just("x"), min_size=1, max_size=70)
deals = st.builds(
    deal_of,
    texts=many,
    time_ms_max=st.sampled_from([0, 1, 400, 60_000]),
    cost_max=st.integers(0, 400),
    prices=st.tuples(st.sampled_from([0, 2_000_000]), st.sampled_from([0, 6_000_000])),
)
moves = st.lists(
    st.one_of(
        st.sampled_from(["deliver_to_provider", "deliver_to_requester"]).map(lambda name: (name,)),
        st.tuples(st.just("model_begins"), st.integers(0, 60)),
        st.tuples(st.just("model_embeds"), st.integers(0, 40).map(vectors)),
        st.tuples(st.just("model_embeds"), st.integers(1, 40).map(vectors)),
        st.tuples(st.just("pass_time"), st.sampled_from([1, 250, 6_000, 31_000])),
        st.sampled_from(["model_ends", "model_fails", "cancel", "break_stream"]).map(
            lambda name: (name,)
        ),
    ),
    max_size=30,
)


@given(deals, moves, st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_happens_both_end_once_and_good_ends_agree(deal, script, begun):
    joint = Joint(deal)
    if begun:
        opening(joint)
    perform(joint, script)
    joint.settle()
    check(joint)
    assert joint.said_vectors[: len(joint.heard_vectors)] == joint.heard_vectors
    assert joint.finished is not None
    assert joint.finished.output_tokens == 0
    if joint.finished.reason == "stop":
        assert len(joint.heard_vectors) == len(deal.order.prompt.texts)


@given(st.integers(1, TEXTS_MAX), st.integers(1, 100), st.integers(0, 6_000))
@settings(max_examples=20, deadline=None)
def test_an_undisturbed_embed_gives_every_vector_and_both_sign(count, batch, gap_ms):
    joint = Joint(deal_of(["x"] * count, time_ms_max=3_600_000))
    opening(joint)
    made = vectors(count)
    for start in range(0, count, batch):
        joint.model_embeds(made[start : start + batch])
        while joint.to_requester:
            joint.deliver_to_requester()
        joint.pass_time(gap_ms)
    joint.model_ends()
    joint.settle()
    check(joint)
    assert joint.heard_vectors == made
    assert joint.finished is not None
    assert joint.finished.reason == "stop"
    assert joint.finished.cost == cost(len(PROMPT_IDS), 0, 2_000_000, 0)
    assert joint.ended is not None
    assert joint.ended.receipted


@pytest.mark.parametrize("made", [2, 4])
def test_a_model_with_too_few_or_too_many_vectors_fails_the_job(made):
    joint = Joint(deal_of())
    opening(joint)
    joint.model_embeds(vectors(made))
    joint.model_ends()
    joint.settle()
    check(joint)
    assert joint.finished is not None
    assert joint.finished.failures[-1].code is Code.WORKER_FAILED


def garbage(message: Struct, made: Sequence[bytes]) -> Sequence[Struct]:
    """Other vectors than the model's, with a running hash that fits what is signed."""
    if isinstance(message, Chunk) and message.vectors:
        running = running_hash_vectors(RUNNING_START, 0, made)
        return [replace(message, vectors=tuple(made), running=running)]
    return [message]


def changed(message: Struct, **changes: object) -> Sequence[Struct]:
    return [replace(message, **changes)] if isinstance(message, Chunk) else [message]


def early_end(message: Struct) -> Sequence[Struct]:
    """As if the last text were not there."""
    if not isinstance(message, Chunk | Receipt):
        return [message]
    made = vectors(2)
    running = running_hash_vectors(RUNNING_START, 0, made)
    if isinstance(message, Receipt):
        return [replace(message, running=running)]
    if message.finish == "none":
        return [replace(message, vectors=tuple(made), running=running, finish="stop")]
    return []


def tokens_too(message: Struct) -> Sequence[Struct]:
    if isinstance(message, Chunk) and message.vectors:
        return [Delta(message.order, (7,), "x", ()), message]
    return [message]


MISTAKES = {
    "not of length one": lambda m: garbage(m, [struct.pack("<4f", 1, 1, 0, 0)] * 3),
    "not a number": lambda m: garbage(m, [struct.pack("<4f", math.nan, 1, 0, 0)] * 3),
    "of two widths": lambda m: garbage(m, [vector(0), vector(1), vector(2, 5)]),
    "one too many": lambda m: garbage(m, vectors(4)),
    "an end before the last text": early_end,
    "a hash of others": lambda m: changed(m, running=WRONG),
    "another place": lambda m: changed(m, first_t=1),
    "other terms": lambda m: changed(m, terms=WRONG),
    "a cost of one more": lambda m: changed(m, cost=CHUNK.cost + 1000),
    "a root over nothing": lambda m: changed(m, root=WRONG),
    "tokens in a chunk": lambda m: changed(m, ids=(1,)),
    "tokens in a delta": tokens_too,
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_provider_that_sends_garbage_is_refused_and_not_paid_for_it(name):
    joint = Joint(deal_of(), MISTAKES[name])
    opening(joint)
    joint.model_embeds(vectors(3))
    joint.model_ends()
    joint.settle()
    assert joint.complaints == [Code.CONTRADICTION]
    assert joint.paid == 0
    assert joint.heard_vectors == []
    assert joint.finished is not None
    assert joint.finished.receipt is None


def test_vectors_as_an_answer_to_a_chat_are_refused():
    joint = Joint(agreement(), lambda m: changed(m, vectors=(vector(0),)))
    opening(joint)
    joint.model_says([1], "x")
    joint.model_ends()
    joint.settle()
    assert joint.complaints == [Code.CONTRADICTION]
    assert joint.heard_vectors == []


def test_an_honest_provider_is_not():
    joint = Joint(deal_of(), honest)
    opening(joint)
    joint.model_embeds(vectors(3))
    joint.model_ends()
    joint.settle()
    assert joint.complaints == []
    assert joint.paid > 0
