"""One life of a worker process, from its start to its end: loading, tasks, messages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Final

import trio

from node.jobs.inference import Begun, Ended, Event, Served, Task, Tokens
from node.jobs.worker_process import open_process, read_lines
from node.telemetry.logs import Log
from node.worker import pipe
from protocol.errors import Code, LocalError
from protocol.ids import ModelId, short

START_SECONDS_MAX: Final = 600  # To import torch, read and time every model, on a slow disk.
READ_BYTES: Final = 64 << 10
# What a channel holds beside one event a token: begun, the end, and a failure.
_OTHER_EVENTS: Final = 3

_log = Log("worker")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that is to be served."""

    model: ModelId
    name: str
    weights: Path
    context_tokens_max: int = 0  # 0: all that it was made for.
    chat_template: str = ""  # Empty: the one in the weights.


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How the worker process is to behave."""

    threads: int = 0  # 0: one fewer than the cores.
    idle_priority: bool = True
    device: str = "auto"
    compute: str = "auto"  # "f32" and "bf16" are asked for in tests and comparisons.
    slots: int = 2  # Sequences of each model at once.
    # After the start and then between two measures of speed; the last is repeated for ever.
    measure_again_seconds: Sequence[float] = (60, 600, 3600)


@dataclass(slots=True)
class _Running:
    model: ModelId
    events: trio.MemorySendChannel[Event | LocalError]
    left: bool = False  # Nobody listens any more; the slot is free when the worker says so.


@dataclass(slots=True)
class Facts:
    """What is known of this process; for people, so it is filled in as things become known."""

    pid: int = 0
    device: str = ""
    compute: str = ""
    torch_version: str = ""
    confined: Sequence[str] = ()
    faults: list[str] = field(default_factory=list)  # The last sentence is the most telling.


class WorkerLife:
    """Not for more than one run."""

    def __init__(
        self,
        settings: WorkerSettings,
        models: Sequence[ModelFiles],
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called whenever `served` or the free slots are others."""
        self.facts = Facts()
        self._changed = changed
        self.served: Sequence[Served] = ()
        self._settings = settings
        self._models = {files.model: files for files in models}
        self._loaded: dict[bytes, pipe.Loaded] = {}
        self._measured: dict[bytes, pipe.Measured] = {}
        self._settled: set[bytes] = set()
        self._running: dict[int, _Running] = {}
        self._numbers = 0
        self._told_a_prompt = False
        # A task is answered before its slot is free, so this can never be full.
        most = 2 + 3 * len(models) + 2 * settings.slots * len(models)
        self._outgoing, self._to_write = trio.open_memory_channel[pipe.ToWorker](most)
        self._scope = trio.CancelScope()

    # Tasks.

    def slots_free(self, model: ModelId) -> int:
        slots = sum(served.slots for served in self.served if served.model == model)
        return slots - sum(running.model == model for running in self._running.values())

    def begin(self, task: Task) -> tuple[int, trio.MemoryReceiveChannel[Event | LocalError]]:
        """Hand a task to the worker. Raises LocalError: MODEL_NOT_SERVED or BUSY."""
        if all(served.model != task.model for served in self.served):
            raise LocalError(
                Code.MODEL_NOT_SERVED,
                f"The model {short(task.model)} does not run here now; the worker has "
                f"{', '.join(served.name for served in self.served) or 'none yet'}.",
            )
        if self.slots_free(task.model) < 1:
            raise LocalError(
                Code.BUSY, "All slots of this model are taken: try again soon.", retry_ms=1000
            )
        send, receive = trio.open_memory_channel[Event | LocalError](
            task.output_tokens_max + _OTHER_EVENTS
        )
        self._numbers += 1
        self._running[self._numbers] = _Running(task.model, send)
        self._told_a_prompt = True
        self._outgoing.send_nowait(_added(self._numbers, task))
        self._changed()
        return self._numbers, receive

    def leave(self, number: int) -> None:
        """Nobody waits for this task any more: cancel it, if it still runs."""
        running = self._running.get(number)
        if running is not None and not running.left:
            running.left = True
            running.events.close()
            self._outgoing.send_nowait(pipe.Cancel(number))

    # The process.

    async def run(self, command: Sequence[str]) -> None:
        """Start the process, load the models, carry tasks; returns when the process has ended,
        for whatever reason, which is then the last of `facts.faults`."""
        try:
            with self._scope:
                async with open_process(command) as process, trio.open_nursery() as nursery:
                    self.facts.pid = process.pid
                    nursery.start_soon(self._write, process)
                    nursery.start_soon(self._hear_faults, process)
                    nursery.start_soon(self._hear, process)
                    nursery.start_soon(self._watch_start)
                    nursery.start_soon(self._measure_again)
                    self._say_start()
        except OSError as error:
            self.facts.faults.append(f"The worker cannot be started: {error.strerror}.")
        finally:
            self.served = ()
            self._fail_all()

    def _end(self, why: str) -> None:
        self.facts.faults.append(why)
        self._scope.cancel()

    def _fail_all(self) -> None:
        for running in self._running.values():
            if not running.left:
                running.events.send_nowait(
                    LocalError(
                        Code.WORKER_FAILED,
                        "The process that ran the model ended; it is being started again.",
                    )
                )
                running.events.close()
        self._running.clear()

    def _say_start(self) -> None:
        s = self._settings
        self._outgoing.send_nowait(pipe.Start(s.threads, s.idle_priority, s.device, s.compute))
        for files in self._models.values():
            self._outgoing.send_nowait(
                pipe.Load(
                    files.model,
                    files.name,
                    str(files.weights),
                    files.chat_template,
                    s.slots,
                    files.context_tokens_max,
                )
            )

    async def _watch_start(self) -> None:
        await trio.sleep(START_SECONDS_MAX)
        if len(self._settled) < len(self._models):
            self._end(f"The worker was not ready after {START_SECONDS_MAX} s.")

    async def _measure_again(self) -> None:
        """What was timed while the machine was busy starting would mislead others for ever, so
        it is timed anew when nothing runs here."""
        *few, often = self._settings.measure_again_seconds
        for seconds in chain(few, repeat(often)):
            while True:
                await trio.sleep(seconds)
                # A worker that does not read what it was told is given no more to read.
                if self.served and not self._running and not self._unread:
                    break
            for served in self.served:
                self._outgoing.send_nowait(pipe.Measure(served.model))

    @property
    def _unread(self) -> int:
        return self._outgoing.statistics().current_buffer_used

    async def _write(self, process: trio.Process) -> None:
        assert process.stdin is not None
        try:
            async for message in self._to_write:
                await process.stdin.send_all(pipe.frame(message))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # The process has ended: whoever reads its output will see.

    async def _hear(self, process: trio.Process) -> None:
        """Take messages as they come: nothing here waits for whom they concern."""
        assert process.stdout is not None
        frames = pipe.Frames()
        try:
            while data := await process.stdout.receive_some(READ_BYTES):
                for body in frames.feed(data):
                    self._take(pipe.from_worker(body))
        except pipe.PipeError as error:
            self._end(f"The worker wrote {error}.")
            return
        status = await process.wait()
        self._end(f"The worker process ended {_ending(status)}.")

    async def _hear_faults(self, process: trio.Process) -> None:
        assert process.stderr is not None

        def take(line: str) -> None:
            # Once a prompt is there only what our own code writes is shown: it never quotes.
            if line.startswith("worker") or not self._told_a_prompt:
                _log.warning("worker.complained", line=line)
                self.facts.faults.append(line)

        await read_lines(process.stderr, take)

    def _take(self, message: pipe.FromWorker) -> None:
        match message:
            case pipe.Ready():
                self.facts.device, self.facts.compute = message.device, message.compute
                self.facts.torch_version = message.torch_version
                self.facts.confined = message.confined
                held = " ".join(message.confined)
                _log.info("worker.ready", device=message.device, confined=held)
            case pipe.Loaded(model):
                self._loaded[model] = message
                self._outgoing.send_nowait(pipe.Measure(model))
            case pipe.LoadFailed(model, code, sentence):
                _log.warning("model.failed", model=self._name(model), code=code, why=sentence)
                self.facts.faults.append(sentence)
                self._settle(model)
            case pipe.Measured(model):
                self._measured[model] = message
                self._settle(model)
            case pipe.Began(task, prompt_tokens, ids_digest):
                self._give(task, Begun(prompt_tokens, ids_digest))
            case pipe.Progress(task, ids, text):
                self._give(task, Tokens(tuple(ids), text))
            case pipe.Ended(task, reason):
                self._give(task, Ended(reason), last=True)
            case pipe.Failed(task, code, sentence):
                self._give(task, LocalError(code, sentence), last=True)

    def _name(self, model: bytes) -> str:
        files = self._models.get(ModelId(model))
        if files is None:
            raise pipe.PipeError("of a model that nobody asked for")
        return files.name

    def _settle(self, model: bytes) -> None:
        """One more model is ready or given up; all become served together, so that timing one
        never waits for another's users."""
        self._name(model)
        self._settled.add(model)
        if len(self._settled) < len(self._models):
            return
        self.served = [self._served(m) for m in self._models if m in self._measured]
        for each in self.served:
            _log.info(
                "model.served",
                name=each.name,
                mode=each.mode,
                decode_millitokens_per_second=each.decode_millitokens_per_second,
            )
        self._changed()

    def _served(self, model: ModelId) -> Served:
        loaded, measured = self._loaded.get(model), self._measured[model]
        if loaded is None:
            raise pipe.PipeError("a measure of a model that it had not loaded")
        return Served(
            model,
            self._name(model),
            loaded.mode,
            loaded.context_tokens,
            loaded.slots,
            measured.prefill_millitokens_per_second,
            measured.decode_millitokens_per_second,
        )

    def _give(self, number: int, event: Event | LocalError, last: bool = False) -> None:
        running = self._running.get(number)
        if running is None:
            raise pipe.PipeError("of a task that does not run")
        if not running.left:
            try:
                running.events.send_nowait(event)
            except trio.WouldBlock:
                raise pipe.PipeError("more tokens than a task may have") from None
            except trio.BrokenResourceError:
                pass  # Whoever asked has just left; the cancellation follows.
        if last:
            running.events.close()
            del self._running[number]
            self._changed()


def _added(number: int, task: Task) -> pipe.Add:
    return pipe.Add(
        number,
        task.model,
        list(task.messages),
        task.text,
        list(task.stop),
        task.sampling,
        task.seed,
        task.first_t,
        list(task.prefix_ids),
        task.output_tokens_max,
    )


def _ending(status: int) -> str:
    return f"by signal {-status}" if status < 0 else f"with status {status}"
