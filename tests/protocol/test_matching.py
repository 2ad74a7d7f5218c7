"""Matching: who is left after the filter, and an order that does not depend on chance."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.capacity import Advert
from protocol.ids import JobId, ModelId, NodeId
from protocol.matching import SECOND_MICROCREDITS, Wish, rank
from protocol.pricing import cost
from tests.protocol.samples import ADVERT, JOB, MODEL, OFFER

OTHER_MODEL = ModelId(bytes(32))
MODES = ["cpu-f32/gguf", "cuda-bf16/gguf"]
KINDS = ["generate", "generate", "embed"]
NODES = [NodeId(bytes([number]) * 32) for number in range(1, 8)]

offers = st.builds(
    lambda model, kind, mode, context, price_in, price_out, rate, slots, free: replace(
        OFFER,
        model=model,
        kind=kind,
        mode=mode,
        context_tokens=context,
        price_in=price_in,
        price_out=price_out,
        decode_millitokens_per_second=rate,
        slots=slots,
        slots_free=free,
    ),
    st.sampled_from([MODEL, OTHER_MODEL]),
    st.sampled_from(KINDS),
    st.sampled_from(MODES),
    st.sampled_from([0, 16, 8192]),
    st.integers(0, 4_000_000),
    st.integers(0, 9_000_000),
    st.sampled_from([0, 1000, 20_000, 90_000]),
    st.integers(0, 3),
    st.integers(0, 3),
)
adverts = st.builds(
    lambda models, sharing: replace(ADVERT, models=tuple(models), sharing=sharing),
    st.lists(offers, max_size=3),
    st.sampled_from(["on", "on", "on", "off", "paused", "draining"]),
)
directories = st.dictionaries(st.sampled_from(NODES), adverts, max_size=7)
wishes = st.builds(
    Wish,
    st.binary(min_size=16, max_size=16).map(JobId),
    st.lists(st.sampled_from([MODEL, OTHER_MODEL]), max_size=2),
    st.lists(st.sampled_from(MODES), max_size=2),
    st.integers(0, 40),
    st.integers(0, 200),
    st.integers(0, 2000),
    st.none() | st.sampled_from(NODES),
    st.sampled_from(KINDS),
)
running = st.dictionaries(st.sampled_from(NODES), st.integers(0, 3))


def wish(**changes) -> Wish:
    plain = {
        "job": JOB,
        "models": [],
        "modes": [],
        "prompt_tokens": 10,
        "output_tokens": 100,
        "cost_max": 10**9,
    }
    return Wish(**{**plain, **changes})


def advert(**changes) -> Advert:
    return replace(ADVERT, models=(replace(OFFER, **changes),))


@given(wishes, directories, running, st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_the_order_of_arrival(asked, directory, orders, random):
    shuffled = list(directory.items())
    random.shuffle(shuffled)
    assert rank(asked, directory, orders) == rank(asked, dict(shuffled), orders)


@given(wishes, directories, running)
def test_only_and_all_that_fit_are_left(asked, directory, orders):
    found = {
        (node, offer)
        for node, each in directory.items()
        for offer in each.models
        if each.sharing == "on"
        and asked.provider in (None, node)
        and offer.kind == asked.kind
        and offer.model in (asked.models or [offer.model])
        and offer.mode in (asked.modes or [offer.mode])
        and (asked.kind == "embed" or asked.prompt_tokens < offer.context_tokens)
        and offer.slots > 0
        and cost(asked.prompt_tokens, min(1, asked.output_tokens), offer.price_in, offer.price_out)
        <= asked.cost_max
    }
    assert {(each.node, each.offer) for each in rank(asked, directory, orders)} == found


@given(wishes, directories, running)
def test_free_ones_come_first_and_cheap_or_quick_ones_before_others(asked, directory, orders):
    ranked = rank(asked, directory, orders)
    worth = [each.cost + each.ms * SECOND_MICROCREDITS // 1000 for each in ranked]
    keys = [(not each.free, value) for each, value in zip(ranked, worth, strict=True)]
    assert keys == sorted(keys)
    for each in ranked:
        slots = min(each.offer.slots_free, each.offer.slots - orders.get(each.node, 0))
        assert each.free == (slots > 0)


def test_our_own_orders_count_before_the_advert_knows_of_them():
    directory = {NODES[0]: advert(slots=2, slots_free=2), NODES[1]: advert(slots=2, slots_free=2)}
    first = rank(wish(), directory, {})[0].node
    other = next(node for node in directory if node != first)
    assert rank(wish(), directory, {first: 2})[0].node == other
    assert [each.free for each in rank(wish(), directory, {first: 2, other: 2})] == [False, False]


def test_equal_providers_share_the_jobs():
    directory = dict.fromkeys(NODES, ADVERT)
    firsts = {
        rank(wish(job=JobId(bytes([number]) * 16)), directory, {})[0].node for number in range(64)
    }
    assert firsts == set(NODES)


def test_twice_as_fast_may_cost_more():
    slow = advert(price_out=6_000_000, decode_millitokens_per_second=10_000)
    fast = advert(price_out=9_000_000, decode_millitokens_per_second=20_000)
    # 100 tokens: 10 s at 600 against 5 s at 900 microcredits, a second being worth a thousand.
    assert rank(wish(), {NODES[0]: slow, NODES[1]: fast}, {})[0].node == NODES[1]
    dear = advert(price_out=60_000_000, decode_millitokens_per_second=20_000)
    assert rank(wish(), {NODES[0]: slow, NODES[1]: dear}, {})[0].node == NODES[0]


def test_a_rate_of_nought_is_slow_and_no_division_by_it():
    unmeasured = advert(decode_millitokens_per_second=0)
    assert rank(wish(), {NODES[0]: unmeasured, NODES[1]: ADVERT}, {})[-1].node == NODES[0]
