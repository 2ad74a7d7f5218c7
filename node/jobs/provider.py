"""Serve jobs: the I/O around `protocol.job.provider`. The only awaits of a served job are here."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import assert_never

import trio

from node.channels.base import Earning, Payee
from node.jobs.around import Surroundings, now_ms
from node.jobs.courier import Courier, charge
from node.jobs.inference import Begun, EmbedTask, Ended, Inference, Task, Tokens, Vectors
from node.jobs.inference import Event as ModelEvent
from node.jobs.records import began, bill_earned, put_bill, put_record, state_of
from node.jobs.vouchers import Vouchers
from node.market.desk import Desk
from node.network.base import NetworkError, Stream
from node.storage.bills import BillStore
from node.storage.jobs import JobRecord, Role
from node.telemetry.logs import Log
from protocol.envelope import Opened, Signed
from protocol.errors import AyniError, Code, LocalError, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.job.checks import NO_PAYMENT, check_request
from protocol.job.kinds import EMBED
from protocol.job.provider import ProviderJob
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
    ReceiptCame,
    RefuseCame,
    RequesterLost,
    TimePassed,
    Unpayable,
)
from protocol.job.terms import Cancel, Delta, Order, Quote, Receipt, Refuse, Request
from protocol.ledger.voucher import voucher_opened
from protocol.limits import PROVIDER_WAIT_MS_MAX, REQUESTS_REMEMBERED_MAX
from protocol.messages import FromRequester
from protocol.units import Microcredits

_EVENTS_MAX = 64
_log = Log("jobs.provider")

Record = Callable[[JobRecord], Awaitable[None]]


class Provider:
    """Serves the job protocol: `network.serve(JOB_PROTOCOL, provider.serve)`."""

    def __init__(
        self,
        around: Surroundings,
        desk: Desk,
        inference: Inference,
        payee: Payee,
        bills: BillStore,
    ) -> None:
        self._around = around
        self._desk = desk
        self._inference = inference
        self._payee = payee
        self._bills = bills
        self._requests_seen: OrderedDict[MessageId, None] = OrderedDict()

    async def serve(self, stream: Stream) -> None:
        """One stream, one job. What the peer does wrong costs it this stream."""
        around = self._around
        courier = Courier(stream, around.identity, around.network_id, around.quotas)
        try:
            await self._serve(courier)
        except NetworkError:
            await courier.reset()
        except RemoteError as error:
            _log.info("job.refused", peer=courier.peer.hex()[:8], code=error.code)
            await (courier.finish() if courier.refused else courier.reset())
            await charge(around.network, around.quotas, courier.peer, error)

    async def _serve(self, courier: Courier) -> None:
        opened: Opened[Request] | Signed | Delta | Cancel | None = None
        with trio.move_on_after(PROVIDER_WAIT_MS_MAX / 1000):
            opened = await courier.receive(Request)
        if opened is None:
            return
        if not isinstance(opened, Opened):
            raise RemoteError(Code.UNEXPECTED, "A job begins with a request.")
        try:
            self._check(opened)
            with self._desk.attended(courier.peer):
                await self._quote_and_run(courier, opened)
        except (LocalError, RemoteError) as error:
            refusal = RemoteError(error.code, error.sentence, error.retry_ms)
            if not courier.refused:
                await courier.refuse(opened.id, refusal)
            raise refusal from None

    def _check(self, opened: Opened[Request]) -> None:
        check_request(opened.value, self._around.network_id, self._around.identity.node)
        if opened.id in self._requests_seen:
            raise RemoteError(Code.REPLAYED, "This very request came before; make a new one.")
        self._requests_seen[opened.id] = None
        if len(self._requests_seen) > REQUESTS_REMEMBERED_MAX:
            self._requests_seen.popitem(last=False)

    async def _quote_and_run(self, courier: Courier, opened: Opened[Request]) -> None:
        request = opened.value
        terms = self._payee.terms(courier.peer)
        quote = self._desk.quote(request, opened.id, self._around.random_bytes(32), terms)
        quote_id = await courier.send(quote)
        job = ProviderJob(request, opened.id, quote, quote_id, now_ms())
        run = _Run(courier, job, request, self._inference, self._record)
        started_at_ms = self._around.wall_ms()
        async with AsyncExitStack() as channel:
            purse = _Purse(self._around, self._payee, quote, courier.peer, channel)
            end = await run.run(purse, started_at_ms)
        if end.cost and quote.payment != NO_PAYMENT:
            bill = bill_earned(self._around, courier.peer, job.order_id, end, run.countersignature)
            await put_bill(self._bills, bill)
        if job.order_id:
            await self._record(run.ended(end, started_at_ms))
        await courier.finish()
        if run.fault is not None:
            raise run.fault

    async def _record(self, record: JobRecord) -> None:
        served = {model.model: model.name for model in self._inference.served}
        name = served.get(record.model, "")
        await put_record(self._around, replace(record, model_name=name))


class _Purse:
    """The channel that the order of one stream names."""

    def __init__(
        self,
        around: Surroundings,
        payee: Payee,
        quote: Quote,
        requester: NodeId,
        channel: AsyncExitStack,
    ) -> None:
        self._around = around
        self._payee = payee
        self._quote = quote
        self._requester = requester
        self._channel = channel
        self.earning: Earning | None = None
        """From the order on, where it costs something."""

    async def opened(self, came: OrderCame) -> OrderCame:
        """The order with what its job must know of its channel. Raises LocalError as
        `Payee.earn`, and RemoteError for a voucher that does not hold."""
        order = came.order
        if self._quote.payment == NO_PAYMENT or self.earning is not None:
            return came  # One that comes again is the job's to refuse.
        if not order.channel:
            raise RemoteError(
                Code.NO_CHANNEL, "The quote asks for payment by a channel; the order names none."
            )
        channel = MessageId(order.channel)
        earn = self._payee.earn(self._requester, channel, self._quote.window_chunks)
        earning = await self._channel.enter_async_context(earn)
        voucher = None
        if order.voucher is not None:
            network = self._around.network_id
            voucher = voucher_opened(order.voucher, self._requester, network).value
            if voucher.channel != channel:
                raise RemoteError(
                    Code.BAD_VOUCHER, "The order's voucher is of another channel than the order."
                )
        self.earning = earning
        return OrderCame(order, came.id, earning.window, voucher)


class _Run:
    """One job from its quote to its end; every task that it starts is over when `run` returns."""

    def __init__(
        self,
        courier: Courier,
        job: ProviderJob,
        request: Request,
        inference: Inference,
        record: Record,
    ) -> None:
        self._courier = courier
        self._job = job
        self._request = request
        self._inference = inference
        self._record = record
        self._events_in, self._events_out = trio.open_memory_channel[Event](_EVENTS_MAX)
        self._model_scope = trio.CancelScope()
        self._gone = False
        self._vouchers: Vouchers | None = None  # From the order on, where it costs something.
        self.fault: RemoteError | None = None
        """What the requester did wrong, if that is how it ended."""
        self.countersignature = b""
        """The requester's, under the receipt that it sent."""

    async def run(self, purse: _Purse, started_at_ms: int) -> End:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            end = await self._turn_events(nursery, purse, started_at_ms)
            nursery.cancel_scope.cancel()
        if purse.earning is not None and end.lost:
            purse.earning.lost(Microcredits(end.lost), end.lost_chunks)
        if self._vouchers is not None and self._vouchers.fault is not None:
            self.fault = self._vouchers.fault
        return end

    def ended(self, end: End, started_at_ms: int) -> JobRecord:
        """The line of the history for an order that is over."""
        return replace(
            self._began(started_at_ms),
            state=state_of(end.finish, end.code),
            code=end.code,
            tokens_in=end.input_tokens,
            tokens_out=end.output_tokens,
            cost_microcredits=Microcredits(end.cost),
            ms_first=end.ms_first,
            ms_total=end.ms_total,
        )

    def _began(self, started_at_ms: int) -> JobRecord:
        job = self._job
        return began(Role.PROVIDER, self._request, job.order_id, self._courier.peer, started_at_ms)

    async def _turn_events(self, nursery: trio.Nursery, purse: _Purse, started_at_ms: int) -> End:
        while True:
            event = await self._next()
            if isinstance(event, OrderCame):
                event = await self._payable(event, purse, nursery)
            for action in self._job.handle(event, now_ms()):
                if isinstance(action, End):
                    return action
                await self._carry_out(action, nursery)
            if isinstance(event, OrderCame) and not self._job.over:
                # Off the way to the first token: it is a note for `ayni jobs`, not money.
                nursery.start_soon(self._record, self._began(started_at_ms))

    async def _payable(self, came: OrderCame, purse: _Purse, nursery: trio.Nursery) -> Event:
        """The model may start while the prompt's voucher is still on its way to the disk."""
        try:
            opened = await purse.opened(came)
        except AyniError as error:
            if isinstance(error, RemoteError):
                self.fault = error
            why = Unpayable(error.code, error.sentence)
            return OrderCame(came.order, came.id, unpayable=why)
        if purse.earning is not None and self._vouchers is None:
            prompt = came.order.voucher
            self._vouchers = Vouchers(purse.earning, self._events_in.send, prompt)
            nursery.start_soon(self._vouchers.run)
            nursery.start_soon(self._vouchers.watch)
        return opened

    async def _next(self) -> Event:
        if self._gone:
            return RequesterLost()
        event: Event = TimePassed()
        wake_at = self._job.wake_at
        assert wake_at is not None
        with trio.move_on_at(wake_at / 1000):
            event = await self._events_out.receive()
        return event

    async def _carry_out(self, action: Action, nursery: trio.Nursery) -> None:
        try:
            match action:
                case Say(Delta() as delta):
                    await self._courier.send_unsigned(delta)
                case Say(message):
                    await self._courier.send(message)
                case RefuseIt(code, sentence):
                    refusal = RemoteError(code, sentence)
                    await self._courier.refuse(self._job.order_id, refusal)
                case RunModel(order, seed):
                    nursery.start_soon(self._model, order, seed)
                case StopModel():
                    self._model_scope.cancel()
                case End():
                    raise AssertionError("the end is the caller's")
                case _:
                    assert_never(action)
        except NetworkError:
            self._gone = True

    async def _read(self) -> None:
        """Frames into events. It never waits for the model: what it feeds is taken at once."""
        self._courier.takes_vouchers = True
        while True:
            try:
                came: object = await self._courier.receive(FromRequester)  # type: ignore[arg-type]
                if isinstance(came, Signed) and self._vouchers is not None:
                    self._vouchers.put(came)
                    continue
                event = _requester_event(came, self._job.order_id)
            except NetworkError:
                event = RequesterLost()
            except RemoteError as error:
                self.fault, event = error, RequesterLost()
            if isinstance(event, ReceiptCame) and not self.countersignature:
                self.countersignature = self._courier.signature
            if self._vouchers is not None:
                await self._vouchers.wait_idle()  # They came before it, so they count before it.
            await self._events_in.send(event)
            if isinstance(event, RequesterLost):
                return

    async def _model(self, order: Order, seed: bytes) -> None:
        with self._model_scope:
            try:
                async with self._events_of(order, seed) as events:
                    async for event in events:
                        await self._events_in.send(_model_event(event))
            except LocalError as error:
                await self._events_in.send(ModelFailed(error.code, error.sentence))

    def _events_of(
        self, order: Order, seed: bytes
    ) -> AbstractAsyncContextManager[AsyncIterator[ModelEvent]]:
        request, requester = self._request, self._courier.peer
        if request.kind == EMBED:
            return self._inference.embed(EmbedTask(request.model, order.prompt.texts, requester))
        task = Task(
            model=request.model,
            messages=[(message.role, message.text) for message in order.prompt.messages],
            text=order.prompt.text,
            stop=order.stop,
            sampling=request.sampling,
            seed=seed,
            first_t=request.first_t,
            prefix_ids=order.prefix_ids,
            output_tokens_max=request.output_tokens_max,
            requester=requester,
        )
        return self._inference.generate(task)


def _requester_event(came: object, order_id: MessageId) -> Event:
    match came:
        case None:
            return RequesterLost()
        case Cancel(order) if order == order_id:
            return CancelCame()
        case Opened(Order() as order, id_, _):
            return OrderCame(order, id_)
        case Opened(Receipt() as receipt, _, _):
            return ReceiptCame(receipt)
        case Opened(Refuse() as refuse, _, _):
            return RefuseCame(refuse)
        case _:
            raise RemoteError(Code.UNEXPECTED, "No requester says this in a job.")


def _model_event(event: ModelEvent) -> Event:
    match event:
        case Begun(prompt_tokens, ids_digest):
            return ModelBegan(prompt_tokens, ids_digest)
        case Tokens(ids, text, leaves, alternatives):
            return ModelSaid(ids, text, alternatives, leaves)
        case Vectors(vectors):
            return ModelEmbedded(vectors)
        case Ended("stop" | "length" | "cancelled" as reason):
            return ModelEnded(reason)
        case Ended(reason):
            return ModelFailed(Code.WORKER_FAILED, f"The model ended with {reason!r}.")
        case _:
            assert_never(event)
