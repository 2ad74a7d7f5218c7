"""A job that somebody wants done, and one provider's turn at it: its stream and its secrets."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from node.jobs.around import Surroundings
from node.jobs.courier import Courier, charge
from node.network.base import NetworkError
from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.ids import JobId, MessageId, ModelId, NodeId
from protocol.job.commitment import prompt_commitment, prompt_size, stop_digest
from protocol.job.kinds import kind_of
from protocol.job.requester import Candidate
from protocol.job.requester_events import Came, Event, ProviderLost, QuoteCame, RequestSent
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

    def __init__(self, around: Surroundings, job: Job, number: int, candidate: Candidate) -> None:
        self._around = around
        self._job = job
        seed = job.user_seed
        self._r = around.random_bytes(32) if seed is None else share_of_user_seed(seed)
        self._salt = around.random_bytes(32)
        self.number = number
        self.node = candidate.node
        self.candidate = candidate
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
        """The request out, then frames into events until the provider is lost or dropped."""
        try:
            with self.scope:
                await events.send(await self._converse(connect, events))
        finally:
            self.over.set()

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
            model=self.candidate.model,
            modes=job.modes,
            sampling=job.sampling,
            stop_digest=stop_digest(self._salt, job.stop),
            output_tokens_max=job.output_tokens_max,
            time_ms_max=job.time_ms_max,
            cost_max=job.cost_max,
            prompt_bytes=prompt_size(job.prompt),
            prompt_commitment=prompt_commitment(self._salt, job.prompt),
            seed_commitment=seed_commitment(self._r),
            seed_source=DRAWN if job.user_seed is None else USER,
            first_t=0,
            prefix_hash=b"",
        )

    def order(self, quote_id: MessageId) -> Order:
        """Yes to a quote for our request, with the secrets that the request had committed to."""
        return Order(
            quote=quote_id,
            r=self._r,
            salt=self._salt,
            prompt=self._job.prompt,
            stop=self._job.stop,
            prefix_ids=(),
            channel=b"",
        )


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
