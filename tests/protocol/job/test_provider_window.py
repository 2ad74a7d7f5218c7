"""ProviderJob and the window of its channel: what is held back, what is lost, what is spent."""

import pytest

from protocol.errors import Code
from protocol.job.checks import prompt_first
from protocol.job.provider import ProviderJob
from protocol.job.provider_actions import Action, End, RefuseIt, RunModel, Say, StopModel
from protocol.job.provider_events import (
    CancelCame,
    ModelEnded,
    ModelFailed,
    ModelSaid,
    Paid,
    RequesterLost,
    TimePassed,
    VoucherCounted,
    VoucherFailed,
)
from protocol.job.terms import Chunk, Delta, Receipt, Started
from protocol.job.window import Window
from protocol.ledger.voucher import voucher_note
from protocol.limits import PROVIDER_WAIT_MS_MAX
from protocol.pricing import cost
from tests.protocol.job.test_provider_property import BEGAN, came
from tests.protocol.samples import Agreement, agreement

DEAL = agreement(chunk_tokens=2)
FIRST = agreement(chunk_tokens=2, is_prompt_first=True)
AHEAD = prompt_first(FIRST.request, FIRST.quote)
PROMPT_NOTE = voucher_note(FIRST.quote_id, 0)


def running(window: Window, deal: Agreement = DEAL) -> ProviderJob:
    job = ProviderJob(deal.request, deal.request_id, deal.quote, deal.quote_id, 0)
    job.handle(came(deal, window), 0)
    if deal is FIRST:
        window.pay(AHEAD)
        job.handle(VoucherCounted(PROMPT_NOTE), 0)
    job.handle(BEGAN, 0)
    return job


def said(actions: list[Action]) -> list[object]:
    return [action.message for action in actions if isinstance(action, Say)]


def kinds(actions: list[Action]) -> list[type]:
    return [type(message) for message in said(actions)]


def end_of(actions: list[Action]) -> End:
    assert isinstance(actions[-1], End)
    return actions[-1]


def price(tokens: int, deal: Agreement = DEAL) -> int:
    return cost(7, tokens, deal.quote.price_in, deal.quote.price_out)


def counted(job: ProviderJob, window: Window, tokens: int, now: int) -> list[Action]:
    window.pay(price(tokens))
    assert job.handle(VoucherCounted(voucher_note(DEAL.order_id, tokens)), now) == []
    return job.handle(Paid(), now)


def test_output_beyond_the_window_is_held_back_previews_and_all_until_a_voucher_is_counted():
    window = Window(2, 0)
    job = running(window)
    assert kinds(job.handle(ModelSaid([1, 2, 3, 4, 5, 6], "x"), 1)) == [Delta, Chunk, Delta, Chunk]
    assert job.handle(ModelSaid([7], "y"), 2) == []
    actions = job.handle(ModelEnded("stop"), 3)
    assert actions == [], "the bill waits for what is held back"
    assert kinds(counted(job, window, 2, 4)) == [Delta, Chunk]
    last = said(counted(job, window, 4, 5))
    assert [type(message) for message in last] == [Delta, Chunk, Receipt]
    assert isinstance(last[1], Chunk)
    assert (last[1].ids, last[1].finish, last[1].cost) == ((7,), "stop", price(7))


def test_room_that_another_order_leaves_is_found_without_a_word():
    window = Window(1, 0)
    window.begin(FIRST.order_id)
    job = running(window)
    assert job.handle(ModelSaid([1], "x"), 1) == []
    window.drop(FIRST.order_id)
    assert job.wake_at is not None
    assert kinds(job.handle(TimePassed(), job.wake_at)) == [Delta]


def test_who_signs_nothing_while_output_is_held_back_is_waited_for_so_long_only():
    window = Window(1, 0)
    job = running(window)
    job.handle(ModelSaid([1, 2, 3], "x"), 1)
    now = 1
    while not job.over:
        assert job.wake_at is not None
        now = job.wake_at
        actions = job.handle(TimePassed(), now)
    assert now == 1 + PROVIDER_WAIT_MS_MAX
    stop, refusal, end = actions
    assert stop == StopModel()
    assert isinstance(refusal, RefuseIt)
    assert refusal.code is Code.UNPAID
    assert (end_of([end]).lost, end_of([end]).lost_chunks) == (price(2), 1)
    assert window.is_spent


def test_a_voucher_lengthens_the_wait():
    window = Window(1, 0)
    job = running(window)
    job.handle(ModelSaid([1, 2, 3, 4, 5], "x"), 1)
    counted(job, window, 2, 20_000)
    job.handle(TimePassed(), PROVIDER_WAIT_MS_MAX + 1)
    assert not job.over
    actions = job.handle(TimePassed(), 20_000 + PROVIDER_WAIT_MS_MAX)
    assert end_of(actions).code is Code.UNPAID


def test_a_cancel_bills_what_went_out_and_nothing_that_was_held_back():
    """Nothing waits any more, and the last chunk brings no cost: it needs no room."""
    job = running(Window(1, 0))
    job.handle(ModelSaid([1, 2, 3, 4], "x"), 1)
    stop, last, bill = job.handle(CancelCame(), 2)
    assert stop == StopModel()
    (chunk, receipt) = said([last, bill])
    assert isinstance(chunk, Chunk)
    assert isinstance(receipt, Receipt)
    assert (chunk.ids, receipt.output_tokens, receipt.cost) == ((), 2, price(2))


def test_previews_that_no_chunk_followed_are_delivered_all_the_same():
    """Or a requester could cut the wire before each signature and have its answer for nothing."""
    window = Window(2, 0)
    job = running(window)
    job.handle(ModelSaid([1], "x"), 1)
    end = end_of(job.handle(RequesterLost(), 2))
    assert (end.cost, end.lost, end.lost_chunks) == (price(1), price(1), 1)
    assert (window.lost, window.unpaid_chunks) == (price(1), 1)


@pytest.mark.parametrize(("event", "spent"), [(RequesterLost(), True), (None, False)])
def test_a_prompt_that_was_read_is_spent_unless_the_provider_itself_fails(event, spent):
    window = Window(2, 0)
    job = running(window, FIRST)
    event = event or ModelFailed(Code.WORKER_FAILED, "")
    assert end_of(job.handle(event, 1)).lost == 0
    assert window.delivered == (AHEAD if spent else 0)
    assert window.reserve(DEAL.order_id, AHEAD, AHEAD) is not spent


def test_what_was_paid_ahead_is_not_lost():
    window = Window(2, 0)
    job = running(window, FIRST)
    job.handle(ModelSaid([1, 2], "x"), 1)
    end = end_of(job.handle(RequesterLost(), 2))
    assert (end.cost, end.lost) == (price(2), price(2) - AHEAD)


def test_the_model_starts_with_the_order_and_started_is_said_when_the_voucher_is_counted():
    window = Window(2, 0)
    deal = FIRST
    job = ProviderJob(deal.request, deal.request_id, deal.quote, deal.quote_id, 0)
    (run,) = job.handle(came(deal, window), 0)
    assert isinstance(run, RunModel)
    assert job.handle(BEGAN, 1) == []
    assert job.handle(ModelSaid([1], "x"), 2) == []
    window.pay(AHEAD)
    assert job.handle(Paid(), 3) == []
    assert kinds(job.handle(VoucherCounted(PROMPT_NOTE), 3)) == [Started, Delta]


def test_the_note_of_a_lower_voucher_starts_no_order():
    """The voucher that came with the order was overtaken by one for next to nothing."""
    window = Window(2, 0)
    job = ProviderJob(FIRST.request, FIRST.request_id, FIRST.quote, FIRST.quote_id, 0)
    job.handle(came(FIRST, window), 0)
    window.pay(1)
    assert job.handle(VoucherCounted(PROMPT_NOTE), 1) == []
    assert job.handle(BEGAN, 1) == []
    assert job.handle(Paid(), 2) == []
    window.pay(AHEAD)
    assert kinds(job.handle(Paid(), 3)) == [Started]


def test_a_voucher_that_is_announced_for_one_order_starts_no_other():
    """Or one that never counts would let any number of prompts in beside it."""
    window = Window(2, 0)
    assert window.reserve(DEAL.order_id, 1, 1_000_000), "announced, and never counted"
    job = ProviderJob(FIRST.request, FIRST.request_id, FIRST.quote, FIRST.quote_id, 0)
    job.handle(came(FIRST, window), 0)
    window.pay(AHEAD)
    assert job.handle(VoucherCounted(PROMPT_NOTE), 1) == []
    assert job.handle(BEGAN, 1) == []
    window.drop(DEAL.order_id)
    assert job.wake_at is not None
    assert kinds(job.handle(TimePassed(), job.wake_at)) == [Started]


def test_an_order_whose_vouchers_do_not_cover_its_prompt_runs_no_model():
    for window, voucher in ((Window(2, 0), None), (Window(2, 1), FIRST.order.voucher)):
        job = ProviderJob(FIRST.request, FIRST.request_id, FIRST.quote, FIRST.quote_id, 0)
        refusal, end = job.handle(came(FIRST, window, voucher=voucher), 0)
        assert isinstance(refusal, RefuseIt)
        assert (refusal.code, end_of([end]).code) == (Code.BAD_VOUCHER, Code.BAD_VOUCHER)


def test_a_voucher_that_fails_stops_the_model():
    job = running(Window(2, 0))
    refusal, stop, end = job.handle(VoucherFailed(Code.UNAVAILABLE, "The disk is full."), 2)
    assert isinstance(refusal, RefuseIt)
    assert stop == StopModel()
    assert end_of([end]).code is Code.UNAVAILABLE
