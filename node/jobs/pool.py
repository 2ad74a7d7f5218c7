"""Keeps a worker process running and gives it tasks: the real Inference.

The daemon never imports torch: it starts `node.worker` and speaks to it through a pipe.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import trio

from node.jobs.inference import EmbedTask, Ended, Event, Inference, Served, Task
from node.jobs.packer import pack
from node.jobs.worker_life import ModelFacts, WorkerLife
from node.jobs.worker_process import packer_command, resident_bytes, worker_command
from node.jobs.worker_settings import ModelFiles, WorkerSettings
from node.supervise import BackOff
from node.telemetry.logs import Log
from protocol.errors import Code, LocalError
from protocol.ids import ModelId

_log = Log("pool")


@dataclass(frozen=True, slots=True)
class WorkerState:
    """For `ayni status`."""

    pid: int  # 0 while there is none.
    resident_bytes: int
    restarts: int
    device: str
    compute: str
    torch_version: str
    confined: Sequence[str]  # What the sandbox could do here.
    last_error: str  # A sentence, or nothing.
    models: Sequence[ModelFacts] = ()


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What the pool runs and how."""

    models: Sequence[ModelFiles]
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    back_off: BackOff = field(default_factory=BackOff)
    command: Sequence[str] = field(default_factory=worker_command)
    packer: Sequence[str] = field(default_factory=packer_command)


class WorkerPool(Inference):
    """One worker process, started again with back-off whenever it ends."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._life: WorkerLife | None = None
        self._numbers = count(1)
        self._restarts = 0
        self._last_error = ""
        self._changed = trio.Event()

    async def run(self) -> None:
        """Keep the worker running until cancelled; then it is gone within a second. Without
        models there is nothing to run, and this only waits."""
        if not self._settings.models:
            await trio.sleep_forever()
        wait: float | None = None
        while True:
            settings = self._settings
            await pack(settings.packer, settings.worker, settings.models)
            began = trio.current_time()
            self._life = life = WorkerLife(
                settings.worker, settings.models, self._notify, self._numbers
            )
            try:
                await life.run(self._settings.command)
            finally:
                self._life = None
            self._last_error = life.facts.faults[-1] if life.facts.faults else ""
            self._restarts += 1
            self._notify()
            wait = self._settings.back_off.next(wait, trio.current_time() - began)
            _log.warning("worker.restarts", restarts=self._restarts, wait_ms=round(wait * 1000))
            await trio.sleep(wait)

    @property
    def served(self) -> Sequence[Served]:
        return () if self._life is None else self._life.served

    @property
    def state(self) -> WorkerState:
        if self._life is None:
            return WorkerState(0, 0, self._restarts, "", "", "", (), self._last_error)
        facts = self._life.facts
        return WorkerState(
            facts.pid,
            resident_bytes(facts.pid) if facts.pid else 0,
            self._restarts,
            facts.device,
            facts.compute,
            facts.torch_version,
            facts.confined,
            facts.faults[-1] if facts.faults else self._last_error,
            facts.models,
        )

    async def wait_changed(self) -> None:
        """Return when `served` or the free slots may have changed: a model came or went, a task
        began or ended. What there is now must be asked for then."""
        await self._changed.wait()

    def slots_free(self, model: ModelId) -> int:
        return 0 if self._life is None else self._life.slots_free(model)

    def generate(self, task: Task) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._run_task(task)

    def embed(self, task: EmbedTask) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._run_task(task)

    @asynccontextmanager
    async def _run_task(self, task: Task | EmbedTask) -> AsyncIterator[AsyncIterator[Event]]:
        life = self._life
        if life is None:
            raise LocalError(
                Code.MODEL_NOT_SERVED, "The worker is starting: try again soon.", retry_ms=5000
            )
        number, events = life.begin(task)
        try:
            async with aclosing(_until_end(events)) as listening:
                yield listening
        finally:
            life.leave(number)

    async def opened(self, number: int, places: Sequence[int]) -> list[bytes]:
        """The hidden rows from which the tokens at these places of an answer were drawn, for a
        while after its end too: in the order of `places`, b"" for those that are not kept.
        `number` is that of its Begun.

        Raises LocalError: BUSY, WORKER_FAILED (the process died, and the rows with it).
        """
        if self._life is None:
            raise LocalError(Code.WORKER_FAILED, "The worker is starting, and has no rows.")
        return await self._life.opened(number, places)

    def forget(self, number: int) -> None:
        """Nobody will ask for the rows of this answer any more."""
        if self._life is not None:
            self._life.forget(number)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def _until_end(
    events: trio.MemoryReceiveChannel[Event | LocalError],
) -> AsyncGenerator[Event, None]:
    async for event in events:
        if isinstance(event, LocalError):
            raise event
        yield event
        if isinstance(event, Ended):
            return


@asynccontextmanager
async def open_pool(settings: PoolSettings) -> AsyncIterator[WorkerPool]:
    """A pool that runs inside the context; what the body raises comes in an ExceptionGroup. The
    pool may serve nothing yet: ask `wait_changed`."""
    pool = WorkerPool(settings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        try:
            yield pool
        finally:
            nursery.cancel_scope.cancel()
