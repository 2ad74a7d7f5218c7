"""Ask for jobs: the I/O around `protocol.job.requester`. One nursery a job, nothing outlives it."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from typing import assert_never

import trio

from node.channels.base import Payer
from node.jobs.around import Surroundings, now_ms
from node.jobs.attempt import Attempt, Connect, Job, is_priced, job_worst, lost
from node.jobs.courier import Courier
from node.jobs.mailbox import Mailbox
from node.jobs.records import began, bill_paid, put_bill, put_record, state_of
from node.market.choice import Market
from node.market.tally import Tally
from node.network.base import NetworkError
from node.storage.bills import BillStore
from node.storage.jobs import JobRecord, Role
from protocol.errors import Code, LocalError, RemoteError
from protocol.job.requester import RequesterJob
from protocol.job.requester_actions import (
    Accepted,
    Action,
    Ask,
    Countersign,
    Deliver,
    DeliverVectors,
    Drop,
    Finished,
    Pay,
    SendCancel,
    SendOrder,
    SendRefuse,
)
from protocol.job.requester_events import (
    CancelAsked,
    Event,
    OrderSent,
    ProviderLost,
    TimePassed,
)
from protocol.job.terms import Cancel
from protocol.limits import ATTEMPTS_MAX
from protocol.units import Microcredits, credits_text

_EVENTS_MAX = 64
CLOSE_SECONDS_MAX = 5


class Requester:
    """Has jobs done by other nodes."""

    def __init__(
        self,
        around: Surroundings,
        market: Market,
        connect: Connect,
        payer: Payer,
        bills: BillStore,
    ) -> None:
        self._around = around
        self._market = market
        self._connect = connect
        self._payer = payer
        self._bills = bills
        self.tally = Tally()
        """Jobs that are not at their end."""

    @asynccontextmanager
    async def ask(self, job: Job) -> AsyncIterator[Mailbox]:
        """Run one job and iterate over what is told of it. Leaving early cancels it: the
        provider stops and bills what it has produced, or after five seconds is dropped.

        Raises LocalError OVERDRAWN where no candidate's answer could be paid for whole.
        """
        job = self._affordable(job)
        # The best candidate is taken before anything can wait, so that two jobs that are asked
        # for at once see each other.
        run = _Run(self._around, self._market, self._connect, (self._payer, self._bills), job)
        try:
            with self.tally.counted():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run.run)
                    try:
                        yield run.mailbox
                    finally:
                        run.cancel()
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from None  # The caller's own, as it raised it.

    def _affordable(self, job: Job) -> Job:
        """The job, for those candidates only that could be paid now, whatever they answer."""
        worst = {one: job_worst(job, one, job.cost_max) for one in job.candidates}
        spendable = self._payer.spendable
        candidates = [one for one in job.candidates if worst[one] <= spendable]
        if not candidates:
            raise LocalError(
                Code.OVERDRAWN,
                f"This job may cost {credits_text(min(worst.values()))} credits; "
                f"{credits_text(spendable)} can be spent on one now. Share a model to earn some, "
                "have some sent to you, or set a lower cap on the cost.",
            )
        return replace(job, candidates=candidates)


class _Run:
    def __init__(
        self,
        around: Surroundings,
        market: Market,
        connect: Connect,
        money: tuple[Payer, BillStore],
        job: Job,
    ) -> None:
        self._around = around
        self._market = market
        self._connect = connect
        self._payer, self._bills = money
        self._job = job
        self._machine = RequesterJob(
            job.candidates, job.time_ms_max, now_ms(), len(job.prompt.texts)
        )
        self._ready: deque[Event] = deque()
        self._events_in, self._events_out = trio.open_memory_channel[Event](_EVENTS_MAX)
        self._attempt: Attempt | None = None
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
                            await self._book(action)
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
            case Ask():
                await self._end_attempt()
                self._begin_attempt(action, nursery)
                return
            case Accepted():
                self._expect_more()
                self.mailbox.put(action)
                return
            case Deliver(ids):
                if ids and self._first_at_ms is None:
                    self._first_at_ms = now_ms()
                self.mailbox.put(action)
                return
            case DeliverVectors():
                if self._first_at_ms is None:
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
            self._ready.append(lost(attempt.number))
        except LocalError as error:
            self._ready.append(ProviderLost(attempt.number, error.code, error.sentence))

    async def _say(
        self,
        action: SendOrder | SendCancel | Pay | Countersign | SendRefuse | Drop,
        attempt: Attempt,
        courier: Courier,
        nursery: trio.Nursery,
    ) -> None:
        match action:
            case SendOrder(number):
                attempt.id = await courier.send(attempt.order(action))
                attempt.ordered = True
                self._ready.append(OrderSent(number, attempt.id))
                # Off the way to the first token: it is a note for `ayni jobs`, not money.
                nursery.start_soon(put_record, self._around, self._began(attempt))
            case SendCancel(_, order_id):
                await courier.send_unsigned(Cancel(order_id))
            case Pay():
                await attempt.pay(action, courier)
            case Countersign(_, receipt):
                await courier.send(receipt)
            case SendRefuse(_, code, sentence):
                await courier.refuse(attempt.id, RemoteError(code, sentence))
            case Drop(_, is_unread):
                if is_unread:
                    attempt.return_ahead()
                attempt.scope.cancel()
                await courier.reset()
            case _:
                assert_never(action)

    async def _end_attempt(self) -> None:
        """The history has an order that came to nothing before another is placed."""
        attempt = self._attempt
        if attempt is not None and attempt.ordered:
            code = self._machine.failures[-1].code
            record = replace(
                self._began(attempt),
                state=state_of("none", code),
                code=code,
                cost_microcredits=Microcredits(attempt.ahead),
            )
            await put_record(self._around, record)

    def _begin_attempt(self, ask: Ask, nursery: trio.Nursery) -> None:
        before = self._attempt
        refused = None if before is None or before.spending is None else before.spending.channel
        if ask.attempt > 1:
            self.mailbox.put(self._machine.failures[-1])
            self._place.close()
            self._place.enter_context(self._market.ordering(ask.candidate.node))
        self._attempt = Attempt(self._around, self._job, ask, self._payer, refused)
        nursery.start_soon(self._attempt.talk, self._connect, self._events_in)

    def _finish(self, finished: Finished) -> None:
        self.mailbox.put(finished)
        self.mailbox.close()

    def _began(self, attempt: Attempt) -> JobRecord:
        assert attempt.request is not None
        record = began(
            Role.REQUESTER, attempt.request, attempt.id, attempt.node, self._started_at_ms
        )
        return replace(record, model_name=self._job.model_names.get(record.model, ""))

    def _expect_more(self) -> None:
        """This job runs; the next of its kind is likely to go to the same few providers."""
        priced = [one for one in self._job.candidates[:ATTEMPTS_MAX] if is_priced(one)]
        job = self._job
        self._payer.expect([(one.node, job_worst(job, one, job.cost_max)) for one in priced])

    async def _book(self, finished: Finished) -> None:
        attempt = self._attempt
        if attempt is not None and attempt.ordered and finished.cost:
            bill = bill_paid(self._around, attempt, finished, finished.receipt)
            await put_bill(self._bills, bill)

    async def _record(self, finished: Finished) -> None:
        attempt = self._attempt
        if attempt is None or attempt.request is None or not attempt.id:
            return  # Nobody was reached, so there is nothing to show for it.
        code = finished.failures[-1].code if finished.reason == "none" else None
        first_at_ms = self._first_at_ms
        # Without a receipt the provider keeps what was paid ahead for the prompt.
        cost = finished.cost if finished.receipt else max(finished.cost, attempt.ahead)
        record = replace(
            self._began(attempt),
            state=state_of(finished.reason, code),
            code=code,
            tokens_in=finished.input_tokens,
            tokens_out=finished.output_tokens,
            cost_microcredits=Microcredits(cost),
            ms_first=0 if first_at_ms is None else first_at_ms - self._began_at_ms,
            ms_total=now_ms() - self._began_at_ms,
        )
        await put_record(self._around, record)

    async def _close(self, finished: Finished) -> None:
        attempt = self._attempt
        if attempt is None or attempt.courier is None:
            return
        if finished.receipt is not None or attempt.courier.refused:
            await attempt.courier.close()
            with trio.move_on_after(CLOSE_SECONDS_MAX):
                await attempt.over.wait()  # The provider hangs up when it has our last word.
                if finished.receipt is not None:
                    attempt.return_ahead()  # Its window counts so since before it hung up.
                return
        attempt.scope.cancel()
        await attempt.courier.reset()
