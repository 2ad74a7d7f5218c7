"""RequesterJob: what to do next with one job that we ask for. No I/O, no clock, no chance.

It tries its candidates one after another until one has started. After that the job is bound to
that provider: going on elsewhere in mid-answer is a later version's.
"""

from collections.abc import Sequence
from enum import Enum
from typing import assert_never

from protocol.errors import Code, RemoteError, code_known
from protocol.ids import MessageId
from protocol.job.answer import Answer, answer_to
from protocol.job.checks import NO_PAYMENT, check_quote, prompt_first
from protocol.job.requester_actions import (
    Accepted,
    Action,
    Ask,
    Candidate,
    Countersign,
    Deliver,
    DeliverVectors,
    Drop,
    Failure,
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
    NotOrdered,
    OrderSent,
    ProviderLost,
    QuoteCame,
    RequestSent,
    TimePassed,
)
from protocol.job.terms import Chunk, Delta, Finish, Quote, Receipt, Refuse, Request, Started
from protocol.limits import (
    ATTEMPTS_MAX,
    CANCEL_MS_MAX,
    CHANNEL_MS_MAX,
    HANDSHAKE_MS_MAX,
    SILENCE_MS_MAX,
)
from protocol.units import Microcredits

CHANNEL_REFUSED = (Code.UNPAID, Code.NO_CHANNEL, Code.CHANNEL_CLOSED, Code.BAD_VOUCHER)
"""What another channel, or the same shown again, can mend."""


class State(Enum):
    IDLE = "idle"
    FUNDING = "funding"  # A channel to the candidate is looked for.
    ASKING = "asking"  # A request is being sent or has been.
    ORDERING = "ordering"  # A quote was taken; the order is being sent.
    ORDERED = "ordered"
    RUNNING = "running"
    ENDED = "ended"  # The last chunk came; the receipt has not.
    OVER = "over"


class RequesterJob:
    """One job seen from the requester. Feed it events; carry out the actions it returns."""

    def __init__(
        self, candidates: Sequence[Candidate], time_ms_max: int, now: int, texts: int = 0
    ) -> None:
        """`texts` is how many an embed asks for."""
        assert candidates
        self._texts = texts
        self._waiting = list(candidates)
        self._state = State.IDLE
        self._job_deadline = now + time_ms_max
        self._deadline = self._job_deadline
        self._attempt = 0
        self._candidate: Candidate | None = None
        self._request: tuple[Request, MessageId] | None = None
        self._quote: Quote | None = None
        self._order_id = MessageId(b"")
        self._answer: Answer | None = None
        self._cancelling = False
        self._spent = 0  # By orders that came to nothing.
        self._mistrusted: Candidate | None = None  # Who has had its second chance.
        self._failures: list[Failure] = []

    @property
    def over(self) -> bool:
        return self._state is State.OVER

    @property
    def failures(self) -> Sequence[Failure]:
        """Each provider that was tried in vain, so far."""
        return tuple(self._failures)

    @property
    def wake_at(self) -> int | None:
        """When the shell must next feed TimePassed, in ms, if nothing else happens first."""
        return None if self._state in (State.IDLE, State.OVER) else self._deadline

    def begin(self, now: int) -> list[Action]:
        """The first actions."""
        assert self._state is State.IDLE
        return self._next(now)

    def handle(self, event: Event, now: int) -> list[Action]:
        assert not self.over
        assert self._state is not State.IDLE
        if isinstance(event, CancelAsked):
            return self._cancel(now)
        if isinstance(event, TimePassed):
            return self._time(now)
        if event.attempt != self._attempt:
            return []
        try:
            return self._take(event, now)
        except RemoteError as error:
            refused = SendRefuse(self._attempt, error.code, error.sentence)
            return [refused, *self._fail(error.code, error.sentence, 0, now)]

    def _take(
        self,
        event: Funded | RequestSent | QuoteCame | OrderSent | NotOrdered | Came | ProviderLost,
        now: int,
    ) -> list[Action]:
        match event:
            case Funded():
                assert self._state is State.FUNDING
                self._state = State.ASKING
                self._wait(HANDSHAKE_MS_MAX, now)
                return []
            case RequestSent(_, request, request_id):
                assert self._state is State.ASKING
                self._request = (request, request_id)
                return []
            case QuoteCame(_, quote, quote_id):
                return self._take_quote(quote, quote_id, now)
            case OrderSent(_, order_id):
                assert self._state is State.ORDERING
                self._state, self._order_id = State.ORDERED, order_id
                return []
            case NotOrdered(_, code, sentence):
                assert self._state is State.FUNDING
                self._failures.append(Failure(None, code, sentence))
                return [Drop(self._attempt), *self._next(now)]
            case Came(_, message):
                return self._take_message(message, now)
            case ProviderLost(_, code, sentence):
                return self._fail(code, sentence, 0, now)
            case _:
                assert_never(event)

    def _take_quote(self, quote: Quote, quote_id: MessageId, now: int) -> list[Action]:
        if self._state is not State.ASKING or self._request is None:
            raise RemoteError(Code.UNEXPECTED, "A quote came that nobody had asked for.")
        assert self._candidate is not None
        request, request_id = self._request
        if quote.request != request_id:
            raise RemoteError(Code.CONTRADICTION, "The quote answers another request.")
        check_quote(quote, request, self._candidate.price_in, self._candidate.price_out)
        self._state, self._quote = State.ORDERING, quote
        self._answer = answer_to(request, request_id, quote, quote_id, self._texts)
        self._wait(HANDSHAKE_MS_MAX + quote.queue_ms, now)
        ahead, is_paid = prompt_first(request, quote), quote.payment != NO_PAYMENT
        self._spent += ahead
        return [SendOrder(self._attempt, quote_id, is_paid, ahead)]

    def _take_message(
        self, message: Started | Delta | Chunk | Receipt | Refuse, now: int
    ) -> list[Action]:
        if isinstance(message, Refuse):
            code = code_known(message.code)
            is_unread = self._state is State.ORDERED
            return self._fail(code, message.sentence, message.retry_ms, now, is_unread=is_unread)
        answer = self._answer
        if answer is None or message.order != self._order_id:
            raise RemoteError(Code.UNEXPECTED, "A message came for no order of this stream.")
        match self._state, message:
            case State.ORDERED, Started():
                assert self._candidate is not None
                assert self._quote is not None
                answer.start(message)
                self._state = State.RUNNING
                self._heard(now)
                return [
                    Accepted(self._attempt, self._candidate, self._quote, message.prompt_tokens)
                ]
            case State.RUNNING, Delta():
                answer.add(message)
                self._heard(now)
                if message.ids or message.text:
                    return [Deliver(message.ids, message.text, message.logprobs)]
                return []
            case State.RUNNING, Chunk():
                answer.cover(message)
                self._heard(now)
                if message.finish != "none":
                    self._state = State.ENDED
                    self._deadline = now + HANDSHAKE_MS_MAX
                told = [DeliverVectors(message.vectors)] if message.vectors else []
                return [*self._pay(answer), *told]
            case State.ENDED, Receipt():
                return self._settle(answer, message)
            case _:
                kind = type(message).__name__.lower()
                raise RemoteError(Code.UNEXPECTED, f"A {kind} came out of turn.")

    def _settle(self, answer: Answer, receipt: Receipt) -> list[Action]:
        try:
            answer.settle(receipt)
        except RemoteError as error:
            # The answer is whole; only the bill is not. What the signed chunks say is paid.
            self._failures.append(Failure(self._candidate, error.code, error.sentence))
            refused = SendRefuse(self._attempt, error.code, error.sentence)
            return [refused, *self._finish(answer.finish, None)]
        return self._finish(answer.finish, receipt)

    def _next(self, now: int) -> list[Action]:
        tried = self._attempt
        if not self._waiting or tried == ATTEMPTS_MAX or now >= self._job_deadline:
            if not self._failures:
                sentence = "The job's time was over before a provider was found."
                self._failures.append(Failure(None, Code.TIMEOUT, sentence))
            return self._finish("none", None)
        return self._ask(self._waiting.pop(0), None, now)

    def _ask(self, candidate: Candidate, mistrust: Failure | None, now: int) -> list[Action]:
        self._attempt += 1
        self._candidate = candidate
        self._request, self._quote, self._answer = None, None, None
        self._order_id = MessageId(b"")
        if candidate.price_in or candidate.price_out:
            self._state = State.FUNDING
            self._wait(CHANNEL_MS_MAX, now)
        else:
            self._state = State.ASKING
            self._wait(HANDSHAKE_MS_MAX, now)
        return [Ask(self._attempt, candidate, Microcredits(self._spent), mistrust)]

    def _fail(
        self, code: Code, sentence: str, retry_ms: int, now: int, *, is_unread: bool = False
    ) -> list[Action]:
        """This attempt is over; before anything was started the next candidate gets the job."""
        drop = Drop(self._attempt, is_unread)
        if self._state is State.ENDED:
            assert self._answer is not None
            self._failures.append(Failure(self._candidate, code, sentence, retry_ms))
            return [drop, *self._finish(self._answer.finish, None)]
        self._failures.append(Failure(self._candidate, code, sentence, retry_ms))
        if self._state is State.RUNNING:
            reason: Finish = "cancelled" if self._cancelling else "none"
            return [drop, *self._finish(reason, None)]
        failure, candidate = self._failures[-1], self._candidate
        is_payable = self._state is State.ORDERED and code in CHANNEL_REFUSED
        if is_payable and candidate != self._mistrusted and self._attempt < ATTEMPTS_MAX:
            assert candidate is not None
            self._mistrusted = candidate
            return [drop, *self._ask(candidate, failure, now)]
        return [drop, *self._next(now)]

    def _cancel(self, now: int) -> list[Action]:
        if self._state is State.RUNNING:
            if self._cancelling:
                return []
            self._cancelling = True
            self._deadline = now + CANCEL_MS_MAX
            return [SendCancel(self._attempt, self._order_id)]
        if self._state is State.ENDED:
            return []  # All of it is here but the bill, which comes at once.
        return [Drop(self._attempt), *self._finish("cancelled", None)]

    def _time(self, now: int) -> list[Action]:
        if self.wake_at is None or now < self.wake_at:
            return []
        if self._state is State.RUNNING and not self._cancelling and now >= self._job_deadline:
            return self._cancel(now)
        waited = "its bill" if self._state is State.ENDED else "a word"
        return self._fail(Code.TIMEOUT, f"The provider sent {waited} no more.", 0, now)

    def _finish(self, reason: Finish, receipt: Receipt | None) -> list[Action]:
        self._state = State.OVER
        answer = self._answer
        signed = [Countersign(self._attempt, receipt)] if receipt is not None else []
        return [
            *signed,
            Finished(
                reason=reason,
                candidate=self._candidate,
                receipt=receipt,
                input_tokens=answer.input_tokens if answer else 0,
                output_tokens=answer.output_tokens if answer else 0,
                cost=answer.cost if answer else 0,
                failures=tuple(self._failures),
            ),
        ]

    def _pay(self, answer: Answer) -> list[Action]:
        quote = self._quote
        if quote is None or quote.payment == NO_PAYMENT or not answer.cost:
            return []
        return [Pay(self._attempt, self._order_id, answer.place, Microcredits(answer.cost))]

    def _wait(self, ms: int, now: int) -> None:
        self._deadline = min(self._job_deadline, now + ms)

    def _heard(self, now: int) -> None:
        if not self._cancelling:
            self._wait(SILENCE_MS_MAX, now)
