"""One life of a worker process, from its start to its end: loading, tasks, messages."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Final

import trio

from node.jobs.inference import Begun, EmbedTask, Ended, Event, Served, Task, Tokens, Vectors
from node.jobs.worker_process import open_process, read_lines
from node.jobs.worker_settings import ModelFiles, WorkerSettings, start_messages
from node.telemetry.logs import Log
from node.worker import pipe
from protocol.errors import Code, LocalError
from protocol.ids import ModelId, short

START_SECONDS_MAX: Final = 600  # To import torch, read and time every model, on a slow disk.
READ_BYTES: Final = 64 << 10
# What a channel holds beside one event a token: begun, the end, and a failure.
_OTHER_EVENTS: Final = 3
OPENINGS_MAX: Final = 16  # Questions for rows at once.

_log = Log("worker")


@dataclass(slots=True)
class _Running:
    model: ModelId
    is_owner: bool
    events: trio.MemorySendChannel[Event | LocalError]
    left: bool = False  # Nobody listens any more; the slot is free when the worker says so.


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """How a model runs; for people."""

    name: str
    engine: str
    note: str


@dataclass(slots=True)
class Facts:
    """What is known of this process; for people, so it is filled in as things become known."""

    pid: int = 0
    device: str = ""
    compute: str = ""
    torch_version: str = ""
    confined: Sequence[str] = ()
    models: list[ModelFacts] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # The last sentence is the most telling.


class WorkerLife:
    """Not for more than one run."""

    def __init__(
        self,
        settings: WorkerSettings,
        models: Sequence[ModelFiles],
        changed: Callable[[], None],
        numbers: Iterator[int],
    ) -> None:
        """`changed` is called whenever `served` or the free slots are others. `numbers` are those
        of the tasks to come, which no other life has."""
        self.facts = Facts()
        self._changed = changed
        self.served: Sequence[Served] = ()
        self._settings = settings
        self._models = {files.model: files for files in models}
        self._loaded: dict[bytes, pipe.Loaded] = {}
        self._measured: dict[bytes, pipe.Measured] = {}
        self._settled: set[bytes] = set()
        self._running: dict[int, _Running] = {}
        self._numbers = numbers
        self._opening: defaultdict[int, deque[trio.MemorySendChannel[list[bytes]]]] = defaultdict(
            deque
        )
        self._told_a_prompt = False
        # A task is answered before its slot is free, so this can never be full.
        # The owner may have as many tasks as there are slots beside those of others.
        most = 2 + 3 * len(models) + 4 * settings.slots * len(models) + OPENINGS_MAX
        self._outgoing, self._to_write = trio.open_memory_channel[pipe.ToWorker](most)
        self._scope = trio.CancelScope()

    # Tasks.

    def slots_free(self, model: ModelId) -> int:
        slots = sum(served.slots for served in self.served if served.model == model)
        return max(0, slots - sum(each.model == model for each in self._running.values()))

    def begin(
        self, task: Task | EmbedTask
    ) -> tuple[int, trio.MemoryReceiveChannel[Event | LocalError]]:
        """Hand a task to the worker. Raises LocalError: MODEL_NOT_SERVED or BUSY."""
        if all(served.model != task.model for served in self.served):
            raise LocalError(
                Code.MODEL_NOT_SERVED,
                f"The model {short(task.model)} does not run here now; the worker has "
                f"{', '.join(served.name for served in self.served) or 'none yet'}.",
            )
        is_owner = not task.requester
        if not (self._owner_has_room(task.model) if is_owner else self.slots_free(task.model)):
            raise LocalError(
                Code.BUSY, "All slots of this model are taken: try again soon.", retry_ms=1000
            )
        send, receive = trio.open_memory_channel[Event | LocalError](
            _events_most(task) + _OTHER_EVENTS
        )
        number = next(self._numbers)
        self._running[number] = _Running(task.model, is_owner, send)
        self._told_a_prompt = True
        self._outgoing.send_nowait(_added(number, task))
        self._changed()
        return number, receive

    def _owner_has_room(self, model: ModelId) -> bool:
        """The owner's tasks push others out, which then wait inside the worker."""
        mine = sum(each.is_owner and each.model == model for each in self._running.values())
        return mine < self._settings.slots

    def leave(self, number: int) -> None:
        """Nobody waits for this task any more: cancel it, if it still runs."""
        running = self._running.get(number)
        if running is not None and not running.left:
            running.left = True
            running.events.close()
            self._outgoing.send_nowait(pipe.Cancel(number))

    async def opened(self, number: int, places: Sequence[int]) -> list[bytes]:
        """Rows of a task, also of one that has ended: in the order of `places`, b"" for those that
        are not kept. Raises LocalError: BUSY, WORKER_FAILED."""
        assert len(places) <= pipe.OPENED_ROWS_MAX
        if sum(map(len, self._opening.values())) >= OPENINGS_MAX:
            raise LocalError(Code.BUSY, "Too many rows are asked for: try again.", retry_ms=100)
        send, receive = trio.open_memory_channel[list[bytes]](1)
        self._opening[number].append(send)
        self._outgoing.send_nowait(pipe.Open(number, list(places)))
        async with receive:
            async for rows in receive:
                return rows
        raise _process_ended()

    def forget(self, number: int) -> None:
        """Nobody will ask for the rows of this task any more."""
        if self._unread < OPENINGS_MAX:  # It forgets them by itself, only later.
            self._outgoing.send_nowait(pipe.Forget(number))

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
                running.events.send_nowait(_process_ended())
                running.events.close()
        self._running.clear()
        for waiting in self._opening.values():
            for channel in waiting:
                channel.close()
        self._opening.clear()

    def _say_start(self) -> None:
        for message in start_messages(self._settings, list(self._models.values())):
            self._outgoing.send_nowait(message)

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
                name = self._name(model)
                self.facts.models.append(ModelFacts(name, message.engine, message.note))
                _log.info("model.loaded", name=name, engine=message.engine)
                self._outgoing.send_nowait(pipe.Measure(model))
            case pipe.LoadFailed(model, code, sentence):
                _log.warning("model.failed", model=self._name(model), code=code, why=sentence)
                self.facts.faults.append(sentence)
                self._settle(model)
            case pipe.Measured(model):
                self._measured[model] = message
                self._settle(model)
            case pipe.Began(task, prompt_tokens, ids_digest):
                self._give(task, Begun(prompt_tokens, ids_digest, task))
            case pipe.Progress(task):
                self._give(task, _tokens(message))
            case pipe.Opened(task, rows):
                self._opened(task, rows)
            case pipe.Embedded(task, vectors):
                self._give(task, Vectors(tuple(vectors)))
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
            loaded.kind,
        )

    def _opened(self, number: int, rows: list[bytes]) -> None:
        waiting = self._opening.get(number)
        if not waiting:
            raise pipe.PipeError("rows that nobody asked for")
        with suppress(trio.BrokenResourceError):  # Whoever asked has left.
            waiting.popleft().send_nowait(rows)
        if not waiting:
            del self._opening[number]

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


def _tokens(said: pipe.Progress) -> Tokens:
    count = len(said.ids)
    if {len(said.leaves), len(said.alternatives)} - {0, count}:
        raise pipe.PipeError("more or fewer facts than tokens")
    alternatives = tuple(tuple(place) for place in said.alternatives)
    return Tokens(tuple(said.ids), said.text, tuple(said.leaves), alternatives)


def _process_ended() -> LocalError:
    return LocalError(
        Code.WORKER_FAILED, "The process that ran the model ended; it is being started again."
    )


def _events_most(task: Task | EmbedTask) -> int:
    """How many events with something of the answer in them a task may have."""
    return len(task.texts) if isinstance(task, EmbedTask) else task.output_tokens_max


def _added(number: int, task: Task | EmbedTask) -> pipe.Add | pipe.Embed:
    if isinstance(task, EmbedTask):
        return pipe.Embed(number, task.model, task.requester, list(task.texts))
    return pipe.Add(
        number,
        task.model,
        task.requester,
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
