"""Which sequence does what in the next step: slots join and leave between steps. No torch here.

A step gives every answering sequence one token, and reads a bounded part of the prompts that
wait, in the order in which they came; so a long prompt delays the others a little at each step
and never stops them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from node.worker.engine.model import Draw, Model, Piece
from node.worker.pipe import Ended, Failed, Progress
from protocol.errors import Code, LocalError
from protocol.job.sampling import Sampling

PROMPT_TOKENS_ALONE_MAX: Final = 128  # A quarter of a second on a slow machine: time to cancel.
PROMPT_TOKENS_BESIDE_MAX: Final = 32  # About what a step of answers costs: they slow by half.

Event = Progress | Ended | Failed


class Text(Protocol):
    """Turns the tokens of an answer into text (node.worker.text_stream)."""

    @property
    def stopped(self) -> bool: ...

    def push(self, token: int) -> str: ...

    def finish(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence to generate."""

    number: int
    prompt: Sequence[int]
    prefix: Sequence[int]  # Tokens of the answer that were given before; they are read, not drawn.
    text: Text
    sampling: Sampling
    seed: bytes
    first_t: int
    output_tokens_max: int


@dataclass(slots=True)
class _Running:
    job: Job
    slot: int
    waiting: list[int]  # To be read before the next token can be drawn.
    position: int = 0  # How many tokens of this sequence the model has read.
    answer: list[int] = field(default_factory=list)  # With the prefix.
    drawn: int = 0


class Scheduler:
    """The sequences of one model. Not for several threads."""

    def __init__(self, model: Model, ends: frozenset[int], slots: int, context_tokens: int) -> None:
        self._model = model
        self._ends = ends
        self._context_tokens = context_tokens
        self._free = list(range(slots))
        self._running: dict[int, _Running] = {}  # In the order in which they came.

    @property
    def idle(self) -> bool:
        return not self._running

    def add(self, job: Job) -> list[Event]:
        """Take a job into a free slot; it joins at the next step. A prefix that ends the answer
        already ends it now.

        Raises LocalError: BUSY, no slot is free; CONTEXT_EXCEEDED, the prompt with its prefix
        leaves no place for a token; BAD_REQUEST, there is no prompt at all.
        """
        assert job.number not in self._running
        tokens = len(job.prompt) + len(job.prefix)
        if not self._free:
            raise LocalError(Code.BUSY, "All slots of this model are taken: try again soon.")
        if not tokens:
            raise LocalError(Code.BAD_REQUEST, "The prompt is empty: send some text.")
        if tokens >= self._context_tokens:
            raise LocalError(
                Code.CONTEXT_EXCEEDED,
                f"The prompt has {tokens} tokens; this model takes {self._context_tokens} with "
                "the answer. Shorten the prompt.",
            )
        for token in job.prefix:
            if token not in self._ends:
                job.text.push(token)  # Its text was given before.
            if token in self._ends or job.text.stopped:
                return [Ended(job.number, "stop")]
        self._running[job.number] = _Running(
            job, self._free.pop(), [*job.prompt, *job.prefix], answer=list(job.prefix)
        )
        return []

    def cancel(self, number: int) -> list[Event]:
        """End a job before its next token; nothing if it is over."""
        if number not in self._running:
            return []
        self._leave(number)
        return [Ended(number, "cancelled")]

    def step(self) -> list[Event]:
        """Run the model once. Each answering job gets one token; each event is to be sent on
        at once."""
        chosen = self._chosen()
        if not chosen:
            return []
        drawn = self._model.step([piece for _, piece in chosen])
        events: list[Event] = []
        for (running, piece), token in zip(chosen, drawn, strict=True):
            running.position += len(piece.ids)
            del running.waiting[: len(piece.ids)]
            if isinstance(token, LocalError):
                self._leave(running.job.number)
                events.append(Failed(running.job.number, token.code, token.sentence))
            elif token is not None:
                events += self._took(running, token)
        return events

    def _chosen(self) -> list[tuple[_Running, Piece]]:
        answering = any(running.drawn for running in self._running.values())
        budget = PROMPT_TOKENS_BESIDE_MAX if answering else PROMPT_TOKENS_ALONE_MAX
        chosen = []
        for running in self._running.values():
            if running.drawn:
                count = 1
                assert len(running.waiting) == 1
            else:
                count = min(budget, len(running.waiting))
                budget -= count
            if count:
                chosen.append((running, self._piece(running, count)))
        return chosen

    def _piece(self, running: _Running, count: int) -> Piece:
        job = running.job
        draw = None
        if count == len(running.waiting):
            place = job.first_t + running.drawn
            draw = Draw(job.sampling, job.seed, place, job.prompt, running.answer)
        return Piece(running.slot, running.position, running.waiting[:count], draw)

    def _took(self, running: _Running, token: int) -> list[Event]:
        """Account for a new token: it goes out at once, even when its text must wait."""
        number, text = running.job.number, running.job.text
        running.drawn += 1
        running.answer.append(token)
        running.waiting.append(token)
        reason = ""
        said = "" if token in self._ends else text.push(token)
        if token in self._ends or text.stopped:
            reason = "stop"
        elif running.drawn == running.job.output_tokens_max:
            reason = "length"
        elif running.position + 1 >= self._context_tokens:
            # The place of this token in the cache would be the last, with none for the next.
            reason = "length"
        if not reason:
            return [Progress(number, [token], said)]
        self._leave(number)
        if not text.stopped:
            said += text.finish()
        return [Progress(number, [token], said), Ended(number, reason)]

    def _leave(self, number: int) -> None:
        self._free.append(self._running.pop(number).slot)
