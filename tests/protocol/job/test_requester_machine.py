"""RequesterJob alone: each path by example, and any events of any provider at any time."""

import pytest
from msgspec.structs import replace

from protocol.errors import Code
from protocol.ids import MessageId, NodeId
from protocol.job.commitment import RUNNING_START, running_hash
from protocol.job.logprob import Logprob
from protocol.job.requester import RequesterJob
from protocol.job.requester_actions import (
    Accepted,
    Action,
    Ask,
    Candidate,
    Countersign,
    Deliver,
    Drop,
    Finished,
    Pay,
    SendCancel,
    SendOrder,
    SendRefuse,
)
from protocol.job.requester_events import (
    Came,
    CancelAsked,
    Event,
    Funded,
    OrderSent,
    ProviderLost,
    QuoteCame,
    RequestSent,
    TimePassed,
)
from protocol.job.terms import Chunk, Delta, Receipt, Refuse, Started
from protocol.limits import (
    ATTEMPTS_MAX,
    CANCEL_MS_MAX,
    HANDSHAKE_MS_MAX,
    SILENCE_MS_MAX,
)
from protocol.pricing import cost
from tests.protocol.samples import MODEL, REFUSE, Agreement, agreement

DEAL = agreement()
CANDIDATES = [
    Candidate(NodeId(bytes([number]) * 32), MODEL, DEAL.quote.price_in, DEAL.quote.price_out)
    for number in range(1, 6)
]
STARTED = Started(DEAL.order_id, 7, bytes(32))


def chunk(
    ids: tuple[int, ...] = (), text: str = "", finish: str = "stop", deal: Agreement = DEAL
) -> Chunk:
    """The first chunk of an honest provider after seven input tokens."""
    price = cost(7, len(ids), deal.quote.price_in, deal.quote.price_out)
    running = running_hash(RUNNING_START, 0, ids, text)
    return Chunk(deal.order_id, deal.terms, 0, ids, (), b"", running, price, finish)


def receipt(last: Chunk, tokens: int) -> Receipt:
    return Receipt(last.order, 7, tokens, last.cost, last.running, 0, "none", 1, 2)


def job_at(stage: str, deal: Agreement = DEAL, attempt: int = 1) -> RequesterJob:
    """A job whose attempt has come to a stage at time 0: funding, funded, asked, quoted,
    ordered, running or ended."""
    job = RequesterJob(CANDIDATES, deal.request.time_ms_max, 0)
    job.begin(0)
    for failed in range(1, attempt):
        job.handle(Came(failed, REFUSE), 0)
    if stage == "funding":
        return job
    stages: list[tuple[str, list[Event]]] = [
        ("funded", [Funded(attempt)]),
        ("asked", [RequestSent(attempt, deal.request, deal.request_id)]),
        ("quoted", [QuoteCame(attempt, deal.quote, deal.quote_id)]),
        ("ordered", [OrderSent(attempt, deal.order_id)]),
        ("running", [Came(attempt, replace(STARTED, order=deal.order_id))]),
        ("ended", [Came(attempt, chunk(deal=deal))]),
    ]
    for name, events in stages:
        for event in events:
            job.handle(event, 0)
        if name == stage:
            return job
    raise AssertionError(stage)


def finished(actions: list[Action]) -> Finished:
    assert isinstance(actions[-1], Finished)
    return actions[-1]


def test_a_whole_job():
    job = RequesterJob(CANDIDATES[:1], 60_000, 0)
    assert job.wake_at is None
    assert job.begin(0) == [Ask(1, CANDIDATES[0], 0)]
    assert job.handle(Funded(1), 4) == []
    assert job.handle(RequestSent(1, DEAL.request, DEAL.request_id), 5) == []
    assert job.handle(QuoteCame(1, DEAL.quote, DEAL.quote_id), 10) == [
        SendOrder(1, DEAL.quote_id, True, 0)
    ]
    assert job.handle(OrderSent(1, DEAL.order_id), 11) == []
    assert job.handle(Came(1, STARTED), 20) == [Accepted(1, CANDIDATES[0], DEAL.quote, 7)]
    assert job.handle(Came(1, Delta(DEAL.order_id, (5,), "a")), 21) == [Deliver((5,), "a")]
    assert job.handle(Came(1, Delta(DEAL.order_id, (), "")), 22) == []
    last = chunk((5,), "a")
    assert job.handle(Came(1, last), 23) == [Pay(1, DEAL.order_id, 1, last.cost)]
    bill = receipt(last, 1)
    assert job.handle(Came(1, bill), 24) == [
        Countersign(1, bill),
        Finished("stop", CANDIDATES[0], bill, 7, 1, last.cost, ()),
    ]
    assert job.over
    assert job.wake_at is None


def running(logprobs):
    """A job whose request asks for so many, and whose provider has begun."""
    sampling = replace(DEAL.request.sampling, logprobs=logprobs)
    job = RequesterJob(CANDIDATES[:1], 60_000, 0)
    job.begin(0)
    job.handle(Funded(1), 4)
    job.handle(RequestSent(1, replace(DEAL.request, sampling=sampling), DEAL.request_id), 5)
    job.handle(QuoteCame(1, DEAL.quote, DEAL.quote_id), 10)
    job.handle(OrderSent(1, DEAL.order_id), 11)
    job.handle(Came(1, STARTED), 20)
    return job


def test_probabilities_are_handed_on_where_they_are_of_these_tokens():
    sky, sea = Logprob(5, b"a", -10), Logprob(6, b"b", -20)
    told = ((sky, sky, sea),)
    came = Came(1, Delta(DEAL.order_id, (5,), "a", told))
    assert running(3).handle(came, 21) == [Deliver((5,), "a", told)]
    none = Came(1, Delta(DEAL.order_id, (5,), "a"))
    assert running(3).handle(none, 21) == [Deliver((5,), "a")]


@pytest.mark.parametrize(
    ("asked", "told"),
    [(0, ((5,),)), (1, ((5, 6),)), (2, ((6, 5),)), (2, ((),)), (2, ((5,), (5,)))],
)
def test_probabilities_of_other_tokens_or_too_many_are_a_contradiction(asked, told):
    places = tuple(tuple(Logprob(token, b"", 0) for token in place) for place in told)
    job = running(asked)
    actions = job.handle(Came(1, Delta(DEAL.order_id, (5,), "a", places)), 21)
    assert not any(isinstance(action, Deliver) for action in actions)
    assert [failure.code for failure in job.failures] == [Code.CONTRADICTION]


def test_a_busy_provider_is_passed_over():
    job = RequesterJob(CANDIDATES, 60_000, 0)
    job.begin(0)
    assert job.handle(Came(1, REFUSE), 5) == [Drop(1), Ask(2, CANDIDATES[1], 0)]
    assert job.handle(Came(1, REFUSE), 6) == [], "the first has no more to say"
    assert [each.code for each in job.failures] == [Code.BUSY]
    assert job.failures[0].retry_ms == REFUSE.retry_ms


def test_so_many_providers_are_tried_and_no_more():
    job = RequesterJob(CANDIDATES, 60_000, 0)
    actions = job.begin(0)
    for attempt in range(1, ATTEMPTS_MAX + 1):
        assert actions[-1] == Ask(attempt, CANDIDATES[attempt - 1], 0)
        actions = job.handle(Came(attempt, REFUSE), 5)
    end = finished(actions)
    assert (end.reason, len(end.failures), end.cost) == ("none", ATTEMPTS_MAX, 0)


@pytest.mark.parametrize("stage", ["asked", "quoted", "ordered"])
def test_a_loss_or_silence_before_the_start_goes_to_the_next(stage):
    lost = job_at(stage).handle(ProviderLost(1, Code.LOST, "gone"), 1)
    assert lost == [Drop(1), Ask(2, CANDIDATES[1], 0)]
    job = job_at(stage)
    assert job.wake_at == HANDSHAKE_MS_MAX
    assert job.handle(TimePassed(), HANDSHAKE_MS_MAX - 1) == []
    assert job.handle(TimePassed(), HANDSHAKE_MS_MAX) == [Drop(1), Ask(2, CANDIDATES[1], 0)]


def test_a_queue_that_was_quoted_is_waited_for():
    job = job_at("asked")
    job.handle(QuoteCame(1, replace(DEAL.quote, queue_ms=20_000), DEAL.quote_id), 0)
    assert job.wake_at == HANDSHAKE_MS_MAX + 20_000


def test_a_loss_in_mid_answer_ends_the_job():
    job = job_at("running")
    job.handle(Came(1, Delta(DEAL.order_id, (5,), "a")), 1)
    drop, end = job.handle(ProviderLost(1, Code.LOST, "gone"), 2)
    assert drop == Drop(1)
    assert isinstance(end, Finished)
    assert (end.reason, end.failures[-1].code, end.receipt) == ("none", Code.LOST, None)
    assert (end.output_tokens, end.cost) == (0, 0), "no chunk was signed, so nothing is paid"


def test_silence_in_mid_answer_ends_the_job_and_a_keepalive_is_no_silence():
    job = job_at("running")
    assert job.wake_at == SILENCE_MS_MAX
    job.handle(Came(1, Delta(DEAL.order_id, (), "")), 5000)
    assert job.handle(TimePassed(), SILENCE_MS_MAX) == []
    end = finished(job.handle(TimePassed(), 5000 + SILENCE_MS_MAX))
    assert end.failures[-1].code is Code.TIMEOUT


def test_a_cancel_before_the_start_drops_the_stream():
    for stage in ("asked", "quoted", "ordered"):
        drop, end = job_at(stage).handle(CancelAsked(), 1)
        assert drop == Drop(1)
        assert finished([end]).reason == "cancelled"


def test_a_cancel_in_mid_answer_waits_for_the_bill():
    job = job_at("running")
    job.handle(Came(1, Delta(DEAL.order_id, (5,), "a")), 1)
    assert job.handle(CancelAsked(), 2) == [SendCancel(1, DEAL.order_id)]
    assert job.handle(CancelAsked(), 3) == []
    last = chunk((5,), "a", "cancelled")
    assert job.handle(Came(1, last), 4) == [Pay(1, DEAL.order_id, 1, last.cost)]
    countersign, end = job.handle(Came(1, receipt(last, 1)), 5)
    assert isinstance(countersign, Countersign)
    assert (finished([end]).reason, finished([end]).cost) == ("cancelled", last.cost)


def test_a_cancel_without_a_bill_ends_all_the_same():
    job = job_at("running")
    job.handle(CancelAsked(), 2)
    job.handle(Came(1, Delta(DEAL.order_id, (5,), "a")), 3)
    assert job.wake_at == 2 + CANCEL_MS_MAX, "words do not lengthen the wait for the bill"
    assert finished(job.handle(TimePassed(), 2 + CANCEL_MS_MAX)).reason == "cancelled"


def test_time_over_cancels_and_waits_for_the_bill():
    job = job_at("running", agreement(time_ms_max=20_000))
    assert job.wake_at == 20_000
    (cancel,) = job.handle(TimePassed(), 20_000)
    assert isinstance(cancel, SendCancel)
    assert job.wake_at == 20_000 + CANCEL_MS_MAX


def test_time_over_before_the_start_ends_the_job():
    job = job_at("asked", agreement(time_ms_max=500))
    end = finished(job.handle(TimePassed(), 500))
    assert (end.reason, end.failures[-1].code) == ("none", Code.TIMEOUT)


def test_no_time_at_all_ends_with_a_word():
    end = finished(RequesterJob(CANDIDATES, 0, 0).begin(0))
    assert [each.code for each in end.failures] == [Code.TIMEOUT]


def test_a_bill_that_does_not_come_leaves_the_answer_whole():
    job = job_at("ended")
    assert job.wake_at == HANDSHAKE_MS_MAX
    end = finished(job.handle(TimePassed(), HANDSHAKE_MS_MAX))
    assert (end.reason, end.receipt, end.failures[-1].code) == ("stop", None, Code.TIMEOUT)


def test_a_code_that_we_do_not_know_is_a_refusal():
    job = job_at("asked")
    job.handle(Came(1, Refuse(b"", "FROM_THE_FUTURE", "Not yet.", 5)), 1)
    assert job.failures[0].code is Code.REFUSED
    assert job.failures[0].sentence == "Not yet."


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"request": MessageId(bytes(32))}, Code.CONTRADICTION),
        ({"mode": "cuda-bf16/gguf"}, Code.MODE_NOT_SERVED),
        ({"price_in": DEAL.quote.price_in + 1}, Code.COST_EXCEEDED),
        ({"price_out": DEAL.quote.price_out + 1}, Code.COST_EXCEEDED),
        ({"payment": "at_end"}, Code.KIND_NOT_SERVED),
    ],
    ids=str,
)
def test_a_quote_that_is_not_what_was_asked_for_goes_to_the_next(changes, code):
    quote = replace(DEAL.quote, **changes)
    refusal, drop, ask = job_at("asked").handle(QuoteCame(1, quote, DEAL.quote_id), 1)
    assert isinstance(refusal, SendRefuse)
    assert (refusal.code, drop, ask) == (code, Drop(1), Ask(2, CANDIDATES[1], 0))


def test_a_second_quote_and_a_bill_out_of_turn_are_unexpected():
    second = job_at("quoted").handle(QuoteCame(1, DEAL.quote, DEAL.quote_id), 1)
    assert isinstance(second[0], SendRefuse)
    assert second[0].code is Code.UNEXPECTED
    early = job_at("running").handle(Came(1, receipt(chunk(), 0)), 1)
    assert isinstance(early[0], SendRefuse)
    assert early[0].code is Code.UNEXPECTED


@pytest.mark.parametrize(("root", "taken"), [(bytes(32), True), (b"", True), (bytes(31), False)])
def test_a_root_is_a_digest_or_none(root: bytes, taken: bool):
    job = job_at("running")
    job.handle(Came(1, Delta(DEAL.order_id, (1,), "a")), 0)
    came = replace(chunk((1,), "a", "none"), root=root)
    if taken:
        assert not any(isinstance(each, Finished) for each in job.handle(Came(1, came), 0))
        return
    over = finished(job.handle(Came(1, came), 0))
    assert over.failures[-1].code == Code.CONTRADICTION


def test_a_root_over_no_tokens_is_a_contradiction():
    over = finished(job_at("running").handle(Came(1, replace(chunk(), root=bytes(32))), 0))
    assert over.failures[-1].code == Code.CONTRADICTION
