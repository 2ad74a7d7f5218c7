"""The models of this node's own worker: from the catalogue, by way of the disk, to the pool."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio

from node.config import Config
from node.jobs.inference import EmbedTask, Event, Inference, Served, Task
from node.jobs.pool import PoolSettings, WorkerPool
from node.jobs.worker_settings import ModelFiles, WorkerSettings
from node.models.cache import ModelCache, Progress, ReadyModel
from node.models.catalogue import Catalogue
from node.telemetry.logs import Log
from node.worker import pipe
from protocol.errors import Code, LocalError
from protocol.ids import ModelId

FETCH_AGAIN_SECONDS = 300

_log = Log("shared")


class OwnModels(Inference):
    """The pool comes to be when the models are on disk: until then, and on a node that shares
    none of its own, it serves nothing."""

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        cache: ModelCache,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called whenever `served` or the free slots may be others."""
        self._config = config
        self._catalogue = catalogue
        self._cache = cache
        self._changed = changed
        self.pool: WorkerPool | None = None
        self.fetching = ""
        """What is being fetched, or why that failed; "" when all is here."""

    @property
    def served(self) -> Sequence[Served]:
        return () if self.pool is None else self.pool.served

    def slots_free(self, model: ModelId) -> int:
        return 0 if self.pool is None else self.pool.slots_free(model)

    def generate(self, task: Task) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._running_pool().generate(task)

    def embed(self, task: EmbedTask) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._running_pool().embed(task)

    def _running_pool(self) -> WorkerPool:
        if self.pool is None:
            raise LocalError(
                Code.MODEL_NOT_SERVED, "The models are not loaded yet: try again soon.", 5_000
            )
        return self.pool

    async def run(self) -> None:
        """Fetch what is missing, then keep the worker running until cancelled."""
        share, worker = self._config.share, self._config.worker
        if not (share.enabled and share.models):
            return
        models = [await self._ready(name) for name in share.models]
        self.fetching = ""
        settings = WorkerSettings(
            threads=worker.threads,
            idle_priority=worker.idle_priority,
            device=worker.device,
            slots=share.slots,
            engine=worker.engine,
            public_prefixes=share.public_prefixes,
        )
        sizes = [sum(file.path.stat().st_size for file in ready.files) for ready in models]
        shares = memory_shares(worker.memory_bytes_max, sizes)
        packed = self._cache.packed_folder
        files = [
            model_files(ready, packed, memory) for ready, memory in zip(models, shares, strict=True)
        ]
        pool = WorkerPool(PoolSettings(files, settings))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run)
            self.pool = pool
            try:
                while True:
                    self._changed()
                    await pool.wait_changed()
            finally:
                self.pool = None
                self._changed()

    async def _ready(self, name: str) -> ReadyModel:
        while True:
            try:
                return await self._cache.get(self._catalogue.find(name), self._progress)
            except LocalError as error:
                # The node is of use without it, and the index may be back in a while.
                _log.warning("model.not_had", model=name, code=error.code)
                self.fetching = f"{error.sentence} It is tried again every five minutes."
                self._changed()
                await trio.sleep(FETCH_AGAIN_SECONDS)

    def _progress(self, progress: Progress) -> None:
        done, total = progress.bytes_done >> 20, progress.bytes_total >> 20
        of = f" of {total}" if total else ""
        self.fetching = f"{progress.model}: {progress.stage}, {done}{of} MiB"


def model_files(ready: ReadyModel, packed: Path, memory_bytes_max: int) -> ModelFiles:
    """What the worker is told of a model; `packed` is the folder for what is made of weights."""
    return ModelFiles(
        model=ready.model,
        name=ready.name,
        files=[pipe.File(file.role, file.name, str(file.path)) for file in ready.files],
        context_tokens_max=ready.context_tokens,
        packed=packed / pipe.packed_name(ready.model),
        memory_bytes_max=memory_bytes_max,
    )


def memory_shares(bytes_max: int, sizes: Sequence[int]) -> list[int]:
    """How much of a bound each model may take, by the sizes of their files; 0 is no bound."""
    return [bytes_max * size // max(1, sum(sizes)) for size in sizes]
