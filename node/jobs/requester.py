"""Ask for jobs: the I/O around `protocol.job.requester`. One nursery a job, nothing outlives it."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import assert_never

import trio

from node.jobs.around import Surroundings, now_ms
from node.jobs.courier import Courier, charge
from node.jobs.mailbox import Mailbox
from node.jobs.records import began, state_of
from node.market.choice import Market
from node.market.tally import Tally
from node.network.base import NetworkError
from node.storage.jobs import JobRecord, Role
from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.ids import JobId, MessageId, ModelId, NodeId
from protocol.job.commitment import prompt_commitment, prompt_size, stop_digest
from protocol.job.requester import (
    Accepted,
    Action,
    Ask,
    Came,
    CancelAsked,
    Candidate,
    Countersign,
    Deliver,
    Drop,
    Event,
    Finished,
    OrderSent,
    ProviderLost,
    QuoteCame,
    RequesterJob,
    RequestSent,
    SendCancel,
    SendOrder,
    SendRefuse,
    TimePassed,
)
from protocol.job.sampling import Sampling
from protocol.job.seed import DRAWN, USER, seed_commitment, share_of_user_seed
from protocol.job.terms import (
    Cancel,
    Chunk,
    Delta,
    Order,
    Prompt,
    Quote,
    Receipt,
    Refuse,
    Request,
    Started,
)
from protocol.limits import PROTOCOL_VERSION
from protocol.messages import JOB_PROTOCOL, FromProvider
from protocol.units import Microcredits

_EVENTS_MAX = 64
CLOSE_SECONDS_MAX = 5

Connect = Callable[[NodeId], Awaitable[None]]
"""Make sure that we are connected to a node, or raise NetworkError."""


@dataclass(frozen=True, slots=True)
class Job:
    """What somebody wants done. `candidates` are ranked by the market, the best first."""

    id: JobId
    candidates: Sequence[Candidate]
    modes: tuple[str, ...]
    prompt: Prompt
    stop: tuple[str, ...]
    sampling: Sampling
    output_tokens_max: int
    time_ms_max: int
    cost_max: int
    user_seed: int | None
    model_names: Mapping[ModelId, str]


class Requester:
    """Has jobs done by other nodes."""

    def __init__(self, around: Surroundings, market: Market, connect: Connect) -> None:
        self._around = around
        self._market = market
        self._connect = connect
        self.tally = Tally()
        """Jobs that are not at their end."""

    @asynccontextmanager
    async def ask(self, job: Job) -> AsyncIterator[Mailbox]:
        """Run one job and iterate over what is told of it. Leaving early cancels it: the
        provider stops and bills what it has produced, or after five seconds is dropped."""
        # The best candidate is taken before anything can wait, so that two jobs that are asked
        # for at once see each other.
        run = _Run(self._around, self._market, self._connect, job)
        try:
            with self.tally.counted():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run.run)
                    try:
                        yield run.mailbox
                    finally:
                        run.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None  # The caller's own, as it raised it.
            raise


class _Attempt:
    """One provider's turn: its stream, and the secrets of its request."""

    def __init__(self, number: int, candidate: Candidate, r: bytes, salt: bytes) -> None:
        self.number = number
        self.node = candidate.node
        self.candidate = candidate
        self.r = r
        self.salt = salt
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self.courier: Courier | None = None
        self.request: Request | None = None
        self.id = MessageId(b"")
        """Of the order, or before it of the request."""
        self.ordered = False


class _Run:
    def __init__(self, around: Surroundings, market: Market, connect: Connect, job: Job) -> None:
        self._around = around
        self._market = market
        self._connect = connect
        self._job = job
        self._machine = RequesterJob(job.candidates, job.time_ms_max, now_ms())
        self._ready: deque[Event] = deque()
        self._events_in, self._events_out = trio.open_memory_channel[Event](_EVENTS_MAX)
        self._attempt: _Attempt | None = None
        self._place = ExitStack()
        self._place.enter_context(market.ordering(job.candidates[0].node))
        self._cancelled = self._cancel_told = False
        self._wake = trio.CancelScope()
        self._began_at_ms = now_ms()
        self._started_at_ms = around.wall_ms()
        self._first_at_ms: int | None = None
        self.mailbox = Mailbox()

    def cancel(self) -> None:
        """Ask for the end; `run` comes to it in its own, bounded time."""
        self._cancelled = True
        self._wake.cancel()

    async def run(self) -> None:
        # Shielded, since a cancelled job still takes its bill; the machine's timers bound it.
        with trio.CancelScope(shield=True), self._place:
            async with trio.open_nursery() as nursery:
                actions = self._machine.begin(now_ms())
                while True:
                    for action in actions:
                        if isinstance(action, Finished):
                            self._finish(action)
                            await self._record(action)
                            await self._close(action)
                            nursery.cancel_scope.cancel()
                            return
                        await self._carry_out(action, nursery)
                    actions = self._machine.handle(await self._next(), now_ms())

    async def _next(self) -> Event:
        if self._ready:
            return self._ready.popleft()
        if self._cancelled and not self._cancel_told:
            self._cancel_told = True
            return CancelAsked()
        event: Event = TimePassed()
        wake_at = self._machine.wake_at
        assert wake_at is not None
        with trio.CancelScope(deadline=wake_at / 1000) as self._wake:
            event = await self._events_out.receive()
        return event

    async def _carry_out(self, action: Action, nursery: trio.Nursery) -> None:
        match action:
            case Ask(number, candidate):
                await self._end_attempt()
                self._begin_attempt(number, candidate, nursery)
                return
            case Accepted():
                self.mailbox.put(action)
                return
            case Deliver(ids):
                if ids and self._first_at_ms is None:
                    self._first_at_ms = now_ms()
                self.mailbox.put(action)
                return
            case Finished():
                raise AssertionError("the end is the caller's")
        attempt = self._attempt
        assert attempt is not None
        assert attempt.number == action.attempt
        if attempt.courier is None:
            attempt.scope.cancel()  # It never came so far as to have a stream.
            return
        try:
            await self._say(action, attempt, attempt.courier, nursery)
        except NetworkError:
            self._ready.append(ProviderLost(attempt.number, Code.LOST, _lost_sentence()))

    async def _say(
        self,
        action: SendOrder | SendCancel | Countersign | SendRefuse | Drop,
        attempt: _Attempt,
        courier: Courier,
        nursery: trio.Nursery,
    ) -> None:
        match action:
            case SendOrder(number, quote_id):
                order = Order(
                    quote=quote_id,
                    r=attempt.r,
                    salt=attempt.salt,
                    prompt=self._job.prompt,
                    stop=self._job.stop,
                    prefix_ids=(),
                    channel=b"",
                )
                attempt.id = await courier.send(order)
                attempt.ordered = True
                self._ready.append(OrderSent(number, attempt.id))
                # Off the way to the first token: it is a note for `ayni jobs`, not money.
                nursery.start_soon(self._around.recorder.put, self._began(attempt))
            case SendCancel(_, order_id):
                await courier.send_unsigned(Cancel(order_id))
            case Countersign(_, receipt):
                await courier.send(receipt)
            case SendRefuse(_, code, sentence):
                await courier.refuse(attempt.id, RemoteError(code, sentence))
            case Drop():
                attempt.scope.cancel()
                await courier.reset()
            case _:
                assert_never(action)

    async def _end_attempt(self) -> None:
        """The history has an order that came to nothing before another is placed."""
        attempt = self._attempt
        if attempt is not None and attempt.ordered:
            code = self._machine.failures[-1].code
            await self._around.recorder.put(
                replace(self._began(attempt), state=state_of("none", code), code=code)
            )

    def _begin_attempt(self, number: int, candidate: Candidate, nursery: trio.Nursery) -> None:
        if number > 1:
            self.mailbox.put(self._machine.failures[-1])
            self._place.close()
            self._place.enter_context(self._market.ordering(candidate.node))
        seed = self._job.user_seed
        random_bytes = self._around.random_bytes
        r = random_bytes(32) if seed is None else share_of_user_seed(seed)
        self._attempt = _Attempt(number, candidate, r, random_bytes(32))
        nursery.start_soon(self._talk, self._attempt)

    async def _talk(self, attempt: _Attempt) -> None:
        """One attempt's stream: the request out, then frames into events until it is dropped."""
        try:
            with attempt.scope:
                await self._events_in.send(await self._converse(attempt))
        finally:
            attempt.over.set()

    async def _converse(self, attempt: _Attempt) -> ProviderLost:
        around = self._around
        try:
            await self._connect(attempt.node)
            stream = await around.network.open(attempt.node, JOB_PROTOCOL)
            courier = Courier(stream, around.identity, around.network_id, around.quotas)
            attempt.courier = courier
            attempt.request = self._request(attempt)
            attempt.id = await courier.send(attempt.request)
            event: Event = RequestSent(attempt.number, attempt.request, attempt.id)
            while not isinstance(event, ProviderLost):
                await self._events_in.send(event)
                came: object = await courier.receive(FromProvider)  # type: ignore[arg-type]
                event = _provider_event(came, attempt.number)
            return event
        except NetworkError:
            return ProviderLost(attempt.number, Code.LOST, _lost_sentence())
        except RemoteError as error:
            await charge(around.network, around.quotas, attempt.node, error)
            return ProviderLost(attempt.number, error.code, error.sentence)

    def _request(self, attempt: _Attempt) -> Request:
        job = self._job
        return Request(
            version=PROTOCOL_VERSION,
            network=self._around.network_id,
            provider=attempt.node,
            job=job.id,
            kind="chat" if job.prompt.messages else "completion",
            model=attempt.candidate.model,
            modes=job.modes,
            sampling=job.sampling,
            stop_digest=stop_digest(attempt.salt, job.stop),
            output_tokens_max=job.output_tokens_max,
            time_ms_max=job.time_ms_max,
            cost_max=job.cost_max,
            prompt_bytes=prompt_size(job.prompt),
            prompt_commitment=prompt_commitment(attempt.salt, job.prompt),
            seed_commitment=seed_commitment(attempt.r),
            seed_source=DRAWN if job.user_seed is None else USER,
            first_t=0,
            prefix_hash=b"",
        )

    def _finish(self, finished: Finished) -> None:
        self.mailbox.put(finished)
        self.mailbox.close()

    def _began(self, attempt: _Attempt) -> JobRecord:
        assert attempt.request is not None
        record = began(
            Role.REQUESTER, attempt.request, attempt.id, attempt.node, self._started_at_ms
        )
        return replace(record, model_name=self._job.model_names.get(record.model, ""))

    async def _record(self, finished: Finished) -> None:
        attempt = self._attempt
        if attempt is None or attempt.request is None:
            return  # Nobody was reached, so there is nothing to show for it.
        code = finished.failures[-1].code if finished.reason == "none" else None
        first_at_ms = self._first_at_ms
        await self._around.recorder.put(
            replace(
                self._began(attempt),
                state=state_of(finished.reason, code),
                code=code,
                tokens_in=finished.input_tokens,
                tokens_out=finished.output_tokens,
                cost_microcredits=Microcredits(finished.cost),
                ms_first=0 if first_at_ms is None else first_at_ms - self._began_at_ms,
                ms_total=now_ms() - self._began_at_ms,
            )
        )

    async def _close(self, finished: Finished) -> None:
        attempt = self._attempt
        if attempt is None or attempt.courier is None:
            return
        if finished.receipt is not None:
            await attempt.courier.close()
            with trio.move_on_after(CLOSE_SECONDS_MAX):
                await attempt.over.wait()  # The provider hangs up when it has our signature.
                return
        attempt.scope.cancel()
        await attempt.courier.reset()


def _lost_sentence() -> str:
    return "The connection to the provider was lost."


def _provider_event(came: object, attempt: int) -> Event:
    match came:
        case None:
            return ProviderLost(attempt, Code.LOST, "The provider hung up.")
        case Opened(Quote() as quote, quote_id, _):
            return QuoteCame(attempt, quote, quote_id)
        case Delta():
            return Came(attempt, came)
        case Opened(Started() | Chunk() | Receipt() | Refuse() as message, _, _):
            return Came(attempt, message)
        case _:
            raise RemoteError(Code.UNEXPECTED, "No provider says this in a job.")
