"""An Inference that answers from a script, under trio's clock: for tests and the simulator.

It keeps every promise of the real one: slots, order of events, cancellation, failure.
"""

import math
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b

import trio

from node.jobs.inference import (
    Begun,
    EmbedTask,
    Ended,
    Event,
    Inference,
    Served,
    Task,
    Tokens,
    Vectors,
)
from protocol.errors import Code, LocalError
from protocol.ids import ModelId
from protocol.job.logprob import Logprob
from protocol.limits import LOGPROB_TEXT_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Script:
    """How one task goes. A token is its id and the text that it completes."""

    tokens: Sequence[tuple[int, str]]
    prompt_seconds: float = 0.1
    token_seconds: float = 0.05
    reason: str = "stop"  # Unless the task allows fewer tokens: then "length".
    failure: LocalError | None = None  # Raised in place of the end.
    prompt_tokens: int | None = None  # Said in the place of what `prompt_ids` gives.


@dataclass(frozen=True, slots=True)
class EmbedScript:
    """How one embed goes: some vectors at a time, and a failure in place of those after."""

    batch_texts: int = 4
    batch_seconds: float = 0.05
    batches_max: int | None = None  # After so many it ends, with `failure` or too soon.
    failure: LocalError | None = None
    vector: Callable[[str], bytes] = lambda text: scripted_vector(text)


@dataclass(slots=True)
class _Running:
    model: ModelId
    died: trio.Event = field(default_factory=trio.Event)


class ScriptedInference(Inference):
    """Serves what it is told to. `script` decides how a task goes; it may look at the task."""

    def __init__(
        self,
        served: Sequence[Served],
        script: Callable[[Task], Script],
        embed_script: Callable[[EmbedTask], EmbedScript] = lambda _: EmbedScript(),
    ) -> None:
        self._served = tuple(served)
        self._script = script
        self._embed_script = embed_script
        self._running: list[_Running] = []
        self._up = True
        self.tasks: list[Task | EmbedTask] = []  # All that were admitted, in order.

    @property
    def served(self) -> Sequence[Served]:
        return self._served if self._up else ()

    def slots_free(self, model: ModelId) -> int:
        slots = sum(served.slots for served in self.served if served.model == model)
        return max(0, slots - sum(running.model == model for running in self._running))

    def die(self) -> None:
        """What happens when the worker process ends: all tasks fail, nothing is served."""
        self._up = False
        for running in self._running:
            running.died.set()

    def rise(self) -> None:
        """The worker is back."""
        self._up = True

    def generate(self, task: Task) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._generate(task)

    def embed(self, task: EmbedTask) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._embed(task)

    @asynccontextmanager
    async def _generate(self, task: Task) -> AsyncIterator[AsyncIterator[Event]]:
        served = self._find(task.model)
        prompt = prompt_ids(task)
        if len(prompt) >= served.context_tokens:
            raise LocalError(
                Code.CONTEXT_EXCEEDED,
                f"The prompt has {len(prompt)} tokens; {served.context_tokens} fit.",
            )
        self.tasks.append(task)
        with self._slot(task.model) as running:
            async with aclosing(_play(running, prompt, task, self._script(task))) as events:
                yield events

    @asynccontextmanager
    async def _embed(self, task: EmbedTask) -> AsyncIterator[AsyncIterator[Event]]:
        self._find(task.model)
        self.tasks.append(task)
        with self._slot(task.model) as running:
            async with aclosing(_play_embed(running, task, self._embed_script(task))) as events:
                yield events

    def _find(self, model: ModelId) -> Served:
        served = next((each for each in self.served if each.model == model), None)
        if served is None:
            raise LocalError(Code.MODEL_NOT_SERVED, "The script serves no such model.")
        if self.slots_free(model) < 1:
            raise LocalError(Code.BUSY, "All slots are taken: try again soon.", retry_ms=1000)
        return served

    @contextmanager
    def _slot(self, model: ModelId) -> Iterator[_Running]:
        running = _Running(model)
        self._running.append(running)
        try:
            yield running
        finally:
            self._running.remove(running)


def prompt_ids(task: Task) -> list[int]:
    """The script's tokenizer: each byte of the prompt is a token, and so is each of the prefix."""
    texts = [f"{role}\n{text}\n" for role, text in task.messages] or [task.text]
    return [*"".join(texts).encode(), *task.prefix_ids]


async def _play(
    running: _Running, prompt: Sequence[int], task: Task, script: Script
) -> AsyncGenerator[Event, None]:
    await _pass(running, 0)
    raw = b"".join(token.to_bytes(4, "little") for token in prompt)
    prompt_tokens = len(prompt) if script.prompt_tokens is None else script.prompt_tokens
    yield Begun(prompt_tokens, blake2b(raw, digest_size=32).digest())
    await _pass(running, script.prompt_seconds)
    for number, text in script.tokens[: task.output_tokens_max]:
        await _pass(running, script.token_seconds)
        certain = Logprob(number, text.encode()[:LOGPROB_TEXT_BYTES_MAX], 0)
        yield Tokens((number,), text, alternatives=((certain,),) if task.sampling.logprobs else ())
    if len(script.tokens) > task.output_tokens_max:
        yield Ended("length")
    elif script.failure is not None:
        raise script.failure
    else:
        yield Ended(script.reason)


def scripted_vector(text: str) -> bytes:
    """The script's encoder: eight numbers out of the text's digest, of length 1."""
    raw = [byte - 127.5 for byte in blake2b(text.encode(), digest_size=8).digest()]
    length = math.hypot(*raw)
    return struct.pack("<8f", *(number / length for number in raw))


async def _play_embed(
    running: _Running, task: EmbedTask, script: EmbedScript
) -> AsyncGenerator[Event, None]:
    await _pass(running, 0)
    yield Begun(sum(len(text.encode()) for text in task.texts), bytes(32))
    batches = range(0, len(task.texts), script.batch_texts)
    for start in batches[: script.batches_max]:
        await _pass(running, script.batch_seconds)
        texts = task.texts[start : start + script.batch_texts]
        yield Vectors([script.vector(text) for text in texts])
    if script.failure is not None:
        raise script.failure
    yield Ended("stop")


async def _pass(running: _Running, seconds: float) -> None:
    """Let time go by. Raises LocalError WORKER_FAILED when the worker dies meanwhile."""
    with trio.move_on_after(seconds):
        await running.died.wait()
    if running.died.is_set():
        raise LocalError(Code.WORKER_FAILED, "The scripted worker ended.")
