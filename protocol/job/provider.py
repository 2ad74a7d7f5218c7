"""ProviderJob: what to do next with one job that we serve. No I/O, no clock, no chance.

It begins when a quote has been given. The shell signs and sends what it returns, runs the model,
and feeds back what happens; `wake_at` says when it must hear that time has passed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import assert_never

from protocol.errors import Code, RemoteError
from protocol.ids import MessageId
from protocol.job.checks import check_order
from protocol.job.kinds import EMBED
from protocol.job.produced import Produced
from protocol.job.provider_events import (
    CancelCame,
    Event,
    ModelBegan,
    ModelEmbedded,
    ModelEnded,
    ModelFailed,
    ModelSaid,
    OrderCame,
    ReceiptCame,
    RefuseCame,
    RequesterLost,
    TimePassed,
)
from protocol.job.seed import order_seed
from protocol.job.terms import Chunk, Delta, Finish, Order, Quote, Receipt, Request, Started
from protocol.job.vectors import vectors_grouped
from protocol.limits import JOB_MS_MAX, KEEPALIVE_MS, PROVIDER_WAIT_MS_MAX
from protocol.pricing import output_tokens_affordable


# Actions: what the shell must now do.
@dataclass(frozen=True, slots=True)
class RunModel:
    order: Order
    seed: bytes


@dataclass(frozen=True, slots=True)
class StopModel:
    pass


@dataclass(frozen=True, slots=True)
class Say:
    """Sign where it is not a Delta, and send."""

    message: Started | Delta | Chunk | Receipt


@dataclass(frozen=True, slots=True)
class RefuseIt:
    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class End:
    """The one end of the job: what was produced, what it cost, and whether both signed."""

    code: Code | None
    input_tokens: int
    output_tokens: int
    cost: int
    receipted: bool
    cost_signed: int = 0
    """Of the chunks and receipt that were signed: what the requester owes at the most."""
    receipt: Receipt | None = None
    """Ours, where it came so far."""
    finish: Finish = "none"
    ms_first: int = 0
    ms_total: int = 0


Action = RunModel | StopModel | Say | RefuseIt | End


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
        self._state = State.QUOTED
        self._order_id = MessageId(b"")
        self._deadline = now + quote.valid_ms
        self._began_at = now
        self._first_at: int | None = None
        self._said_at = now
        self._output_tokens_max = 0
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
                chunk = self._said_at + KEEPALIVE_MS
                if self._produced.open_since is not None:
                    chunk = self._produced.open_since + self._quote.chunk_ms
                return min(self._deadline, chunk)
            case State.QUOTED | State.ADMITTED | State.BILLED:
                return self._deadline

    def handle(self, event: Event, now: int) -> list[Action]:
        assert not self.over
        match event:
            case OrderCame(order, order_id):
                return self._order(order, order_id, now)
            case ModelBegan(prompt_tokens, ids_digest):
                return self._begin(prompt_tokens, ids_digest, now)
            case ModelSaid():
                return self._say(event, now) if self._state is State.RUNNING else []
            case ModelEmbedded(vectors):
                return self._give(vectors, now) if self._state is State.RUNNING else []
            case ModelEnded(reason):
                return self._end_model(reason, now) if self._state is State.RUNNING else []
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

    def _order(self, order: Order, order_id: MessageId, now: int) -> list[Action]:
        if self._state is not State.QUOTED or order.quote != self._quote_id:
            sentence = "The order names no quote of this stream that is still open."
            return [RefuseIt(Code.REPLAYED, sentence), *self._stopped(Code.REPLAYED)]
        if now > self._deadline:
            return self._expire()
        try:
            check_order(order, self._request)
        except RemoteError as error:
            return [RefuseIt(error.code, error.sentence), *self._end(error.code)]
        self._state, self._order_id = State.ADMITTED, order_id
        self._began_at = self._said_at = now
        self._deadline = now + self._request.time_ms_max
        self._produced.begin(order_id, len(order.prompt.texts))
        seed = order_seed(self._request.seed_source, order.r, self._quote.p, self._produced.terms)
        return [RunModel(order, seed)]

    def _begin(self, prompt_tokens: int, ids_digest: bytes, now: int) -> list[Action]:
        if self._state is not State.ADMITTED:
            return []
        quote = self._quote
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
            return [StopModel(), refused, *self._end(Code.COST_EXCEEDED)]
        self._state, self._said_at = State.RUNNING, now
        self._produced.input_tokens = prompt_tokens
        self._output_tokens_max = min(self._request.output_tokens_max, affordable)
        return [Say(Started(self._order_id, prompt_tokens, ids_digest))]

    def _say(self, said: ModelSaid, now: int) -> list[Action]:
        produced = self._produced
        if produced.output_tokens + len(said.ids) > self._output_tokens_max:
            # The model does not know the cap in money: stop it here, and charge only what fits.
            return [StopModel(), *self._bill("length", now)]
        self._heard(now)
        size = self._quote.chunk_tokens
        actions: list[Action] = []
        for start in range(0, len(said.ids) or 1, size):
            end = start + size
            piece = Delta(
                order=self._order_id,
                ids=tuple(said.ids[start:end]),
                text=said.text if end >= len(said.ids) else "",
                logprobs=tuple(tuple(place) for place in said.logprobs[start:end]),
            )
            if not produced.room(len(piece.ids)):
                actions.append(Say(produced.close("none")))
            produced.add(piece, said.leaves[start:end], now)
            actions.append(Say(piece))
            if not produced.room(1):
                actions.append(Say(produced.close("none")))
        return actions

    def _give(self, vectors: Sequence[bytes], now: int) -> list[Action]:
        """Vectors go out as they come, signed: there is no preview of them."""
        if len(vectors) > self._produced.vectors_left:
            sentence = "The model gave more vectors than there are texts."
            return [StopModel(), *self._fail(Code.WORKER_FAILED, sentence)]
        self._heard(now)
        return [Say(self._produced.give(group, "none")) for group in vectors_grouped(vectors)]

    def _heard(self, now: int) -> None:
        if self._first_at is None:
            self._first_at = now
        self._said_at = now

    def _end_model(self, reason: Finish, now: int) -> list[Action]:
        left = self._produced.vectors_left
        if reason == "stop" and left:
            sentence = f"The model ended {left} vectors too soon."
            return self._fail(Code.WORKER_FAILED, sentence)
        return self._bill(reason, now)

    def _fail(self, code: Code, sentence: str) -> list[Action]:
        if self._state not in (State.ADMITTED, State.RUNNING):
            return []
        return [RefuseIt(code, sentence), *self._end(code)]

    def _bill(self, finish: Finish, now: int) -> list[Action]:
        self._state, self._finish = State.BILLED, finish
        produced = self._produced
        embeds = self._request.kind == EMBED
        chunk = produced.give((), finish) if embeds else produced.close(finish)
        self._deadline = now + PROVIDER_WAIT_MS_MAX
        first_at = now if self._first_at is None else self._first_at
        self._receipt = Receipt(
            order=self._order_id,
            input_tokens=produced.input_tokens,
            output_tokens=produced.output_tokens,
            cost=produced.cost,
            running=produced.running,
            millijoules=0,
            energy_source="none",
            ms_first=min(first_at - self._began_at, JOB_MS_MAX),
            ms_total=min(now - self._began_at, JOB_MS_MAX),
        )
        return [Say(chunk), Say(self._receipt)]

    def _settle(self, receipt: Receipt) -> list[Action]:
        if self._state is not State.BILLED:
            return self._stopped(Code.UNEXPECTED)
        return (
            self._end(None, receipted=True)
            if receipt == self._receipt
            else self._end(Code.RECEIPT_DISPUTED)
        )

    def _cancel(self, now: int) -> list[Action]:
        match self._state:
            case State.RUNNING:
                return [StopModel(), *self._bill("cancelled", now)]
            case State.BILLED:
                return []  # Too late: the bill is on its way.
            case _:
                return self._stopped(Code.CANCELLED)

    def _time(self, now: int) -> list[Action]:
        if self.wake_at is None or now < self.wake_at:
            return []
        if now >= self._deadline:
            match self._state:
                case State.RUNNING:
                    return [StopModel(), *self._bill("length", now)]
                case State.ADMITTED:
                    sentence = "The job's time was over before the model began."
                    refused = RefuseIt(Code.TIMEOUT, sentence)
                    return [StopModel(), refused, *self._end(Code.TIMEOUT)]
                case State.QUOTED:
                    return self._expire()
                case _:
                    return self._end(Code.TIMEOUT)
        if self._produced.open_since is not None:
            return [Say(self._produced.close("none"))]
        self._said_at = now
        return [Say(Delta(self._order_id, (), ""))]

    def _expire(self) -> list[Action]:
        sentence = f"No order came within the {self._quote.valid_ms} ms that the quote was valid."
        return [RefuseIt(Code.EXPIRED, sentence), *self._end(Code.EXPIRED)]

    def _stopped(self, code: Code) -> list[Action]:
        running = self._state in (State.ADMITTED, State.RUNNING)
        return [*([StopModel()] if running else []), *self._end(code)]

    def _end(self, code: Code | None, *, receipted: bool = False) -> list[Action]:
        self._state = State.OVER
        receipt, produced = self._receipt, self._produced
        end = End(
            code=code,
            input_tokens=produced.input_tokens,
            output_tokens=produced.output_tokens,
            cost=produced.cost,
            receipted=receipted,
            cost_signed=produced.cost_signed,
            receipt=receipt,
        )
        if receipt is not None:
            end = replace(
                end, finish=self._finish, ms_first=receipt.ms_first, ms_total=receipt.ms_total
            )
        return [end]
