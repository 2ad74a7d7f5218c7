"""A job that somebody wants done, and one provider's turn at it: its stream and its secrets."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import trio

from node.channels.base import Payer, Spending
from node.jobs.around import Surroundings
from node.jobs.courier import Courier, charge
from node.network.base import NetworkError
from protocol.envelope import Opened
from protocol.errors import Code, LocalError, RemoteError
from protocol.ids import JobId, MessageId, ModelId, NodeId
from protocol.job.checks import cost_most
from protocol.job.commitment import prompt_commitment, prompt_size, stop_digest
from protocol.job.kinds import kind_of
from protocol.job.requester_actions import Ask, Candidate, Pay, SendOrder
from protocol.job.requester_events import (
    Came,
    Event,
    Funded,
    NotOrdered,
    ProviderLost,
    QuoteCame,
    RequestSent,
)
from protocol.job.sampling import Sampling
from protocol.job.seed import DRAWN, USER, seed_commitment, share_of_user_seed
from protocol.job.terms import (
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


class Attempt:
    """One provider's turn. Whoever made it may say things by its courier, once there is one."""

    def __init__(
        self, around: Surroundings, job: Job, ask: Ask, payer: Payer, refused: MessageId | None
    ) -> None:
        """`refused` is the channel that the provider refused a moment ago, if it did."""
        self._around = around
        self._job = job
        self._ask = ask
        self._payer = payer
        self._refused = refused
        seed = job.user_seed
        self._r = around.random_bytes(32) if seed is None else share_of_user_seed(seed)
        self._salt = around.random_bytes(32)
        self.number = ask.attempt
        self.node = ask.candidate.node
        self.spending: Spending | None = None
        """By what the order is paid, where it costs something."""
        self.paid = 0
        """Of the order's cost: what we have signed vouchers for, in microcredits."""
        self.ahead = 0
        """Paid ahead for its prompt, in microcredits, unless the provider has not read that."""
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self.courier: Courier | None = None
        self.request: Request | None = None
        self.id = MessageId(b"")
        """Of the order, or before it of the request."""
        self.ordered = False
        self.receipt_signature = b""
        """The provider's."""

    async def talk(self, connect: Connect, events: trio.MemorySendChannel[Event]) -> None:
        """A channel held and the request out, then frames into events until the provider is lost
        or dropped. The channel is held until `scope` is cancelled: what came before the provider
        was lost may not have been looked at, and is still to be signed for."""
        try:
            with self.scope:
                async with AsyncExitStack() as held:
                    if is_priced(self._ask.candidate):
                        try:
                            self.spending = await self._funded(held)
                        except LocalError as error:
                            await events.send(NotOrdered(self.number, error.code, error.sentence))
                            return
                        await events.send(Funded(self.number))
                    await events.send(await self._converse(connect, events))
                    self.over.set()
                    await trio.sleep_forever()
        finally:
            self.over.set()

    async def _funded(self, held: AsyncExitStack) -> Spending:
        """Raises LocalError as `Payer.spend`."""
        mistrust = self._ask.mistrust
        if mistrust is not None and self._refused is not None:
            await self._payer.mistrusted(self._refused, f"{mistrust.code}: {mistrust.sentence}")
        worst = job_worst(self._job, self._ask.candidate, self._cost_max)
        return await held.enter_async_context(self._payer.spend(self.node, worst))

    @property
    def _cost_max(self) -> int:
        return max(0, self._job.cost_max - self._ask.spent)

    def return_ahead(self) -> None:
        """The provider has not read the prompt of the order, or is done with it and has our
        receipt: what was paid ahead beyond the cost is free for the next."""
        self.ahead = 0
        if self.spending is not None:
            self.spending.return_ahead()

    async def pay(self, pay: Pay, courier: Courier) -> None:
        """Sign for what came and was checked, and send it; no disk is waited for. Raises
        NetworkError, or LocalError OVERDRAWN."""
        assert self.spending is not None
        voucher = self.spending.voucher(pay.order_id, pay.first_t, pay.cost)
        self.paid = pay.cost
        if voucher is not None:
            await courier.send_signed(voucher)

    async def _converse(
        self, connect: Connect, events: trio.MemorySendChannel[Event]
    ) -> ProviderLost:
        around = self._around
        try:
            await connect(self.node)
            stream = await around.network.open(self.node, JOB_PROTOCOL)
            courier = Courier(stream, around.identity, around.network_id, around.quotas)
            self.courier = courier
            self.request = self._request()
            self.id = await courier.send(self.request)
            event: Event = RequestSent(self.number, self.request, self.id)
            while not isinstance(event, ProviderLost):
                await events.send(event)
                came: object = await courier.receive(FromProvider)  # type: ignore[arg-type]
                event = _provider_event(came, self.number)
                if isinstance(event, Came) and isinstance(event.message, Receipt):
                    self.receipt_signature = courier.signature
            return event
        except NetworkError:
            return lost(self.number)
        except RemoteError as error:
            await charge(around.network, around.quotas, self.node, error)
            return ProviderLost(self.number, error.code, error.sentence)

    def _request(self) -> Request:
        job = self._job
        return Request(
            version=PROTOCOL_VERSION,
            network=self._around.network_id,
            provider=self.node,
            job=job.id,
            kind=kind_of(job.prompt),
            model=self._ask.candidate.model,
            modes=job.modes,
            sampling=job.sampling,
            stop_digest=stop_digest(self._salt, job.stop),
            output_tokens_max=job.output_tokens_max,
            time_ms_max=job.time_ms_max,
            cost_max=self._cost_max,
            prompt_bytes=prompt_size(job.prompt),
            prompt_commitment=prompt_commitment(self._salt, job.prompt),
            seed_commitment=seed_commitment(self._r),
            seed_source=DRAWN if job.user_seed is None else USER,
            first_t=0,
            prefix_hash=b"",
        )

    def order(self, send: SendOrder) -> Order:
        """Yes to a quote for our request, with the secrets that the request had committed to.
        Raises LocalError OVERDRAWN."""
        channel, voucher = b"", None
        if send.is_paid:
            assert self.spending is not None
            channel = self.spending.channel
            if send.prompt_first:
                voucher = self.spending.prompt_voucher(send.quote_id, send.prompt_first)
                self.ahead = send.prompt_first
        return Order(
            quote=send.quote_id,
            r=self._r,
            salt=self._salt,
            prompt=self._job.prompt,
            stop=self._job.stop,
            prefix_ids=(),
            channel=channel,
            voucher=voucher,
        )


def is_priced(candidate: Candidate) -> bool:
    """Whether anything of this provider's costs anything."""
    return bool(candidate.price_in or candidate.price_out)


def job_worst(job: Job, candidate: Candidate, cost_max: int) -> Microcredits:
    """The most that a job can cost at the prices that this provider advertised, in microcredits."""
    most = cost_most(
        kind_of(job.prompt),
        prompt_size(job.prompt),
        job.output_tokens_max,
        candidate.price_in,
        candidate.price_out,
    )
    return min(Microcredits(cost_max), most)


def lost(attempt: int) -> ProviderLost:
    """The stream or the connection is gone."""
    return ProviderLost(attempt, Code.LOST, "The connection to the provider was lost.")


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
