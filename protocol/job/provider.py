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
from protocol.job.commitment import RUNNING_START, running_hash, terms_digest
from protocol.job.seed import order_seed
from protocol.job.terms import Chunk, Delta, Finish, Order, Quote, Receipt, Refuse, Request, Started
from protocol.limits import JOB_MS_MAX, KEEPALIVE_MS, PROVIDER_WAIT_MS_MAX
from protocol.pricing import cost, output_tokens_affordable


# Events: what happened.
@dataclass(frozen=True, slots=True)
class OrderCame:
    order: Order
    id: MessageId


@dataclass(frozen=True, slots=True)
class ModelBegan:
    prompt_tokens: int
    ids_digest: bytes


@dataclass(frozen=True, slots=True)
class ModelSaid:
    ids: Sequence[int]
    text: str


@dataclass(frozen=True, slots=True)
class ModelEnded:
    reason: Finish


@dataclass(frozen=True, slots=True)
class ModelFailed:
    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class CancelCame:
    pass


@dataclass(frozen=True, slots=True)
class ReceiptCame:
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class RefuseCame:
    refuse: Refuse


@dataclass(frozen=True, slots=True)
class RequesterLost:
    pass


@dataclass(frozen=True, slots=True)
class TimePassed:
    pass


Event = (
    OrderCame
    | ModelBegan
    | ModelSaid
    | ModelEnded
    | ModelFailed
    | CancelCame
    | ReceiptCame
    | RefuseCame
    | RequesterLost
    | TimePassed
)


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
        self._terms = terms_digest(request_id, quote_id)
        self._state = State.QUOTED
        self._order_id = MessageId(b"")
        self._deadline = now + quote.valid_ms
        self._began_at = now
        self._first_at: int | None = None
        self._said_at = now
        self._input_tokens = 0
        self._output_tokens = 0
        self._output_tokens_max = 0
        self._cost_signed = 0
        self._running = RUNNING_START
        self._open_ids: list[int] = []  # Of the chunk that is not closed yet.
        self._open_text: list[str] = []
        self._open_since: int | None = None
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
                if self._open_since is not None:
                    chunk = self._open_since + self._quote.chunk_ms
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
            case ModelSaid(ids, text):
                return self._say(ids, text, now) if self._state is State.RUNNING else []
            case ModelEnded(reason):
                return self._bill(reason, now) if self._state is State.RUNNING else []
            case ModelFailed(code, sentence):
                if self._state not in (State.ADMITTED, State.RUNNING):
                    return []
                return [RefuseIt(code, sentence), *self._end(code)]
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
        seed = order_seed(self._request.seed_source, order.r, self._quote.p, self._terms)
        return [RunModel(order, seed)]

    def _begin(self, prompt_tokens: int, ids_digest: bytes, now: int) -> list[Action]:
        if self._state is not State.ADMITTED:
            return []
        quote = self._quote
        affordable = output_tokens_affordable(
            self._request.cost_max, prompt_tokens, quote.price_in, quote.price_out
        )
        if affordable < 1:
            sentence = (
                f"The prompt of {prompt_tokens} tokens and one token of answer cost more than the "
                f"job's cap of {self._request.cost_max} microcredits."
            )
            refused = RefuseIt(Code.COST_EXCEEDED, sentence)
            return [StopModel(), refused, *self._end(Code.COST_EXCEEDED)]
        self._state, self._said_at = State.RUNNING, now
        self._input_tokens = prompt_tokens
        self._output_tokens_max = min(self._request.output_tokens_max, affordable)
        return [Say(Started(self._order_id, prompt_tokens, ids_digest))]

    def _say(self, ids: Sequence[int], text: str, now: int) -> list[Action]:
        if self._output_tokens + len(ids) > self._output_tokens_max:
            # The model does not know the cap in money: stop it here, and charge only what fits.
            return [StopModel(), *self._bill("length", now)]
        size = self._quote.chunk_tokens
        pieces = [ids[start : start + size] for start in range(0, len(ids), size)] or [ids]
        actions: list[Action] = []
        for number, piece in enumerate(pieces):
            words = text if number == len(pieces) - 1 else ""
            if len(self._open_ids) + len(piece) > size:
                actions.append(self._close("none"))
            actions.append(self._open(piece, words, now))
            if len(self._open_ids) == size:
                actions.append(self._close("none"))
        return actions

    def _open(self, ids: Sequence[int], text: str, now: int) -> Action:
        if self._first_at is None:
            self._first_at = now
        if self._open_since is None:
            self._open_since = now
        self._said_at = now
        self._output_tokens += len(ids)
        self._open_ids += ids
        self._open_text.append(text)
        return Say(Delta(self._order_id, tuple(ids), text))

    def _close(self, finish: Finish) -> Action:
        ids, text = self._open_ids, "".join(self._open_text)
        first_t = self._request.first_t + self._output_tokens - len(ids)
        self._running = running_hash(self._running, first_t, ids, text)
        self._open_ids, self._open_text, self._open_since = [], [], None
        self._cost_signed = self._cost
        return Say(
            Chunk(
                order=self._order_id,
                terms=self._terms,
                first_t=first_t,
                ids=tuple(ids),
                root=b"",
                running=self._running,
                cost=self._cost,
                finish=finish,
            )
        )

    @property
    def _cost(self) -> int:
        return cost(
            self._input_tokens, self._output_tokens, self._quote.price_in, self._quote.price_out
        )

    def _bill(self, finish: Finish, now: int) -> list[Action]:
        self._state, self._finish = State.BILLED, finish
        chunk = self._close(finish)
        self._deadline = now + PROVIDER_WAIT_MS_MAX
        first_at = now if self._first_at is None else self._first_at
        self._receipt = Receipt(
            order=self._order_id,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            cost=self._cost,
            running=self._running,
            millijoules=0,
            energy_source="none",
            ms_first=min(first_at - self._began_at, JOB_MS_MAX),
            ms_total=min(now - self._began_at, JOB_MS_MAX),
        )
        return [chunk, Say(self._receipt)]

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
        if self._open_since is not None:
            return [self._close("none")]
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
        receipt = self._receipt
        end = End(
            code=code,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            cost=self._cost,
            receipted=receipted,
            cost_signed=self._cost_signed,
            receipt=receipt,
        )
        if receipt is not None:
            end = replace(
                end, finish=self._finish, ms_first=receipt.ms_first, ms_total=receipt.ms_total
            )
        return [end]
