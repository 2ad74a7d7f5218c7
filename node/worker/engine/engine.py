"""One loaded model and its sequences: prompts in, events out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Protocol

from node.worker.engine.measuring import measured
from node.worker.engine.model import OpenedModel, Rates
from node.worker.engine.rows import RowStore
from node.worker.engine.scheduler import Scheduler, Settings, pace_for
from node.worker.engine.sequence import Job, Text
from node.worker.pipe import Add, Began, Embed, Embedded, Ended, Failed, Load, Progress, began
from protocol.errors import Code, LocalError

Say = Callable[[Began | Progress | Embedded | Ended | Failed], None]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the daemon is told of a loaded model (node.worker.pipe.Loaded)."""

    kind: str  # "generate" or "embed".
    mode: str
    context_tokens: int
    vocabulary: int
    width: int
    engine: str
    note: str


class ServedModel(Protocol):
    """What the loop asks of any loaded model, whether it writes or embeds."""

    @property
    def facts(self) -> Facts: ...

    @property
    def idle(self) -> bool:
        """No task is here: a step would do nothing."""

    def add(self, task: Add | Embed, say: Say) -> None:
        """Admit a task and say that it began. Raises LocalError: BUSY, CONTEXT_EXCEEDED or
        BAD_REQUEST; then nothing was said."""

    def cancel(self, task: int, say: Say) -> None:
        """End a task, and say so; nothing if it is over."""

    def step(self, say: Say) -> None:
        """A bounded piece of the work of all tasks."""

    def measure(self) -> Rates:
        """How fast it is; only while it is idle."""


class Tokenizer(Protocol):
    """What an engine asks of node.worker.tokenizer."""

    @property
    def ends(self) -> frozenset[int]: ...

    def chat(self, messages: Sequence[tuple[str, str]]) -> list[int]: ...

    def text(self, text: str) -> list[int]: ...

    def stream(self, stops: Sequence[str]) -> Text: ...


class Engine:
    """Implements ServedModel for models that write."""

    def __init__(
        self, load: Load, opened: OpenedModel, tokenizer: Tokenizer, rows: RowStore
    ) -> None:
        self._model = model = opened.model
        self._tokenizer = tokenizer
        public = [ids for text in load.public_prefixes for ids in _renderings(tokenizer, text)]
        settings = Settings(load.slots, model.context_tokens, tokenizer.ends, public)
        self._scheduler = Scheduler(model, settings, rows)
        self.facts: Final = Facts(
            "generate",
            model.mode,
            model.context_tokens,
            model.vocabulary,
            model.width,
            opened.engine,
            opened.note,
        )

    @property
    def idle(self) -> bool:
        return self._scheduler.idle

    @property
    def blocks_held(self) -> int:
        """Blocks of the cache that tasks hold; 0 when it is idle."""
        return self._scheduler.blocks_held

    def add(self, task: Add | Embed, say: Say) -> None:
        if isinstance(task, Embed):
            raise LocalError(Code.BAD_REQUEST, "This model writes: it makes no vectors.")
        job = self._job(task)
        events = self._scheduler.add(job)
        read = [*job.prompt, *job.prefix]
        say(began(task.task, read))
        for event in events:
            say(event)

    def _job(self, add: Add) -> Job:
        if bool(add.messages) == bool(add.text):
            raise LocalError(Code.BAD_REQUEST, "A task is either messages or a text: send one.")
        if any(token >= self._model.vocabulary for token in add.prefix_ids):
            raise LocalError(
                Code.BAD_REQUEST, "The prefix has tokens that this model does not have."
            )
        tokenizer = self._tokenizer
        return Job(
            number=add.task,
            requester=add.requester,
            prompt=tokenizer.chat(add.messages) if add.messages else tokenizer.text(add.text),
            prefix=add.prefix_ids,
            text=tokenizer.stream(add.stop),
            sampling=add.sampling,
            seed=add.seed,
            first_t=add.first_t,
            output_tokens_max=add.output_tokens_max,
        )

    def cancel(self, task: int, say: Say) -> None:
        for event in self._scheduler.cancel(task):
            say(event)

    def step(self, say: Say) -> None:
        for event in self._scheduler.step():
            say(event)

    def measure(self) -> Rates:
        assert self.idle
        self._scheduler.forget_prefixes()  # Timing writes over them.
        rates = measured(self._model)
        self._scheduler.pace = pace_for(rates.prefill)
        return rates


def _renderings(tokenizer: Tokenizer, prefix: str) -> list[list[int]]:
    """How prompts begin that begin with a public text: as the system's words of a chat, whatever
    the user says then, and as a plain text. A template without a system's turn has no such chat."""
    ways = [tokenizer.text(prefix)]
    try:
        chats = [tokenizer.chat([("system", prefix), ("user", word)]) for word in ("0", "x y")]
    except LocalError:
        return ways
    same = takewhile(lambda pair: pair[0] == pair[1], zip(*chats, strict=False))
    return [*ways, [token for token, _ in same]]
