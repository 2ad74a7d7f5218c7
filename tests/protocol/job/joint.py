"""Both machines of one job, joined by two queues of real frames: a shell without any I/O."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

from msgspec import Struct

from protocol import codec
from protocol.envelope import Signed, seal
from protocol.errors import Code
from protocol.job import provider as p
from protocol.job import provider_events as told
from protocol.job import requester as r
from protocol.job import requester_events as happened
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
from protocol.messages import FromProvider, FromRequester, job_body, job_frame
from tests.protocol.samples import (
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
    frames are never lost alone or reordered, but the stream may break."""

    def __init__(self, deal: Agreement, tamper: Tamper = honest) -> None:
        self.deal = deal
        self.now = 0
        self.tamper = tamper
        self.to_provider: deque[bytes | None] = deque()  # None: the stream has ended here.
        self.to_requester: deque[bytes | None] = deque()
        quote = deal.quote
        candidate = r.Candidate(PROVIDER.node, MODEL, quote.price_in, quote.price_out)
        self.requester = r.RequesterJob(
            [candidate], deal.request.time_ms_max, self.now, len(deal.order.prompt.texts)
        )
        self.provider: p.ProviderJob | None = None
        self.seed: bytes | None = None
        self.model_runs = False
        self.said_ids: list[int] = []  # By the provider's deltas.
        self.said_text = ""
        self.heard_ids: list[int] = []  # Delivered to whoever asked.
        self.heard_text = ""
        self.said_vectors: list[bytes] = []  # By the provider's chunks.
        self.heard_vectors: list[bytes] = []
        self.complaints: list[Code] = []  # Refusals that the requester sent.
        self.owed: r.Owe | None = None
        self.finished: r.Finished | None = None
        self.ended: p.End | None = None
        self._carry_out(self.requester.begin(self.now))

    # What may happen.
    def deliver_to_provider(self) -> None:
        if not self.to_provider:
            return
        frame = self.to_provider.popleft()
        if frame is None:
            self.tell_provider(told.RequesterLost())
            return
        opened = job_frame(frame)
        if isinstance(opened, Cancel):
            self.tell_provider(told.CancelCame())
            return
        assert isinstance(opened, Signed)
        body = job_body(opened, NETWORK, FromRequester)
        match body.value:
            case Request() as request:
                deal = self.deal
                assert self.provider is None
                self.provider = p.ProviderJob(request, body.id, deal.quote, deal.quote_id, self.now)
                self._send_from_provider(deal.quote)
            case Order() as order:
                self.tell_provider(told.OrderCame(order, body.id))
            case Receipt() as receipt:
                self.tell_provider(told.ReceiptCame(receipt))
            case Refuse() as refuse:
                self.tell_provider(told.RefuseCame(refuse))

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
            elif self.finished and (self.ended or self.provider is None):
                return
            else:
                wakes = [self.requester.wake_at, self.provider and self.provider.wake_at]
                times = [wake for wake in wakes if wake is not None]
                assert times, "a job that is not over has no timer"
                self.pass_time(max(0, min(times) - self.now))
        raise AssertionError("the job never ends")

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
                case r.Ask(attempt):
                    request = self.deal.request
                    self.tell_requester(happened.RequestSent(attempt, request, message_id(request)))
                    self._send_from_requester(request)
                case r.SendOrder(attempt):
                    order = self.deal.order
                    self.tell_requester(happened.OrderSent(attempt, message_id(order)))
                    self._send_from_requester(order)
                case r.Deliver(ids, text):
                    self.heard_ids += ids
                    self.heard_text += text
                case r.DeliverVectors(vectors):
                    self.heard_vectors += vectors
                case r.SendCancel(_, order_id):
                    self.to_provider.append(codec.encode(Cancel(order_id)))
                case r.Owe():
                    assert self.owed is None, "an order that is owed for twice"
                    self.owed = action
                case r.Countersign(_, receipt):
                    owed = 0 if self.owed is None else self.owed.amount
                    assert owed == receipt.cost, "a signature before what it makes owed"
                    self._send_from_requester(receipt)
                case r.SendRefuse(_, code, sentence):
                    self.complaints.append(code)
                    self._send_from_requester(Refuse(b"", code.value, sentence, 0))
                case r.Drop():
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
                    for said in self.tamper(message):
                        self._send_from_provider(said)
                case p.RefuseIt(code, sentence):
                    self._send_from_provider(Refuse(b"", code.value, sentence, 0))
                case p.End():
                    self.ended, self.model_runs = action, False
                    self.to_requester.append(None)
                case _:
                    assert_never(action)

    def _send_from_provider(self, message: Struct) -> None:
        assert isinstance(message, Quote | Started | Delta | Chunk | Receipt | Refuse)
        plain = isinstance(message, Delta)
        sent = message if plain else seal(PROVIDER, NETWORK, message)
        self.to_requester.append(codec.encode(sent))

    def _send_from_requester(self, message: Struct) -> None:
        self.to_provider.append(codec.encode(seal(REQUESTER, NETWORK, message)))
