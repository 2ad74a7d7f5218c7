"""ProviderJob: what to do next with one job that we serve. No I/O, no clock, no chance.

It begins when a quote has been given. The shell signs and sends what it returns, runs the model,
counts vouchers, and feeds back what happens; `wake_at` says when it must hear that time has passed.
"""

from collections.abc import Sequence
from enum import Enum
from typing import assert_never

from protocol.errors import Code, RemoteError
from protocol.ids import MessageId
from protocol.job.checks import NO_PAYMENT, check_order, prompt_first
from protocol.job.kinds import EMBED
from protocol.job.outflow import Loss, Outflow
from protocol.job.produced import Produced
from protocol.job.provider_actions import Action, End, RefuseIt, RunModel, Say, StopModel
from protocol.job.provider_events import (
    CancelCame,
    Event,
    ModelBegan,
    ModelEmbedded,
    ModelEnded,
    ModelFailed,
    ModelSaid,
    OrderCame,
    Paid,
    ReceiptCame,
    RefuseCame,
    RequesterLost,
    TimePassed,
    VoucherCounted,
    VoucherFailed,
)
from protocol.job.seed import order_seed
from protocol.job.terms import Delta, Finish, Quote, Receipt, Request, Started
from protocol.job.vectors import vectors_grouped
from protocol.ledger.voucher import voucher_note
from protocol.limits import HELD_LOOK_MS, JOB_MS_MAX, KEEPALIVE_MS, PROVIDER_WAIT_MS_MAX
from protocol.pricing import output_tokens_affordable


class State(Enum):
    QUOTED = "quoted"
    ADMITTED = "admitted"  # Ordered; the model has not begun.
    RUNNING = "running"
    BILLED = "billed"
    OVER = "over"


class ProviderJob:
    """One job seen from the provider. Feed it events; carry out the actions it returns."""

    def __init__(
        self, request: Request, request_id: MessageId, quote: Quote, quote_id: MessageId, now: int
    ) -> None:
        self._request = request
        self._quote = quote
        self._quote_id = quote_id
        self._produced = Produced(request, request_id, quote, quote_id)
        self._out: Outflow | None = None  # From the order on.
        self._state = State.QUOTED
        self._order_id = MessageId(b"")
        self._deadline = now + quote.valid_ms
        self._began_at = now
        self._first_at: int | None = None
        self._said_at = now
        self._output_tokens_max = 0
        self._prompt_note = b""  # Of the voucher that must be counted before we say "started".
        self._unsaid: Started | None = None  # While it waits for that.
        self._model_runs = False
        self._ending: Finish = "none"  # Why nothing more is produced; what waits still goes out.
        self._held_since: int | None = None
        self._looked_at = now
        self._receipt: Receipt | None = None
        self._finish: Finish = "none"

    @property
    def over(self) -> bool:
        return self._state is State.OVER

    @property
    def order_id(self) -> MessageId:
        """Empty before the order came."""
        return self._order_id

    @property
    def wake_at(self) -> int | None:
        """When the shell must next feed TimePassed, in ms, if nothing else happens first."""
        match self._state:
            case State.OVER:
                return None
            case State.RUNNING:
                times = [self._said_at + KEEPALIVE_MS]
                if self._produced.open_since is not None:
                    times = [self._produced.open_since + self._quote.chunk_ms]
                if self._ending == "none" or self._unsaid is not None:
                    times.append(self._deadline)
                if self._held_since is not None:
                    times += [self._held_since + PROVIDER_WAIT_MS_MAX]
                if self._held_since is not None or (self._unsaid and not self._prompt_note):
                    times += [self._looked_at + HELD_LOOK_MS]
                return min(times)
            case State.QUOTED | State.ADMITTED | State.BILLED:
                return self._deadline

    def handle(self, event: Event, now: int) -> list[Action]:
        assert not self.over
        match event:
            case OrderCame():
                return self._order(event, now)
            case VoucherCounted(note):
                return self._count(note, now)
            case VoucherFailed(code, sentence):
                return [RefuseIt(code, sentence), *self._stopped(code)]
            case Paid():
                self._held_since = None
                return [*self._say_started(), *self._flow(now)]
            case ModelBegan():
                return self._begin(event, now)
            case ModelSaid() | ModelEmbedded() | ModelEnded():
                return self._hear(event, now)
            case ModelFailed(code, sentence):
                return self._fail(code, sentence)
            case CancelCame():
                return self._cancel(now)
            case ReceiptCame(receipt):
                return self._settle(receipt)
            case RefuseCame(refuse):
                disputed = refuse.code == Code.RECEIPT_DISPUTED and self._state is State.BILLED
                return self._stopped(Code.RECEIPT_DISPUTED if disputed else Code.CANCELLED)
            case RequesterLost():
                return self._stopped(Code.LOST)
            case TimePassed():
                return self._time(now)
            case _:
                assert_never(event)

    def _order(self, came: OrderCame, now: int) -> list[Action]:
        order, quote, window = came.order, self._quote, came.window
        if self._state is not State.QUOTED or order.quote != self._quote_id:
            sentence = "The order names no quote of this stream that is still open."
            return [RefuseIt(Code.REPLAYED, sentence), *self._stopped(Code.REPLAYED)]
        if now > self._deadline:
            return self._expire()
        try:
            check_order(order, self._request)
        except RemoteError as error:
            return [RefuseIt(error.code, error.sentence), *self._end(error.code)]
        if came.unpayable is not None:
            code, sentence = came.unpayable.code, came.unpayable.sentence
            return [RefuseIt(code, sentence), *self._end(code)]
        assert window is not None or quote.payment == NO_PAYMENT
        ahead = prompt_first(self._request, quote)
        paid = came.voucher.cumulative if came.voucher is not None else 0
        if ahead and window is not None and not window.reserve(came.id, ahead, paid):
            sentence = (
                f"The prompt is paid first here, with {ahead} microcredits beyond what was "
                f"delivered; the order's voucher and those before it do not cover that."
            )
            return [RefuseIt(Code.BAD_VOUCHER, sentence), *self._end(Code.BAD_VOUCHER)]
        self._state, self._order_id = State.ADMITTED, came.id
        self._began_at = self._said_at = now
        self._deadline = now + self._request.time_ms_max
        if came.voucher is not None:
            self._prompt_note = voucher_note(self._quote_id, 0)
        self._produced.begin(came.id, len(order.prompt.texts))
        self._out = Outflow(self._produced, came.id, window, ahead)
        seed = order_seed(self._request.seed_source, order.r, quote.p, self._produced.terms)
        self._model_runs = True
        return [RunModel(order, seed)]

    def _count(self, note: bytes, now: int) -> list[Action]:
        if note == self._prompt_note:
            self._prompt_note = b""
            return [*self._say_started(), *self._flow(now)]
        if self._out is not None:
            self._out.acknowledge(note)
        return []  # Paid comes for it, too.

    def _begin(self, begun: ModelBegan, now: int) -> list[Action]:
        if self._state is not State.ADMITTED:
            return []
        quote, prompt_tokens = self._quote, begun.prompt_tokens
        affordable = output_tokens_affordable(
            self._request.cost_max, prompt_tokens, quote.price_in, quote.price_out
        )
        answer_least = min(1, self._request.output_tokens_max)  # An embed has no tokens of its own.
        if affordable < answer_least:
            sentence = (
                f"The prompt of {prompt_tokens} tokens and the least of an answer cost more than "
                f"the job's cap of {self._request.cost_max} microcredits."
            )
            refused = RefuseIt(Code.COST_EXCEEDED, sentence)
            return [*self._stop(), refused, *self._end(Code.COST_EXCEEDED)]
        self._state, self._said_at = State.RUNNING, now
        self._produced.input_tokens = prompt_tokens
        self._output_tokens_max = min(self._request.output_tokens_max, affordable)
        self._unsaid = Started(self._order_id, prompt_tokens, begun.ids_digest)
        return self._say_started()

    def _say_started(self) -> list[Action]:
        """Once what is paid ahead is: the note of the order's own voucher is not enough, for a
        lower voucher may bear it too."""
        if self._unsaid is None or self._prompt_note or not self._output.is_covered:
            return []
        started, self._unsaid = self._unsaid, None
        return [Say(started)]

    def _hear(self, event: ModelSaid | ModelEmbedded | ModelEnded, now: int) -> list[Action]:
        if self._state is not State.RUNNING or self._ending != "none":
            return []
        match event:
            case ModelSaid():
                return self._say(event, now)
            case ModelEmbedded(vectors):
                return self._give(vectors, now)
            case ModelEnded(reason):
                return self._end_model(reason, now)

    def _say(self, said: ModelSaid, now: int) -> list[Action]:
        produced, out = self._produced, self._output
        tokens = produced.output_tokens + out.tokens_waiting + len(said.ids)
        if tokens > self._output_tokens_max:
            # The model does not know the cap in money: stop it here, and charge only what fits.
            return self._come_to_end("length", now)
        self._heard(now)
        size = self._quote.chunk_tokens
        for start in range(0, len(said.ids) or 1, size):
            end = start + size
            piece = Delta(
                order=self._order_id,
                ids=tuple(said.ids[start:end]),
                text=said.text if end >= len(said.ids) else "",
                logprobs=tuple(tuple(place) for place in said.logprobs[start:end]),
            )
            out.add_tokens(piece, said.leaves[start:end])
        return self._flow(now)

    def _give(self, vectors: Sequence[bytes], now: int) -> list[Action]:
        """Vectors go out signed: there is no preview of them."""
        if len(vectors) > self._vectors_left:
            sentence = "The model gave more vectors than there are texts."
            return [*self._stop(), *self._fail(Code.WORKER_FAILED, sentence)]
        self._heard(now)
        for group in vectors_grouped(vectors):
            self._output.add_vectors(group)
        return self._flow(now)

    @property
    def _vectors_left(self) -> int:
        return self._produced.vectors_left - self._output.vectors_waiting

    @property
    def _output(self) -> Outflow:
        assert self._out is not None
        return self._out

    def _heard(self, now: int) -> None:
        if self._first_at is None:
            self._first_at = now
        self._said_at = now

    def _end_model(self, reason: Finish, now: int) -> list[Action]:
        self._model_runs = False
        left = self._vectors_left
        if reason == "stop" and left:
            sentence = f"The model ended {left} vectors too soon."
            return self._fail(Code.WORKER_FAILED, sentence)
        return self._come_to_end(reason, now)

    def _fail(self, code: Code, sentence: str) -> list[Action]:
        if self._state not in (State.ADMITTED, State.RUNNING):
            return []
        self._model_runs = False
        return [RefuseIt(code, sentence), *self._end(code)]

    def _stop(self) -> list[Action]:
        runs, self._model_runs = self._model_runs, False
        return [StopModel()] if runs else []

    def _come_to_end(self, finish: Finish, now: int) -> list[Action]:
        """Nothing more is produced; what waits goes out in its time, and then the bill."""
        self._ending = finish
        return [*self._stop(), *self._flow(now)]

    def _flow(self, now: int) -> list[Action]:
        """All that the window has room for, and the bill where that is all there is."""
        self._looked_at = now
        if self._state is not State.RUNNING or self._unsaid is not None:
            return []
        out = self._output
        actions: list[Action] = [Say(message) for message in out.flow(now)]
        if self._ending != "none" and not out.is_waiting:
            last = out.last(self._ending, is_embed=self._request.kind == EMBED)
            if last is not None:
                return [*actions, Say(last), Say(self._bill(now))]
        if not out.is_waiting and self._ending == "none":
            self._held_since = None
        elif self._held_since is None:
            self._held_since = now
        return actions

    def _bill(self, now: int) -> Receipt:
        self._state, self._finish = State.BILLED, self._ending
        self._deadline = now + PROVIDER_WAIT_MS_MAX
        first_at = now if self._first_at is None else self._first_at
        ms = [min(at - self._began_at, JOB_MS_MAX) for at in (first_at, now)]
        self._receipt = self._produced.receipt(*ms)
        return self._receipt

    def _settle(self, receipt: Receipt) -> list[Action]:
        if self._state is not State.BILLED:
            return self._stopped(Code.UNEXPECTED)
        agreed = receipt == self._receipt
        return self._end(None if agreed else Code.RECEIPT_DISPUTED, receipted=agreed)

    def _cancel(self, now: int) -> list[Action]:
        match self._state:
            case State.RUNNING if self._unsaid is None:
                self._output.forget_waiting()
                return self._come_to_end("cancelled", now)
            case State.BILLED:
                return []  # Too late: the bill is on its way.
            case _:
                return self._stopped(Code.CANCELLED)

    def _time(self, now: int) -> list[Action]:
        if self.wake_at is None or now < self.wake_at:
            return []
        if self._state is not State.RUNNING:
            return self._time_over() if now >= self._deadline else []
        if now >= self._deadline and self._unsaid is not None:
            return self._time_over()
        if now >= self._deadline and self._ending == "none":
            self._output.forget_waiting()
            return self._come_to_end("length", now)
        since = self._held_since
        if since is not None and now >= since + PROVIDER_WAIT_MS_MAX:
            sentence = (
                f"No voucher came for {PROVIDER_WAIT_MS_MAX} ms, and what was delivered before it "
                f"fills the window of {self._quote.window_chunks} chunks."
            )
            return [*self._stop(), RefuseIt(Code.UNPAID, sentence), *self._end(Code.UNPAID)]
        # There may be room by the end of another order of this channel, of which nobody tells.
        return [*self._show_life(now), *self._say_started(), *self._flow(now)]

    def _show_life(self, now: int) -> list[Action]:
        open_since = self._produced.open_since
        if open_since is not None:
            is_old = now >= open_since + self._quote.chunk_ms
            return [Say(self._output.close())] if is_old else []
        if now < self._said_at + KEEPALIVE_MS:
            return []
        self._said_at = now
        return [Say(Delta(self._order_id, (), ""))] if self._unsaid is None else []

    def _time_over(self) -> list[Action]:
        match self._state:
            case State.QUOTED:
                return self._expire()
            case State.BILLED:
                return self._end(Code.TIMEOUT)
            case _:
                sentence = "The job's time was over before its prompt was read, or paid."
                return [*self._stop(), RefuseIt(Code.TIMEOUT, sentence), *self._end(Code.TIMEOUT)]

    def _expire(self) -> list[Action]:
        sentence = f"No order came within the {self._quote.valid_ms} ms that the quote was valid."
        return [RefuseIt(Code.EXPIRED, sentence), *self._end(Code.EXPIRED)]

    def _stopped(self, code: Code) -> list[Action]:
        """By what the requester said or did."""
        return [*self._stop(), *self._end(code, keeps_ahead=True)]

    def _end(
        self, code: Code | None, *, receipted: bool = False, keeps_ahead: bool = False
    ) -> list[Action]:
        was_read = self._state is State.RUNNING and self._unsaid is None
        self._state = State.OVER
        receipt, produced = self._receipt, self._produced
        loss = Loss(0, 0, 0)
        if self._out is not None:
            loss = self._out.end(keeps_ahead=keeps_ahead and was_read)
        return [
            End(
                code=code,
                input_tokens=produced.input_tokens,
                output_tokens=produced.output_tokens,
                cost=loss.delivered,
                receipted=receipted,
                lost=loss.lost,
                lost_chunks=loss.lost_chunks,
                receipt=receipt,
                finish=self._finish,
                ms_first=receipt.ms_first if receipt is not None else 0,
                ms_total=receipt.ms_total if receipt is not None else 0,
            )
        ]
