"""ProviderJob alone: any events at any time end it once, within its window and its caps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol import codec
from protocol.errors import Code
from protocol.ids import MessageId
from protocol.job.checks import prompt_first
from protocol.job.commitment import RUNNING_START, running_hash
from protocol.job.provider import ProviderJob
from protocol.job.provider_actions import Action, End, Say
from protocol.job.provider_events import (
    CancelCame,
    Event,
    ModelBegan,
    ModelEnded,
    ModelFailed,
    ModelSaid,
    OrderCame,
    Paid,
    ReceiptCame,
    RefuseCame,
    RequesterLost,
    TimePassed,
    Unpayable,
    VoucherCounted,
    VoucherFailed,
)
from protocol.job.terms import Chunk, Delta, Receipt, Started
from protocol.job.window import Window
from protocol.ledger.voucher import voucher_note, voucher_opened
from protocol.pricing import cost
from tests.protocol.samples import NETWORK, REFUSE, REQUESTER, Agreement, agreement

BEGAN = ModelBegan(7, bytes(32))


def came(deal: Agreement, window: Window, **changes) -> OrderCame:
    order = replace(deal.order, **changes)
    voucher = None
    if order.voucher is not None:
        voucher = voucher_opened(order.voucher, REQUESTER.node, NETWORK).value
    return OrderCame(order, deal.order_id, window, voucher)


class Books:
    """An independent account of what a provider has said, with every rule checked as it speaks."""

    def __init__(self, deal: Agreement) -> None:
        self.deal = deal
        self.ids: list[int] = []
        self.text = ""
        self.tokens = 0
        self.running = RUNNING_START
        self.input_tokens: int | None = None
        self.closed = False
        self.receipt: Receipt | None = None
        self.ends: list[End] = []
        self.cost = 0  # Of the last chunk.

    def note(self, action: Action) -> None:
        assert not self.ends, "an action after the end"
        if isinstance(action, End):
            self.ends.append(action)
            assert action.cost <= self.deal.request.cost_max
        if not isinstance(action, Say):
            return
        message = action.message
        assert codec.decode(codec.encode(message), type(message)) == message
        assert self.receipt is None
        match message:
            case Started():
                assert self.input_tokens is None
                self.input_tokens = message.prompt_tokens
            case Delta():
                assert not self.closed
                self.ids += message.ids
                self.text += message.text
                assert len(self.ids) <= self.deal.quote.chunk_tokens
            case Chunk():
                self._chunk(message)
            case Receipt():
                assert self.closed
                assert (message.output_tokens, message.cost) == (self.tokens, self._cost())
                assert (message.input_tokens, message.running) == (self.input_tokens, self.running)
                self.receipt = message

    def _chunk(self, chunk: Chunk) -> None:
        assert not self.closed
        assert list(chunk.ids) == self.ids
        assert (chunk.first_t, chunk.terms) == (self.tokens, self.deal.terms)
        self.running = running_hash(self.running, self.tokens, self.ids, self.text)
        self.tokens += len(self.ids)
        assert chunk.running == self.running
        assert chunk.cost == self._cost() <= self.deal.request.cost_max
        assert self.tokens <= self.deal.request.output_tokens_max
        self.cost = chunk.cost
        self.ids, self.text, self.closed = [], "", chunk.finish != "none"

    def _cost(self) -> int:
        assert self.input_tokens is not None
        quote = self.deal.quote
        return cost(self.input_tokens, self.tokens, quote.price_in, quote.price_out)


deals = st.builds(
    agreement,
    output_tokens_max=st.integers(1, 50),
    time_ms_max=st.sampled_from([0, 300, 20_000, 60_000]),
    cost_max=st.integers(0, 400),
    chunk_tokens=st.integers(1, 16),
    is_prompt_first=st.booleans(),
)
says = st.builds(ModelSaid, st.lists(st.integers(0, 9), max_size=40), st.text(max_size=4))
events = st.one_of(
    st.sampled_from(["order", "receipt", CancelCame(), TimePassed()]),
    st.builds(ModelBegan, st.integers(0, 40), st.just(bytes(32))),
    says,
    says,
    st.builds(ModelSaid, st.lists(st.integers(0, 9), max_size=4), st.text(max_size=4)),
    st.sampled_from(["voucher", "prompt's voucher", "another voucher", Paid()]),
    st.just("voucher"),
    st.just(TimePassed()),
    st.sampled_from(
        [
            "another order",
            "an order that cannot be paid",
            "another receipt",
            ModelEnded("stop"),
            ModelEnded("length"),
            ModelFailed(Code.WORKER_FAILED, ""),
            RefuseCame(REFUSE),
            RequesterLost(),
            VoucherFailed(Code.BAD_VOUCHER, ""),
        ]
    ),
)
gaps = st.sampled_from([0, 0, 1, 200, 250, 5_000, 31_000])


def event_of(choice: str | Event, deal: Agreement, books: Books, window: Window) -> Event:
    receipt = books.receipt or Receipt(deal.order_id, 0, 0, 0, RUNNING_START, 0, "none", 0, 0)
    match choice:
        case "order":
            return came(deal, window)
        case "another order":
            return came(deal, window, quote=MessageId(bytes(32)))
        case "an order that cannot be paid":
            why = Unpayable(Code.NO_CHANNEL, "")
            return OrderCame(deal.order, deal.order_id, unpayable=why)
        case "voucher":
            window.pay(books.cost)
            return VoucherCounted(voucher_note(deal.order_id, books.tokens))
        case "prompt's voucher":
            window.pay(prompt_first(deal.request, deal.quote))
            return VoucherCounted(voucher_note(deal.quote_id, 0))
        case "another voucher":
            return VoucherCounted(bytes(32))
        case "receipt":
            return ReceiptCame(receipt)
        case "another receipt":
            return ReceiptCame(replace(receipt, ms_total=receipt.ms_total + 1))
    assert not isinstance(choice, str)
    return choice


@pytest.mark.parametrize("stage", ["quoted", "running"])
@given(deals, st.integers(1, 3), st.lists(st.tuples(events, gaps), max_size=30))
@settings(max_examples=400, deadline=None)
def test_any_events_at_any_time_end_it_once(stage, deal, chunks_max, script):
    job = ProviderJob(deal.request, deal.request_id, deal.quote, deal.quote_id, 0)
    books, window, now = Books(deal), Window(chunks_max, 0), 0

    def tell(event: Event) -> None:
        for action in job.handle(event, now):
            books.note(action)
        assert (job.wake_at is None) == job.over == bool(books.ends)
        assert window.unpaid_chunks <= chunks_max, "M5"

    opening = [("order", 0), ("prompt's voucher", 0), (BEGAN, 0)] if stage == "running" else []
    for choice, gap in [*opening, *script]:
        now += gap
        if isinstance(choice, TimePassed) and job.wake_at is not None and now < job.wake_at:
            assert job.handle(choice, now) == []
            continue
        if not job.over:
            tell(event_of(choice, deal, books, window))
        if choice in ("voucher", "prompt's voucher") and not job.over:
            tell(Paid())
    # With nothing but time it ends, whatever it waits for: it looks for room four times a second.
    for _ in range(1000):
        if job.over:
            break
        assert job.wake_at is not None
        now = max(now, job.wake_at)
        tell(TimePassed())
    assert job.over
    assert len(books.ends) == 1
    end = books.ends[0]
    assert 0 <= end.lost <= end.cost
    assert (end.lost == 0) == (end.lost_chunks == 0)
    assert end.lost == window.lost <= window.unpaid
    assert end.lost_chunks <= chunks_max
    if end.receipted:
        assert books.receipt is not None
        assert end.cost == books.receipt.cost
