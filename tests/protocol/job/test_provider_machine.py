"""ProviderJob alone: each path by example, and any events at any time."""

import pytest
from msgspec.structs import replace

from protocol.errors import Code
from protocol.ids import MessageId
from protocol.job.commitment import RUNNING_START
from protocol.job.logprob import Logprob
from protocol.job.provider import ProviderJob
from protocol.job.provider_actions import Action, End, RefuseIt, RunModel, Say, StopModel
from protocol.job.provider_events import (
    CancelCame,
    ModelBegan,
    ModelEnded,
    ModelFailed,
    ModelSaid,
    OrderCame,
    ReceiptCame,
    RefuseCame,
    RequesterLost,
    TimePassed,
)
from protocol.job.rows import leaf, root
from protocol.job.terms import Chunk, Delta, Message, Prompt, Receipt, Started
from protocol.job.window import Window
from protocol.limits import KEEPALIVE_MS, PROVIDER_WAIT_MS_MAX
from protocol.pricing import cost
from tests.protocol.samples import REFUSE, Agreement, agreement

DEAL = agreement()
BEGAN = ModelBegan(7, bytes(32))


def came(deal: Agreement = DEAL, **changes) -> OrderCame:
    """The order, on a channel whose window is never in the way."""
    return OrderCame(replace(deal.order, **changes), deal.order_id, Window(1 << 20, 0))


def job_at(stage: str, deal: Agreement = DEAL) -> ProviderJob:
    """A job that has come to a stage by time 1000: quoted, admitted, running or billed."""
    job = ProviderJob(deal.request, deal.request_id, deal.quote, deal.quote_id, 0)
    if stage == "quoted":
        return job
    job.handle(came(deal), 1000)
    if stage == "admitted":
        return job
    job.handle(BEGAN, 1000)
    if stage == "running":
        return job
    assert stage == "billed"
    job.handle(ModelSaid([1, 2], "hi"), 1000)
    job.handle(ModelEnded("stop"), 1000)
    return job


def said(actions: list[Action]) -> list[object]:
    return [action.message for action in actions if isinstance(action, Say)]


def end_of(actions: list[Action]) -> End:
    assert isinstance(actions[-1], End)
    return actions[-1]


def test_a_chunk_is_signed_with_the_root_over_the_rows_of_its_tokens():
    size = DEAL.quote.chunk_tokens
    ids = list(range(size + 2))
    leaves = [leaf(t, b"row") for t in ids]
    job = job_at("running")
    first = said(job.handle(ModelSaid(ids, "hi", (), leaves), 1000))
    last = said(job.handle(ModelEnded("stop"), 1000))
    chunks = [each for each in (*first, *last) if isinstance(each, Chunk)]
    assert [each.root for each in chunks] == [root(leaves[:size]), root(leaves[size:])]
    mixed = job_at("running")
    mixed.handle(ModelSaid([1], "a", (), leaves[:1]), 1000)
    mixed.handle(ModelSaid([2], "b"), 1000)  # Of this one no row is known.
    chunk = said(mixed.handle(ModelEnded("stop"), 1000))[0]
    assert isinstance(chunk, Chunk)
    assert chunk.root == b""


def test_probabilities_go_out_with_the_tokens_that_they_are_of():
    """Also when one step of the model has more tokens than a chunk."""
    size = DEAL.quote.chunk_tokens
    ids = tuple(range(size + 2))
    places = [(Logprob(token, b"x", -token),) for token in ids]
    job = job_at("running")
    deltas = [
        each
        for each in said(job.handle(ModelSaid(ids, "x", places), 1000))
        if isinstance(each, Delta)
    ]
    assert [len(delta.ids) for delta in deltas] == [size, 2]
    for delta in deltas:
        assert tuple(place[0].token for place in delta.logprobs) == delta.ids


def test_an_order_runs_the_model_and_a_beginning_is_said():
    job = job_at("quoted")
    (run,) = job.handle(came(), 10)
    assert isinstance(run, RunModel)
    assert run.order == DEAL.order
    assert said(job.handle(BEGAN, 20)) == [Started(DEAL.order_id, 7, bytes(32))]
    assert job.order_id == DEAL.order_id


def test_a_chunk_closes_when_it_is_full_old_or_the_last():
    job = job_at("running", agreement(chunk_tokens=2))
    kinds = [type(message) for message in said(job.handle(ModelSaid([1], "a"), 1000))]
    assert kinds == [Delta]
    kinds = [type(message) for message in said(job.handle(ModelSaid([2], "b"), 1100))]
    assert kinds == [Delta, Chunk]
    job.handle(ModelSaid([3], "c"), 1200)
    assert job.wake_at == 1200 + 250
    assert job.handle(TimePassed(), 1449) == []
    (old,) = said(job.handle(TimePassed(), 1450))
    assert isinstance(old, Chunk)
    assert (old.ids, old.first_t, old.finish) == ((3,), 2, "none")
    last, bill = said(job.handle(ModelEnded("stop"), 1500))
    assert isinstance(last, Chunk)
    assert (last.ids, last.first_t, last.finish) == ((), 3, "stop")
    assert isinstance(bill, Receipt)
    assert (bill.input_tokens, bill.output_tokens, bill.cost) == (7, 3, last.cost)
    assert (bill.ms_first, bill.ms_total) == (0, 500)


def test_many_tokens_at_once_are_cut_into_chunks():
    job = job_at("running", agreement(chunk_tokens=4))
    job.handle(ModelSaid([9], "x"), 1000)
    messages = said(job.handle(ModelSaid(list(range(10)), "text"), 1000))
    chunks = [message.ids for message in messages if isinstance(message, Chunk)]
    assert chunks == [(9,), (0, 1, 2, 3), (4, 5, 6, 7)]
    assert "".join(message.text for message in messages if isinstance(message, Delta)) == "text"


def test_silence_of_the_model_is_bridged_by_empty_deltas():
    job = job_at("running")
    assert job.wake_at == 1000 + KEEPALIVE_MS
    assert said(job.handle(TimePassed(), 1000 + KEEPALIVE_MS)) == [Delta(DEAL.order_id, (), "")]
    assert job.wake_at == 1000 + 2 * KEEPALIVE_MS


def test_a_countersigned_receipt_ends_it_well():
    job = job_at("running")
    job.handle(ModelSaid([1, 2], "hi"), 1000)
    bill = said(job.handle(ModelEnded("stop"), 1000))[-1]
    assert isinstance(bill, Receipt)
    end = end_of(job.handle(ReceiptCame(bill), 1100))
    assert (end.code, end.receipted, end.output_tokens, end.cost) == (None, True, 2, bill.cost)
    assert end.finish == "stop"
    assert job.wake_at is None


@pytest.mark.parametrize("field", ["cost", "output_tokens", "millijoules", "ms_total"])
def test_another_receipt_than_ours_is_a_dispute(field):
    job = job_at("running")
    bill = said(job.handle(ModelEnded("stop"), 1000))[-1]
    assert isinstance(bill, Receipt)
    other = replace(bill, **{field: getattr(bill, field) + 1})
    end = end_of(job.handle(ReceiptCame(other), 1100))
    assert (end.code, end.receipted) == (Code.RECEIPT_DISPUTED, False)


def test_a_refused_receipt_is_a_dispute_and_a_refusal_before_it_a_cancel():
    disputed = RefuseCame(replace(REFUSE, code="RECEIPT_DISPUTED"))
    assert end_of(job_at("billed").handle(disputed, 1100)).code is Code.RECEIPT_DISPUTED
    actions = job_at("running").handle(RefuseCame(REFUSE), 1100)
    assert actions[0] == StopModel()
    assert end_of(actions).code is Code.CANCELLED


def test_a_requester_that_never_countersigns_is_waited_for_so_long_only():
    job = job_at("billed")
    assert job.wake_at == 1000 + PROVIDER_WAIT_MS_MAX
    assert end_of(job.handle(TimePassed(), 1000 + PROVIDER_WAIT_MS_MAX)).code is Code.TIMEOUT


def test_a_quote_expires():
    job = job_at("quoted")
    assert job.wake_at == DEAL.quote.valid_ms
    refusal, end = job.handle(TimePassed(), DEAL.quote.valid_ms)
    assert isinstance(refusal, RefuseIt)
    assert (refusal.code, end_of([end]).code) == (Code.EXPIRED, Code.EXPIRED)


def test_an_order_after_the_quote_expired_is_refused():
    actions = job_at("quoted").handle(came(), DEAL.quote.valid_ms + 1)
    assert not any(isinstance(action, RunModel) for action in actions)
    assert end_of(actions).code is Code.EXPIRED


@pytest.mark.parametrize("stage", ["admitted", "running", "billed"])
def test_an_order_that_comes_again_is_a_replay(stage):
    actions = job_at(stage).handle(came(), 1001)
    assert any(isinstance(a, RefuseIt) and a.code is Code.REPLAYED for a in actions)
    assert not any(isinstance(a, RunModel) for a in actions)
    assert any(isinstance(a, StopModel) for a in actions) == (stage != "billed")
    assert end_of(actions).code is Code.REPLAYED


def test_an_order_of_another_quote_is_a_replay():
    other = came(quote=MessageId(bytes(32)))
    assert end_of(job_at("quoted").handle(other, 1)).code is Code.REPLAYED


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": Prompt((Message("user", "Why is the sky red? "),), "", ())},
        {"prompt": Prompt((), "Why is the sky blue?", ())},
        {"prompt": Prompt((), "", ())},
        {"salt": bytes(32)},
        {"r": bytes(32)},
        {"stop": ("END",)},
        {"prefix_ids": (1,)},
    ],
    ids=lambda changes: f"{changes}"[:40],
)
def test_an_order_that_does_not_keep_its_request_is_refused(changes):
    order = came(**changes)
    actions = job_at("quoted").handle(order, 1)
    assert isinstance(actions[0], RefuseIt)
    assert end_of(actions).code is Code.PROMPT_MISMATCH


def test_a_prompt_that_costs_more_than_the_cap_never_starts():
    deal = agreement(cost_max=cost(7, 1, 2_000_000, 6_000_000) - 1)
    stop, refusal, end = job_at("admitted", deal).handle(BEGAN, 1001)
    assert stop == StopModel()
    assert isinstance(refusal, RefuseIt)
    assert end_of([end]).code is Code.COST_EXCEEDED
    enough = agreement(cost_max=cost(7, 1, 2_000_000, 6_000_000))
    assert said(job_at("admitted", enough).handle(BEGAN, 1001))


def test_time_over_before_the_model_began_is_a_timeout_and_after_it_a_bill():
    deal = agreement(time_ms_max=3000)
    actions = job_at("admitted", deal).handle(TimePassed(), 4000)
    assert end_of(actions).code is Code.TIMEOUT
    job = job_at("running", deal)
    job.handle(ModelSaid([1], "a"), 3990)
    assert job.wake_at == 4000
    stop, *rest = job.handle(TimePassed(), 4000)
    assert stop == StopModel()
    chunk, bill = said(rest)
    assert isinstance(chunk, Chunk)
    assert (chunk.finish, chunk.ids) == ("length", (1,))
    assert isinstance(bill, Receipt)
    assert bill.output_tokens == 1


@pytest.mark.parametrize(
    ("event", "code"),
    [(CancelCame(), Code.CANCELLED), (RequesterLost(), Code.LOST)],
    ids=["cancel", "lost"],
)
def test_before_the_beginning_a_cancel_or_a_loss_just_stops_the_model(event, code):
    stop, end = job_at("admitted").handle(event, 1001)
    assert stop == StopModel()
    assert (end_of([end]).code, end_of([end]).cost) == (code, 0)


def test_a_cancel_in_mid_answer_is_billed_and_a_late_one_ignored():
    job = job_at("running")
    job.handle(ModelSaid([1], "a"), 1001)
    stop, *rest = job.handle(CancelCame(), 1002)
    assert stop == StopModel()
    chunk, bill = said(rest)
    assert isinstance(chunk, Chunk)
    assert (chunk.finish, chunk.ids) == ("cancelled", (1,))
    assert isinstance(bill, Receipt)
    assert job.handle(CancelCame(), 1003) == []


def test_a_model_that_fails_refuses_with_its_code():
    refusal, end = job_at("running").handle(ModelFailed(Code.WORKER_FAILED, "It died."), 1001)
    assert refusal == RefuseIt(Code.WORKER_FAILED, "It died.")
    assert end_of([end]).code is Code.WORKER_FAILED


def test_a_receipt_before_the_bill_ends_it():
    bill = Receipt(DEAL.order_id, 7, 0, 14, RUNNING_START, 0, "none", 0, 0)
    assert end_of(job_at("running").handle(ReceiptCame(bill), 1001)).code is Code.UNEXPECTED
