"""Embeddings of the API as jobs of this node: split into orders, and gone on with elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from node.api.backend import Embeddings, EmbedJob, EmbedOrder
from node.app.outcome import Outcome
from node.app.parts import Parts
from node.jobs.attempt import Job
from node.jobs.requester import Requester
from node.market.choice import Market, candidate
from protocol.errors import AyniError, Code, LocalError, RemoteError
from protocol.ids import JobId, ModelId, NodeId
from protocol.job import requester_actions as requester
from protocol.job.commitment import prompt_size
from protocol.job.kinds import MODEL_EMBEDS
from protocol.job.sampling import Sampling
from protocol.job.terms import Prompt
from protocol.job.vectors import NUMBER_BYTES
from protocol.limits import ATTEMPTS_MAX, JOB_ID_BYTES, JOB_MS_MAX, PROMPT_BYTES_MAX, TEXTS_MAX
from protocol.matching import Wish

BYTES_PER_TOKEN = 4  # Of English; an estimate for ranking, never for money.
_TEXT_HEAD_BYTES = 5  # The most that a text's length takes.
_PROMPT_HEAD_BYTES = 16
_TEXT_BYTES_MAX = PROMPT_BYTES_MAX - _PROMPT_HEAD_BYTES - _TEXT_HEAD_BYTES


@dataclass(frozen=True, slots=True)
class Means:
    """What embeddings need of a node."""

    requester: Requester
    market: Market
    name_of: Callable[[NodeId], str]
    random_bytes: Callable[[int], bytes]
    cost_max: int
    """Of a job that names no cap of its own."""


async def embed(parts: Parts, wanted: EmbedJob) -> Embeddings:
    """As `node.api.backend.Backend.embed`."""
    if parts.sharing.word == "draining":
        raise LocalError(Code.DRAINING, "This node is shutting down and asks for no new jobs.")
    means = Means(
        parts.requester,
        parts.market,
        parts.discovery.name_of,
        parts.random_bytes,
        parts.config.ask.cost_max,
    )
    return await embedded(means, wanted)


async def embedded(means: Means, wanted: EmbedJob) -> Embeddings:
    """The vectors, in as many orders as it takes. Raises as `embed`, but for DRAINING."""
    orders = orders_of(wanted.texts)
    run = _Run(means, wanted)
    for texts in orders:
        await run.have(texts)
    return Embeddings(
        model=run.model_name,
        model_id=run.model,
        vectors=tuple(run.vectors),
        orders=tuple(run.orders),
    )


def orders_of(texts: Sequence[str]) -> list[Sequence[str]]:
    """The texts in order, in as few parts as each fit an order.

    Raises LocalError TOO_LARGE for a text that fits none.
    """
    parts: list[list[str]] = []
    size = PROMPT_BYTES_MAX
    for number, text in enumerate(texts):
        bytes_ = len(text.encode()) + _TEXT_HEAD_BYTES
        if bytes_ > _TEXT_BYTES_MAX + _TEXT_HEAD_BYTES:
            raise LocalError(
                Code.TOO_LARGE,
                f"Text {number} has {bytes_ - _TEXT_HEAD_BYTES} bytes; at most {_TEXT_BYTES_MAX} "
                "bytes can be asked: cut it into several.",
            )
        if size + bytes_ > PROMPT_BYTES_MAX or len(parts[-1]) == TEXTS_MAX:
            parts.append([])
            size = _PROMPT_HEAD_BYTES
        parts[-1].append(text)
        size += bytes_
    return list(parts)


@dataclass(slots=True)
class _Told:
    """What one order has told."""

    accepted: requester.Accepted | None = None
    vectors: int = 0
    end: requester.Finished | None = None


class _Run:
    """All orders of one job, one after another."""

    def __init__(self, means: Means, wanted: EmbedJob) -> None:
        self._means = means
        self._wanted = wanted
        self._outcome = Outcome(means.name_of)
        cost_max = wanted.cost_max_microcredits
        self._cost_left = means.cost_max if cost_max is None else cost_max
        self._models: Sequence[ModelId] = means.market.models_named(wanted.model, MODEL_EMBEDS)
        self._names: Mapping[ModelId, str] = {}
        self._failed: set[NodeId] = set()
        self.model_name = ""
        self.vectors: list[bytes] = []
        self.orders: list[EmbedOrder] = []

    @property
    def model(self) -> ModelId:
        """The only one, once there are vectors."""
        (model,) = self._models
        return model

    async def have(self, texts: Sequence[str]) -> None:
        """Vectors of these texts. Where a provider fails in the middle, another does the rest."""
        left = list(texts)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            told = await self._order(left)
            assert told.end is not None
            left = left[told.vectors :]
            if not left:
                return  # All came and were signed for, even if the end of the order then failed.
            error = self._error(told)
            is_last = attempt == ATTEMPTS_MAX or self._wanted.provider is not None
            if told.accepted is None or is_last:
                raise error
            self._failed.add(told.accepted.candidate.node)

    def _error(self, told: _Told) -> AyniError:
        assert told.end is not None
        if told.end.reason == "length":
            return LocalError(Code.TIMEOUT, "The time for this job was over before its end.")
        return self._outcome.error(told.end, begun=told.accepted is not None)

    async def _order(self, texts: Sequence[str]) -> _Told:
        told = _Told()
        async with self._means.requester.ask(self._job(texts)) as words:
            async for word in words:
                match word:
                    case requester.Accepted():
                        told.accepted = word
                    case requester.DeliverVectors(vectors):
                        self._take(vectors)
                        told.vectors += len(vectors)
                    case requester.Finished():
                        told.end = word
                    case requester.Failure() | requester.Deliver():
                        pass  # Another node is asked; the machine lets no tokens through.
        self._note(told)
        return told

    def _job(self, texts: Sequence[str]) -> Job:
        prompt = Prompt((), "", tuple(texts))
        number = JobId(self._means.random_bytes(JOB_ID_BYTES))
        wish = Wish(
            job=number,
            models=self._models,
            modes=(),
            prompt_tokens=prompt_size(prompt) // BYTES_PER_TOKEN,
            output_tokens=0,
            cost_max=self._cost_left,
            provider=self._wanted.provider,
            kind=MODEL_EMBEDS,
        )
        ranked = [
            one for one in self._means.market.candidates(wish) if one.node not in self._failed
        ]
        if not ranked:
            raise LocalError(
                Code.NO_PROVIDER,
                f"{len(self.vectors)} texts have their vectors; the nodes that could do the rest "
                "have failed. Try again in a while; `ayni peers` shows who is there.",
            )
        self._names = {one.offer.model: one.offer.name for one in ranked}
        return Job(
            id=number,
            candidates=[candidate(one) for one in ranked],
            modes=(),
            prompt=prompt,
            stop=(),
            sampling=Sampling(),
            output_tokens_max=0,
            time_ms_max=JOB_MS_MAX,
            cost_max=self._cost_left,
            user_seed=None,
            model_names=self._names,
        )

    def _take(self, vectors: Sequence[bytes]) -> None:
        size = len(self.vectors[0]) if self.vectors else len(vectors[0])
        width = size // NUMBER_BYTES
        if self._wanted.width not in (None, width):
            raise LocalError(
                Code.BAD_REQUEST,
                f"Vectors of {self._wanted.width} numbers were asked for; this model's have "
                f"{width}. Leave `dimensions` out.",
            )
        if len(vectors[0]) != size:
            raise RemoteError(
                Code.CONTRADICTION,
                f"One provider's vectors of this model have {width} numbers, and another's "
                f"{len(vectors[0]) // NUMBER_BYTES}: ask with --provider for those of one.",
            )
        self.vectors += vectors

    def _note(self, told: _Told) -> None:
        accepted, end = told.accepted, told.end
        assert end is not None
        if accepted is None:
            return
        chosen = accepted.candidate
        self._cost_left -= end.cost
        self._only(chosen.model)
        self.orders.append(
            EmbedOrder(
                provider=chosen.node,
                provider_name=self._outcome.name(chosen.node),
                mode=accepted.quote.mode,
                texts=told.vectors,
                input_tokens=end.input_tokens,
                cost_microcredits=end.cost,
            )
        )

    def _only(self, model: ModelId) -> None:
        """Vectors of two models mean nothing beside each other, so the first one is kept to."""
        self._models = [model]
        self.model_name = self._names[model]
