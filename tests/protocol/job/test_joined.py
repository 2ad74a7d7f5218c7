"""Both machines together: whatever happens when, each ends once, and two good ends agree."""

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import Code
from protocol.job.checks import NO_PAYMENT, cost_worst
from protocol.job.commitment import RUNNING_START, running_hash
from protocol.job.seed import order_seed
from protocol.pricing import cost, cost_of_part
from tests.protocol.job.joint import Joint
from tests.protocol.samples import (
    ANSWER_IDS,
    ANSWER_TEXT,
    PROMPT_IDS,
    SHARE,
    SHARE_PROVIDER,
    agreement,
)

deals = st.builds(
    agreement,
    output_tokens_max=st.integers(1, 40),
    time_ms_max=st.sampled_from([0, 1, 400, 20_000, 60_000]),
    cost_max=st.integers(0, 400),
    prices=st.tuples(st.sampled_from([0, 2_000_000]), st.sampled_from([0, 1, 6_000_000])),
    chunk_tokens=st.integers(1, 16),
    is_prompt_first=st.booleans(),
)
token_ids = st.lists(st.integers(0, (1 << 31) - 1), max_size=40)
moves = st.lists(
    st.one_of(
        st.sampled_from(["deliver_to_provider", "deliver_to_requester"]).map(lambda name: (name,)),
        st.sampled_from(["deliver_to_provider", "deliver_to_requester"]).map(lambda name: (name,)),
        st.tuples(st.just("model_begins"), st.integers(0, 60)),
        st.tuples(st.just("model_says"), token_ids, st.text(max_size=5)),
        st.tuples(st.just("model_says"), token_ids.filter(len), st.text(max_size=5)),
        st.tuples(st.just("pass_time"), st.sampled_from([1, 100, 249, 250, 6_000, 31_000])),
        st.sampled_from(["model_ends", "model_fails", "cancel", "break_stream"]).map(
            lambda name: (name,)
        ),
    ),
    max_size=40,
)


def perform(joint: Joint, script: list[tuple]) -> None:
    for name, *arguments in script:
        getattr(joint, name)(*arguments)


def opening(joint: Joint) -> None:
    """Request, quote and order arrive, and the model begins."""
    joint.deliver_to_provider()
    joint.deliver_to_requester()
    joint.deliver_to_provider()
    joint.model_begins()


def check(joint: Joint) -> None:
    """What must hold of every job between two honest nodes, however it went."""
    finished, ended, request = joint.finished, joint.ended, joint.deal.request
    assert finished is not None
    assert joint.complaints == []
    assert joint.said_ids[: len(joint.heard_ids)] == joint.heard_ids
    assert joint.said_text.startswith(joint.heard_text)
    assert finished.cost <= request.cost_max
    assert finished.output_tokens <= len(joint.heard_ids) <= request.output_tokens_max
    assert finished.reason != "none" or finished.failures
    assert joint.paid == finished.cost <= cost_worst(request, joint.deal.quote)
    if ended is None:
        assert joint.paid == 0
        return
    assert joint.paid <= ended.cost
    joint.channel.check()
    if joint.counts_at_once and joint.deal.quote.payment != NO_PAYMENT:
        assert ended.lost == max(0, ended.cost - joint.channel.on_disk)
    assert ended.cost <= request.cost_max
    assert ended.output_tokens == len(joint.said_ids)
    assert finished.output_tokens <= ended.output_tokens
    assert finished.cost <= ended.cost
    if ended.receipted:
        assert finished.receipt is not None
        assert joint.paid == ended.cost
        assert ended.lost == 0
    if finished.receipt is not None:
        assert (joint.heard_ids, joint.heard_text) == (joint.said_ids, joint.said_text)
        bill = (ended.input_tokens, ended.output_tokens, ended.cost)
        assert bill == (finished.input_tokens, finished.output_tokens, finished.cost)
        receipt, quote = finished.receipt, joint.deal.quote
        assert bill == (receipt.input_tokens, receipt.output_tokens, receipt.cost)
        whole = cost(bill[0], bill[1], quote.price_in, quote.price_out)
        texts = len(joint.deal.order.prompt.texts)
        part = cost_of_part(whole, len(joint.heard_vectors), texts) if texts else whole
        assert receipt.cost == part
        assert finished.failures == ()


@given(deals, moves)
@settings(max_examples=400, deadline=None)
def test_whatever_happens_both_end_once_and_good_ends_agree(deal, script):
    joint = Joint(deal)
    perform(joint, script)
    joint.settle()
    check(joint)


@given(deals, moves)
@settings(max_examples=400, deadline=None)
def test_the_same_once_the_model_has_begun(deal, script):
    joint = Joint(deal)
    opening(joint)
    perform(joint, script)
    joint.settle()
    check(joint)


@given(
    st.lists(st.tuples(token_ids, st.text(max_size=5)), max_size=20),
    st.integers(1, 16),
    st.integers(0, 300),
)
@settings(max_examples=200, deadline=None)
def test_an_undisturbed_job_gives_every_token_and_both_sign(script, chunk_tokens, gap_ms):
    script = [(ids, text if ids else "") for ids, text in script]
    tokens = [token for ids, _ in script for token in ids]
    deal = agreement(output_tokens_max=max(1, len(tokens)), chunk_tokens=chunk_tokens)
    joint = Joint(deal)
    opening(joint)
    for ids, text in script:
        joint.model_says(ids, text)
        joint.pass_time(gap_ms)
    joint.model_ends()
    joint.settle()
    check(joint)
    assert joint.heard_ids == tokens
    assert joint.heard_text == "".join(text for _, text in script)
    assert joint.ended is not None
    assert joint.ended.receipted
    assert joint.finished is not None
    assert joint.finished.reason == "stop"


def test_an_answer_that_costs_nothing_ends_with_a_receipt():
    joint = Joint(agreement(cost_max=0, prices=(0, 0)))
    opening(joint)
    joint.model_says(ANSWER_IDS, ANSWER_TEXT)
    joint.model_ends()
    joint.settle()
    check(joint)
    assert joint.finished is not None
    assert joint.finished.receipt is not None
    assert joint.finished.cost == 0
    assert joint.finished.receipt.running == running_hash(RUNNING_START, 0, ANSWER_IDS, ANSWER_TEXT)


def test_the_cap_in_money_ends_the_answer_by_length():
    joint = Joint(agreement(cost_max=cost(len(PROMPT_IDS), 3, 2_000_000, 6_000_000)))
    opening(joint)
    for token in range(10):
        joint.model_says([token], "x")
    joint.settle()
    check(joint)
    assert joint.finished is not None
    assert (joint.finished.reason, joint.heard_ids) == ("length", [0, 1, 2])
    assert not joint.model_runs


def test_a_cancel_is_billed_for_what_was_said():
    joint = Joint(agreement())
    opening(joint)
    joint.model_says(ANSWER_IDS, ANSWER_TEXT)
    joint.deliver_to_requester()  # Started.
    joint.cancel()
    joint.model_says([9], " and")  # On its way before the cancel is.
    joint.settle()
    check(joint)
    assert joint.finished is not None
    assert joint.finished.reason == "cancelled"
    assert joint.finished.receipt is not None
    assert joint.heard_ids == [*ANSWER_IDS, 9]
    assert not joint.model_runs


def test_a_worker_that_dies_in_mid_answer_fails_the_job_with_its_code():
    joint = Joint(agreement())
    opening(joint)
    joint.model_says(ANSWER_IDS, ANSWER_TEXT)
    joint.model_fails()
    joint.settle()
    check(joint)
    assert joint.finished is not None
    assert joint.finished.reason == "none"
    assert joint.finished.failures[-1].code is Code.WORKER_FAILED
    assert joint.heard_text == ANSWER_TEXT


def test_both_shares_make_the_seed():
    joint = Joint(agreement())
    opening(joint)
    assert joint.seed == order_seed("drawn", SHARE, SHARE_PROVIDER, joint.deal.terms)
