"""One loaded model and its sequences: prompts in, events out."""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from node.worker.engine.device import Device
from node.worker.engine.scheduler import Event, Job, Scheduler
from node.worker.engine.torch_model import Rates, TorchModel
from node.worker.gguf import read_gguf
from node.worker.pipe import Add, Began, Load
from node.worker.tokenizer import ModelTokenizer
from protocol.errors import Code, LocalError

Say = Callable[[Began | Event], None]


class Engine:
    """Raises LocalError from the start: NOT_FOUND, BAD_MODEL or UNAVAILABLE (memory)."""

    def __init__(self, load: Load, device: Device) -> None:
        gguf = read_gguf(Path(load.weights_path))
        self._tokenizer = ModelTokenizer(gguf, load.chat_template)
        self._model = TorchModel(gguf, device, load.slots, load.context_tokens_max)
        self.context_tokens = self._model.context_tokens
        self.mode = self._model.mode
        self.vocabulary = self._model.vocabulary
        self._scheduler = Scheduler(
            self._model, self._tokenizer.ends, load.slots, self.context_tokens
        )

    @property
    def idle(self) -> bool:
        return self._scheduler.idle

    def add(self, add: Add, say: Say) -> None:
        """Admit a task and say that it began. Raises LocalError: BUSY, CONTEXT_EXCEEDED or
        BAD_REQUEST; then nothing was said."""
        if bool(add.messages) == bool(add.text):
            raise LocalError(Code.BAD_REQUEST, "A task is either messages or a text: send one.")
        if any(token >= self.vocabulary for token in add.prefix_ids):
            raise LocalError(
                Code.BAD_REQUEST, "The prefix has tokens that this model does not have."
            )
        tokenizer = self._tokenizer
        prompt = tokenizer.chat(add.messages) if add.messages else tokenizer.text(add.text)
        job = Job(
            add.task,
            prompt,
            add.prefix_ids,
            tokenizer.stream(add.stop),
            add.sampling,
            add.seed,
            add.first_t,
            add.output_tokens_max,
        )
        events = self._scheduler.add(job)
        read = [*prompt, *add.prefix_ids]
        raw = b"".join(token.to_bytes(4, "little") for token in read)
        say(Began(add.task, len(read), blake2b(raw, digest_size=32).digest()))
        for event in events:
            say(event)

    def cancel(self, task: int, say: Say) -> None:
        for event in self._scheduler.cancel(task):
            say(event)

    def step(self, say: Say) -> None:
        for event in self._scheduler.step():
            say(event)

    def measure(self) -> Rates:
        assert self.idle
        return self._model.measure()
