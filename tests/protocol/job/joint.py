"""Both machines of one job, joined by two queues of real frames: a shell without any I/O."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from protocol import codec
from protocol.envelope import Signed, seal
from protocol.errors import Code
from protocol.ids import MessageId
from protocol.job import provider as machine
from protocol.job import provider_actions as p
from protocol.job import provider_events as told
from protocol.job import requester as asking
from protocol.job import requester_actions as r
from protocol.job import requester_events as happened
from protocol.job.checks import NO_PAYMENT, prompt_first
from protocol.job.commitment import prompt_ids_digest
from protocol.job.terms import (
    Cancel,
    Chunk,
    Delta,
    Order,
    Quote,
    Receipt,
    Refuse,
    Request,
    Started,
)
from protocol.ledger.voucher import Voucher, voucher_note, voucher_opened
from protocol.messages import FromProvider, FromRequester, job_body, job_frame
from protocol.pricing import cost
from tests.protocol.job.paid import PaidChannel
from tests.protocol.samples import (
    CHANNEL,
    MODEL,
    NETWORK,
    PROMPT_IDS,
    PROVIDER,
    REQUESTER,
    Agreement,
    message_id,
)

STEPS_MAX = 2000

Tamper = Callable[[Struct], Sequence[Struct]]
"""What a provider sends instead of a message: nothing, another, or several."""


def honest(message: Struct) -> Sequence[Struct]:
    return [message]


class Joint:
    """One requester, one provider and its model. Whoever drives it decides what happens when;
    frames are never lost alone or reordered, but the stream may break. Several may share one
    channel; without one, each has its own, whose window is never in the way."""

    def __init__(
        self,
        deal: Agreement,
        tamper: Tamper = honest,
        channel: PaidChannel | None = None,
        number: int = 0,
        now: int = 0,
    ) -> None:
        self.deal = deal
        self.channel = channel or PaidChannel(1 << 20)
        self.counts_at_once = channel is None
        self.number = number
        self.now = now
        self.tamper = tamper
        self.to_provider: deque[bytes | None] = deque()  # None: the stream has ended here.
        self.to_requester: deque[bytes | None] = deque()
        quote = deal.quote
        candidate = r.Candidate(PROVIDER.node, MODEL, quote.price_in, quote.price_out)
        self.requester = asking.RequesterJob(
            [candidate], deal.request.time_ms_max, self.now, len(deal.order.prompt.texts)
        )
        self.provider: machine.ProviderJob | None = None
        self.seed: bytes | None = None
        self.model_runs = False
        self.prompt_tokens = 0
        self.said_ids: list[int] = []  # By the provider's deltas.
        self.said_text = ""
        self.heard_ids: list[int] = []  # Delivered to whoever asked.
        self.heard_text = ""
        self.said_vectors: list[bytes] = []  # By the provider's chunks.
        self.heard_vectors: list[bytes] = []
        self.complaints: list[Code] = []  # Refusals that the requester sent.
        self.paid = 0  # By vouchers that the requester has signed for this order.
        self.finished: r.Finished | None = None
        self.ended: p.End | None = None
        self._carry_out(self.requester.begin(self.now))

    # What may happen.
    def deliver_to_provider(self) -> None:
        if not self.to_provider:
            return
        frame = self.to_provider.popleft()
        if self.ended is not None:
            return  # Nobody reads this stream any more.
        if frame is None:
            self.channel.count_all(self.number)
            self.tell_provider(told.RequesterLost())
            return
        opened = job_frame(frame)
        if isinstance(opened, Cancel):
            self.tell_provider(told.CancelCame())
            return
        assert isinstance(opened, Signed)
        body = job_body(opened, NETWORK, FromRequester)
        match body.value:
            case Voucher(_, cumulative, note):
                self.channel.voucher_came(self.number, cumulative, note, self.voucher_counted)
                if self.counts_at_once:
                    self.channel.count()
            case Request() as request:
                deal = self.deal
                assert self.provider is None
                self.provider = machine.ProviderJob(
                    request, body.id, deal.quote, deal.quote_id, self.now
                )
                self._send_from_provider(deal.quote)
            case Order() as order:
                self._take_order(order, body.id)
            case Receipt() as receipt:
                self.channel.count_all(self.number)
                self.tell_provider(told.ReceiptCame(receipt))
            case Refuse() as refuse:
                self.channel.count_all(self.number)
                self.tell_provider(told.RefuseCame(refuse))

    def _take_order(self, order: Order, order_id: MessageId) -> None:
        if self.deal.quote.payment == NO_PAYMENT:
            self.tell_provider(told.OrderCame(order, order_id))
            return
        voucher = None
        if order.voucher is not None:
            voucher = voucher_opened(order.voucher, REQUESTER.node, NETWORK).value
        self.channel.watchers.append(lambda: self.tell_provider(told.Paid()))
        self.tell_provider(told.OrderCame(order, order_id, self.channel.window, voucher))
        if voucher is not None:
            self.channel.voucher_came(
                self.number, voucher.cumulative, voucher.note, self.voucher_counted
            )
            if self.counts_at_once:
                self.channel.count()

    def voucher_counted(self, note: bytes) -> None:
        self.tell_provider(told.VoucherCounted(note))

    def deliver_to_requester(self) -> None:
        if not self.to_requester:
            return
        attempt, frame = 1, self.to_requester.popleft()
        if frame is None:
            self.tell_requester(happened.ProviderLost(attempt, Code.LOST, "The stream was closed."))
            return
        opened = job_frame(frame)
        if isinstance(opened, Delta):
            self.tell_requester(happened.Came(attempt, opened))
            return
        assert isinstance(opened, Signed)
        body = job_body(opened, NETWORK, FromProvider)
        if isinstance(body.value, Quote):
            self.tell_requester(happened.QuoteCame(attempt, body.value, body.id))
        else:
            self.tell_requester(happened.Came(attempt, body.value))

    def model_begins(self, prompt_tokens: int = len(PROMPT_IDS)) -> None:
        if self.model_runs:
            self.prompt_tokens = self.prompt_tokens or prompt_tokens
            self.tell_provider(told.ModelBegan(prompt_tokens, prompt_ids_digest(PROMPT_IDS)))

    def model_says(self, ids: Sequence[int], text: str) -> None:
        if self.model_runs:
            # Text may come after its tokens, never before them.
            text = text if ids or self.said_ids else ""
            self.tell_provider(told.ModelSaid(ids, text))

    def model_embeds(self, vectors: Sequence[bytes]) -> None:
        if self.model_runs:
            self.tell_provider(told.ModelEmbedded(vectors))

    def model_ends(self) -> None:
        if self.model_runs:
            self.tell_provider(told.ModelEnded("stop"))

    def model_fails(self) -> None:
        if self.model_runs:
            self.tell_provider(told.ModelFailed(Code.WORKER_FAILED, "The worker died."))

    def cancel(self) -> None:
        self.tell_requester(happened.CancelAsked())

    def break_stream(self) -> None:
        """Both sides see what was sent before, and then the end."""
        self.to_provider.append(None)
        self.to_requester.append(None)

    def pass_time(self, ms: int) -> None:
        self.now += ms
        self.tell_requester(happened.TimePassed())
        self.tell_provider(told.TimePassed())

    def settle(self) -> None:
        """All that is under way arrives; then time alone must end the job on both sides."""
        for _ in range(STEPS_MAX):
            if self.to_provider:
                self.deliver_to_provider()
            elif self.to_requester:
                self.deliver_to_requester()
            elif self.channel.under_way:
                self.channel.count()
            elif self.finished and (self.ended or self.provider is None):
                return
            else:
                self.pass_time(max(0, self.wakes_at - self.now))
        raise AssertionError("the job never ends")

    @property
    def wakes_at(self) -> int:
        """When one of the two must hear that time has passed."""
        wakes = [self.requester.wake_at, self.provider and self.provider.wake_at]
        times = [wake for wake in wakes if wake is not None]
        assert times, "a job that is not over has no timer"
        return min(times)

    # The two shells.
    def tell_requester(self, event: happened.Event) -> None:
        if not self.requester.over:
            self._carry_out(self.requester.handle(event, self.now))

    def tell_provider(self, event: told.Event) -> None:
        if self.provider is not None and not self.provider.over:
            self._carry_out_provider(self.provider.handle(event, self.now))

    def _carry_out(self, actions: Sequence[r.Action]) -> None:
        for action in actions:
            assert self.finished is None, "an action after the end"
            match action:
                case r.Ask(attempt, candidate):
                    request = self.deal.request
                    if candidate.price_in or candidate.price_out:
                        self.tell_requester(happened.Funded(attempt))
                    self.tell_requester(happened.RequestSent(attempt, request, message_id(request)))
                    self._send_from_requester(request)
                case r.SendOrder(attempt, quote_id, is_paid, ahead):
                    assert ahead == prompt_first(self.deal.request, self.deal.quote)
                    order = self.deal.order
                    if is_paid:
                        total = self.channel.open_order(self.number, ahead)
                        order = replace(order, voucher=self._voucher(total, quote_id, 0, ahead))
                    self.tell_requester(happened.OrderSent(attempt, message_id(order)))
                    self._send_from_requester(order)
                case r.Pay(_, order_id, first_t, price):
                    assert self.paid <= price <= self.deal.request.cost_max, "M6"
                    self.paid = price
                    total = self.channel.pay(self.number, price)
                    self._send_from_requester(
                        Voucher(CHANNEL, total, voucher_note(order_id, first_t), b"")
                    )
                case r.Deliver(ids, text):
                    self.heard_ids += ids
                    self.heard_text += text
                case r.DeliverVectors(vectors):
                    self.heard_vectors += vectors
                case r.SendCancel(_, order_id):
                    self.to_provider.append(codec.encode(Cancel(order_id)))
                case r.Countersign(_, receipt):
                    assert self.paid == receipt.cost, "a signature for what is not paid"
                    self._send_from_requester(receipt)
                case r.SendRefuse(_, code, sentence):
                    self.complaints.append(code)
                    self._send_from_requester(Refuse(b"", code.value, sentence, 0))
                case r.Drop(_, is_unread):
                    if is_unread and self.deal.quote.payment != NO_PAYMENT:
                        self.channel.not_read(self.number)
                    self.to_provider.append(None)
                case r.Finished():
                    self.finished = action
                case r.Accepted():
                    pass
                case _:
                    assert_never(action)

    def _carry_out_provider(self, actions: Sequence[p.Action]) -> None:
        for action in actions:
            assert self.ended is None, "an action after the end"
            match action:
                case p.RunModel(_, seed):
                    assert self.seed is None, "a model that runs twice"
                    self.seed, self.model_runs = seed, True
                case p.StopModel():
                    assert self.model_runs, "a model that is stopped twice or never ran"
                    self.model_runs = False
                case p.Say(message):
                    if isinstance(message, Delta):
                        self.said_ids += message.ids
                        self.said_text += message.text
                    if isinstance(message, Chunk):
                        self.said_vectors += message.vectors
                    if isinstance(message, Receipt):
                        self.model_runs = False
                    self._note_out(message)
                    for said in self.tamper(message):
                        self._send_from_provider(said)
                case p.RefuseIt(code, sentence):
                    self._send_from_provider(Refuse(b"", code.value, sentence, 0))
                case p.End():
                    self.ended, self.model_runs = action, False
                    self.channel.ended(self.number, action.cost)
                    self.to_requester.append(None)
                case _:
                    assert_never(action)

    def _voucher(self, total: int, quote_id: MessageId, first_t: int, ahead: int) -> Signed | None:
        if not ahead:
            return None
        voucher = Voucher(CHANNEL, total, voucher_note(quote_id, first_t), b"")
        return seal(REQUESTER, NETWORK, voucher)

    def _note_out(self, message: Struct) -> None:
        if self.deal.quote.payment == NO_PAYMENT:
            return
        quote = self.deal.quote
        so_far = cost(self.prompt_tokens, len(self.said_ids), quote.price_in, quote.price_out)
        self.channel.went_out(self.number, message, so_far)

    def _send_from_provider(self, message: Struct) -> None:
        assert isinstance(message, Quote | Started | Delta | Chunk | Receipt | Refuse)
        plain = isinstance(message, Delta)
        sent = message if plain else seal(PROVIDER, NETWORK, message)
        self.to_requester.append(codec.encode(sent))

    def _send_from_requester(self, message: Struct) -> None:
        self.to_provider.append(codec.encode(seal(REQUESTER, NETWORK, message)))
