"""One chat of the API as a job of this node: the market's choice, the job, its end in words."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import trio

from node.api.backend import Accepted, ChatEvent, ChatJob, Finished, Notice, Text
from node.app.outcome import Outcome
from node.app.parts import Parts
from node.jobs.attempt import Job
from node.jobs.mailbox import Mailbox
from node.market.choice import candidate, modes_of
from protocol.errors import Code, LocalError
from protocol.ids import JobId, NodeId
from protocol.job import requester_actions as requester
from protocol.job.commitment import prompt_size
from protocol.job.terms import Message, Prompt
from protocol.limits import JOB_ID_BYTES, JOB_MS_MAX, PROMPT_BYTES_MAX
from protocol.matching import Ranked, Wish

OUTPUT_TOKENS_DEFAULT = 512  # What an answer may have where nobody says; half a page more or less.
BYTES_PER_TOKEN = 4  # Of English; an estimate for ranking, never for money.


@asynccontextmanager
async def chat(parts: Parts, wanted: ChatJob) -> AsyncIterator[AsyncIterator[ChatEvent]]:
    """As `node.api.backend.Backend.chat`."""
    if parts.sharing.word == "draining":
        raise LocalError(Code.DRAINING, "This node is shutting down and asks for no new jobs.")
    began_at = trio.current_time()
    job, ranked = _prepared(parts, wanted)
    telling = _Telling(parts, ranked, began_at)
    async with (
        parts.requester.ask(job) as told,
        aclosing(telling.events(told)) as events,
    ):
        yield events


def _prepared(parts: Parts, wanted: ChatJob) -> tuple[Job, list[Ranked]]:
    prompt = Prompt(tuple(Message(role, text) for role, text in wanted.messages), "", ())
    size = prompt_size(prompt)
    if size > PROMPT_BYTES_MAX:
        raise LocalError(
            Code.TOO_LARGE, f"The prompt has {size} bytes; at most {PROMPT_BYTES_MAX} can be asked."
        )
    number = JobId(parts.random_bytes(JOB_ID_BYTES))
    cost_max = wanted.cost_max_microcredits
    cost_max = parts.config.ask.cost_max if cost_max is None else cost_max
    output_tokens_max = wanted.output_tokens_max or OUTPUT_TOKENS_DEFAULT
    modes = parts.market.modes_checkable() if wanted.checkable_only else ()
    wish = Wish(
        job=number,
        models=parts.market.models_named(wanted.model),
        modes=modes,
        prompt_tokens=size // BYTES_PER_TOKEN,
        output_tokens=output_tokens_max,
        cost_max=cost_max,
        provider=wanted.provider,
    )
    ranked = parts.market.candidates(wish)
    job = Job(
        id=number,
        candidates=[candidate(one) for one in ranked],
        modes=modes_of(ranked) if wanted.checkable_only else (),
        prompt=prompt,
        stop=wanted.stop,
        sampling=wanted.sampling,
        output_tokens_max=output_tokens_max,
        time_ms_max=JOB_MS_MAX,
        cost_max=cost_max,
        user_seed=wanted.seed,
        model_names={one.offer.model: one.offer.name for one in ranked},
    )
    return job, ranked


class _Telling:
    """Turns what the requester tells into what the API streams."""

    def __init__(self, parts: Parts, ranked: list[Ranked], began_at: float) -> None:
        self._outcome = Outcome(parts.discovery.name_of)
        self._offers = {(one.node, one.offer.model): one.offer for one in ranked}
        self._began_at = began_at
        self._first_at: float | None = None
        self._accepted: NodeId | None = None

    async def events(self, told: Mailbox) -> AsyncGenerator[ChatEvent, None]:
        async for one in told:
            match one:
                case requester.Accepted():
                    yield self._accept(one)
                case requester.Deliver(ids, text, logprobs):
                    if self._first_at is None and ids:
                        self._first_at = trio.current_time()
                    yield Text(text, len(ids), tuple(tuple(place) for place in logprobs))
                case requester.Failure():
                    yield Notice(
                        one.code.value, f"{self._outcome.reason(one)} Asking another node."
                    )
                case requester.Finished():
                    yield self._finish(one)

    def _accept(self, accepted: requester.Accepted) -> Accepted:
        chosen = accepted.candidate
        self._accepted = chosen.node
        return Accepted(
            provider=chosen.node,
            provider_name=self._outcome.name(chosen.node),
            model=self._offers[(chosen.node, chosen.model)].name,
            mode=accepted.quote.mode,
            prompt_tokens=accepted.prompt_tokens,
            price_in_microcredits=accepted.quote.price_in,
            price_out_microcredits=accepted.quote.price_out,
        )

    def _finish(self, end: requester.Finished) -> Finished:
        if end.reason not in ("stop", "length"):
            raise self._outcome.error(end, begun=self._accepted is not None)
        assert end.candidate is not None
        now = trio.current_time()
        first_at = now if self._first_at is None else self._first_at
        return Finished(
            reason=end.reason,
            provider=end.candidate.node,
            input_tokens=end.input_tokens,
            output_tokens=end.output_tokens,
            cost_microcredits=end.cost,
            ms_first=round((first_at - self._began_at) * 1000),
            ms_total=round((now - self._began_at) * 1000),
        )
