"""Embeddings of a node: whole jobs over memory pipes with scripted encoders, split and mended."""

import re
import struct
from collections.abc import Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.api.backend import EmbedJob
from node.app.embed import Means, embedded, orders_of
from node.channels.base import PayTerms
from node.jobs.scripted import EmbedScript, scripted_vector
from node.storage.jobs import JobState
from protocol.errors import AyniError, Code, LocalError, RemoteError
from protocol.job.commitment import prompt_size
from protocol.job.kinds import EMBED, input_tokens_most
from protocol.job.terms import Prompt
from protocol.limits import PROMPT_BYTES_MAX, TEXTS_MAX
from protocol.pricing import cost
from tests.node.jobs.homes import NAME, PRICE_IN, WORDS, Home, World, introduce, open_home

DIED = LocalError(Code.WORKER_FAILED, "It died.")
TEXTS = tuple(f"text {number}" for number in range(10))


def job(texts: Sequence[str] = TEXTS, model: str = "", **changes) -> EmbedJob:
    return EmbedJob(model=model, texts=tuple(texts), **changes)


def means(home: Home, names: dict | None = None) -> Means:
    return Means(
        home.requester, home.market, lambda node: (names or {}).get(node, ""),
        home.around.random_bytes, 1_000_000,
    )  # fmt: skip


def tokens_of(texts: Sequence[str]) -> int:
    """As the scripted encoder counts."""
    return sum(len(text.encode()) for text in texts)


async def test_vectors_come_in_order_and_are_billed_by_what_was_read(autojump_clock, tmp_path):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, embeds=lambda task: EmbedScript()) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        found = await embedded(means(quinoa), job())
        await trio.testing.wait_all_tasks_blocked()
        assert found.vectors == tuple(scripted_vector(text) for text in TEXTS)
        assert found.model == NAME
        [order] = found.orders
        assert (order.provider, order.texts) == (maize.identity.node, len(TEXTS))
        paid = cost(tokens_of(TEXTS), 0, PRICE_IN, 0)
        assert (order.input_tokens, order.cost_microcredits) == (tokens_of(TEXTS), paid)
        [task] = maize.inference.tasks
        assert task.requester == quinoa.identity.node
    for home in (quinoa, maize):
        [record] = home.records.records
        assert record.state is JobState.DONE
        assert (record.tokens_in, record.tokens_out) == (tokens_of(TEXTS), 0)
        assert record.cost_microcredits == paid


async def test_many_texts_are_split_into_orders(autojump_clock, tmp_path):
    world = World()
    texts = ["x" * 300] * 900
    async with (
        open_home(world, "maize", tmp_path, embeds=lambda task: EmbedScript(512)) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        found = await embedded(means(quinoa), job(texts))
        assert [order.texts for order in found.orders] == [512, 388]
        assert len(found.vectors) == 900
        assert [len(task.texts) for task in maize.inference.tasks] == [512, 388]


async def test_what_one_provider_leaves_undone_another_does(autojump_clock, tmp_path):
    """maize is cheaper, and dies after its first four vectors."""
    world = World()
    dying = EmbedScript(batches_max=1, failure=DIED)
    async with (
        open_home(world, "maize", tmp_path, embeds=lambda task: dying, prices=(1, 1)) as maize,
        open_home(world, "potato", tmp_path, embeds=lambda task: EmbedScript()) as potato,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize, potato)
        found = await embedded(means(quinoa), job())
        assert found.vectors == tuple(scripted_vector(text) for text in TEXTS)
        assert [order.texts for order in found.orders] == [4, 6]
        assert [order.provider for order in found.orders] == [
            maize.identity.node,
            potato.identity.node,
        ]
        assert potato.inference.tasks[0].texts == TEXTS[4:]


async def test_vectors_that_all_came_are_given_though_the_order_then_failed(
    autojump_clock, tmp_path
):
    """They are signed for and owed, so it would be wrong to throw them away."""
    world = World()
    dying = EmbedScript(batches_max=3, failure=DIED)
    async with (
        open_home(world, "maize", tmp_path, embeds=lambda task: dying) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        found = await embedded(means(quinoa), job(provider=maize.identity.node))
    assert found.vectors == tuple(scripted_vector(text) for text in TEXTS)
    [order] = found.orders
    assert order.cost_microcredits == cost(tokens_of(TEXTS), 0, PRICE_IN, 0)


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 32, struct.pack("<2f", float("nan"), 1), struct.pack("<3f", 1, 1, 1), b"abc"],
)
async def test_a_provider_of_garbage_is_not_paid_and_another_is_asked(
    autojump_clock, tmp_path, garbage
):
    world = World()
    bad = EmbedScript(vector=lambda text: garbage)
    async with (
        open_home(world, "maize", tmp_path, embeds=lambda task: bad, prices=(1, 1)) as maize,
        open_home(world, "potato", tmp_path, embeds=lambda task: EmbedScript()) as potato,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize, potato)
        found = await embedded(means(quinoa), job())
        assert found.vectors == tuple(scripted_vector(text) for text in TEXTS)
        of_maize = [one for one in found.orders if one.provider == maize.identity.node]
        assert [(one.texts, one.cost_microcredits) for one in of_maize] == [(0, 0)]


async def test_where_all_fail_it_is_told_why(autojump_clock, tmp_path):
    world = World()
    # The order is begun at once, before its provider dies: no voucher of a prompt is waited for.
    world.channels.terms = PayTerms(2, is_prompt_first=False)
    dying = EmbedScript(batches_max=0, failure=DIED)
    async with (
        open_home(world, "maize", tmp_path, embeds=lambda task: dying) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        with pytest.raises(AyniError) as caught:
            await embedded(means(quinoa), job())
        with pytest.raises(RemoteError, match="It died") as named:
            await embedded(means(quinoa), job(provider=maize.identity.node))
    assert caught.value.code is Code.NO_PROVIDER
    assert named.value.code is Code.WORKER_FAILED


async def test_only_models_that_embed_are_asked_and_only_those_that_write_for_a_chat(
    autojump_clock, tmp_path
):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, lambda task: WORDS) as maize,
        open_home(world, "potato", tmp_path, embeds=lambda task: EmbedScript()) as potato,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        with pytest.raises(LocalError, match="embeddings") as caught:
            await embedded(means(quinoa), job())
        assert caught.value.code is Code.NO_PROVIDER
        introduce(quinoa, potato)
        found = await embedded(means(quinoa), job(model=NAME))
        again = await embedded(means(quinoa), job(model=found.model_id.hex()))
        assert again.vectors == found.vectors
        assert [order.provider for order in found.orders] == [potato.identity.node]
        assert quinoa.market.models_named("") == quinoa.market.models_named("", "embed")
        assert maize.inference.tasks == []


async def test_another_width_than_asked_for_is_refused_at_the_first_vector(
    autojump_clock, tmp_path
):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, embeds=lambda task: EmbedScript()) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        with pytest.raises(LocalError, match="16 numbers were asked for; this model's have 8"):
            await embedded(means(quinoa), job(width=16))
        found = await embedded(means(quinoa), job(width=8))
    assert len(found.vectors) == len(TEXTS)


async def test_a_cap_that_pays_for_no_text_is_refused_before_anybody_is_asked(
    autojump_clock, tmp_path
):
    world = World()
    async with (
        open_home(world, "maize", tmp_path, embeds=lambda task: EmbedScript()) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        with pytest.raises(LocalError) as caught:
            await embedded(means(quinoa), job(["x" * 4000], cost_max_microcredits=1))
        assert caught.value.code is Code.COST_EXCEEDED
        assert maize.inference.tasks == []


async def test_leaving_early_stops_the_provider(autojump_clock, tmp_path):
    world = World()
    slow = EmbedScript(batch_texts=1, batch_seconds=1)
    async with (
        open_home(world, "maize", tmp_path, embeds=lambda task: slow) as maize,
        open_home(world, "quinoa", tmp_path) as quinoa,
    ):
        introduce(quinoa, maize)
        with trio.move_on_after(3.5) as scope:
            await embedded(means(quinoa), job())
        assert scope.cancelled_caught
        assert trio.current_time() < 9
        await trio.sleep(1)
        assert maize.inference.slots_free(maize.inference.served[0].model) == 1
    assert quinoa.records.records[0].state is JobState.CANCELLED


texts_of_many_sizes = st.lists(
    st.integers(1, 70_000).map(lambda size: "é" * size), min_size=1, max_size=12
)


@given(texts_of_many_sizes, st.integers(1, 1300))
def test_orders_hold_all_texts_in_order_and_each_fits(texts, more):
    texts += ["a"] * more
    orders = orders_of(texts)
    assert [text for order in orders for text in order] == texts
    for order in orders:
        assert len(order) <= TEXTS_MAX
        size = prompt_size(Prompt((), "", tuple(order)))
        assert size <= PROMPT_BYTES_MAX
        assert input_tokens_most(EMBED, size) <= 2 * PROMPT_BYTES_MAX


def test_a_text_that_fits_no_order_is_refused():
    with pytest.raises(LocalError) as caught:
        orders_of(["a", "x" * PROMPT_BYTES_MAX])
    assert caught.value.code is Code.TOO_LARGE


def test_the_refusal_of_a_text_tells_its_size_and_the_largest_that_is_taken():
    with pytest.raises(LocalError) as caught:
        orders_of(["x" * (PROMPT_BYTES_MAX - 1)])
    has, most = map(int, re.findall(r"(\d+) bytes", caught.value.sentence))
    assert has == PROMPT_BYTES_MAX - 1
    assert orders_of(["x" * most]) == [["x" * most]]
    with pytest.raises(LocalError):
        orders_of(["x" * (most + 1)])
