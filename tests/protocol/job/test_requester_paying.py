"""RequesterJob and its channel: what is paid when, and what it does where a channel is refused."""

import dataclasses

import pytest
from msgspec.structs import replace

from protocol.errors import Code
from protocol.job.checks import prompt_first
from protocol.job.commitment import terms_digest
from protocol.job.requester import RequesterJob
from protocol.job.requester_actions import (
    Action,
    Ask,
    Countersign,
    Drop,
    Failure,
    Pay,
    SendOrder,
)
from protocol.job.requester_events import (
    Came,
    Funded,
    NotOrdered,
    OrderSent,
    ProviderLost,
    QuoteCame,
    RequestSent,
    TimePassed,
)
from protocol.job.terms import Delta
from protocol.limits import CHANNEL_MS_MAX, HANDSHAKE_MS_MAX
from tests.protocol.job.test_requester_machine import (
    CANDIDATES,
    DEAL,
    STARTED,
    chunk,
    job_at,
    receipt,
)
from tests.protocol.samples import REFUSE, agreement, message_id


def paid(actions: list[Action]) -> list[Pay]:
    return [action for action in actions if isinstance(action, Pay)]


def test_each_chunk_is_paid_when_it_is_checked_and_an_unsigned_word_never():
    job = job_at("running")
    assert paid(job.handle(Came(1, Delta(DEAL.order_id, (5,), "a")), 1)) == []
    signed = chunk((5,), "a", "none")
    assert job.handle(Came(1, signed), 2) == [Pay(1, DEAL.order_id, 1, signed.cost)]
    job.handle(Came(1, Delta(DEAL.order_id, (6,), "b")), 3)
    assert paid(job.handle(ProviderLost(1, Code.LOST, "gone"), 4)) == []


def test_a_chunk_that_contradicts_is_not_paid():
    job = job_at("running")
    job.handle(Came(1, Delta(DEAL.order_id, (5,), "a")), 1)
    assert paid(job.handle(Came(1, chunk((6,), "a", "none")), 2)) == []


def test_a_bill_that_does_not_come_or_is_disputed_costs_nothing_more():
    assert paid(job_at("ended").handle(TimePassed(), HANDSHAKE_MS_MAX)) == []
    dear = replace(receipt(chunk(), 0), cost=chunk().cost + 1)
    actions = job_at("ended").handle(Came(1, dear), 1)
    assert paid(actions) == []
    assert not [action for action in actions if isinstance(action, Countersign)]


@pytest.mark.parametrize("changes", [{"payment": "none"}, {"price_in": 0, "price_out": 0}], ids=str)
def test_nothing_is_paid_where_nothing_is_asked_or_costs_anything(changes):
    quote = replace(DEAL.quote, **changes)
    quote_id = message_id(quote)
    terms = terms_digest(DEAL.request_id, quote_id)
    deal = dataclasses.replace(DEAL, quote=quote, quote_id=quote_id, terms=terms)
    job = job_at("quoted", deal)
    job.handle(OrderSent(1, deal.order_id), 0)
    job.handle(Came(1, STARTED), 0)
    last = chunk(deal=deal)
    assert job.handle(Came(1, last), 0) == []
    assert isinstance(job.handle(Came(1, receipt(last, 0)), 0)[0], Countersign)


def test_an_order_says_whether_it_is_paid_and_what_its_prompt_pays_first():
    first = agreement(is_prompt_first=True)
    came = QuoteCame(1, first.quote, first.quote_id)
    ahead = prompt_first(first.request, first.quote)
    assert ahead > 0
    assert job_at("asked", first).handle(came, 1) == [SendOrder(1, first.quote_id, True, ahead)]
    free = agreement(prices=(0, 0))
    came = QuoteCame(1, free.quote, free.quote_id)
    assert job_at("asked", free).handle(came, 1) == [SendOrder(1, free.quote_id, False, 0)]


def test_a_prompt_that_was_paid_first_counts_against_the_cap_of_the_next_order():
    """The provider may keep it, whatever it says (M6)."""
    first = agreement(is_prompt_first=True)
    ahead = prompt_first(first.request, first.quote)
    refused = job_at("ordered", first).handle(Came(1, REFUSE), 1)
    assert refused == [Drop(1, is_unread=True), Ask(2, CANDIDATES[1], ahead)]
    lost = job_at("ordered", first).handle(ProviderLost(1, Code.LOST, ""), 1)
    assert lost == [Drop(1), Ask(2, CANDIDATES[1], ahead)]


def test_what_each_lost_order_paid_first_counts_against_the_cap():
    first = agreement(is_prompt_first=True)
    ahead = prompt_first(first.request, first.quote)
    job = job_at("ordered", first)
    job.handle(ProviderLost(1, Code.LOST, ""), 1)
    job.handle(Funded(2), 2)
    job.handle(RequestSent(2, first.request, first.request_id), 2)
    job.handle(QuoteCame(2, first.quote, first.quote_id), 2)
    job.handle(OrderSent(2, first.order_id), 2)
    assert job.handle(ProviderLost(2, Code.LOST, ""), 3)[-1] == Ask(3, CANDIDATES[2], 2 * ahead)


@pytest.mark.parametrize(
    "code", [Code.UNPAID, Code.NO_CHANNEL, Code.CHANNEL_CLOSED, Code.BAD_VOUCHER]
)
def test_a_provider_that_refuses_the_channel_is_asked_once_more(code):
    refuse = replace(REFUSE, code=code)
    job = job_at("ordered")
    drop, ask = job.handle(Came(1, refuse), 1)
    failure = Failure(CANDIDATES[0], code, REFUSE.sentence, REFUSE.retry_ms)
    assert (drop, ask) == (Drop(1, is_unread=True), Ask(2, CANDIDATES[0], 0, failure))
    job.handle(Funded(2), 2)
    job.handle(RequestSent(2, DEAL.request, DEAL.request_id), 2)
    job.handle(QuoteCame(2, DEAL.quote, DEAL.quote_id), 2)
    job.handle(OrderSent(2, DEAL.order_id), 2)
    again = job.handle(Came(2, refuse), 3)
    assert again == [Drop(2, is_unread=True), Ask(3, CANDIDATES[1], 0)]


def test_a_channel_is_waited_for_longer_than_a_quote():
    job = job_at("funding")
    assert job.wake_at == CHANNEL_MS_MAX
    job.handle(Funded(1), 20_000)
    assert job.wake_at == 20_000 + HANDSHAKE_MS_MAX


def test_a_provider_that_takes_nothing_needs_no_channel():
    free = dataclasses.replace(CANDIDATES[0], price_in=0, price_out=0)
    job = RequesterJob([free], 60_000, 0)
    job.begin(0)
    assert job.wake_at == HANDSHAKE_MS_MAX
    assert job.handle(RequestSent(1, DEAL.request, DEAL.request_id), 1) == []


def test_an_order_that_we_cannot_pay_is_not_placed_and_the_next_is_asked():
    job = job_at("funding", attempt=2)
    actions = job.handle(NotOrdered(2, Code.OVERDRAWN, "Too little."), 1)
    assert actions == [Drop(2), Ask(3, CANDIDATES[2], 0)]
    failure = job.failures[-1]
    assert (failure.candidate, failure.code) == (None, Code.OVERDRAWN)
