"""What this node runs for others: its models from the catalogue to the worker pool."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import trio

from node.config import Config
from node.jobs.inference import Event, Inference, Served, Task
from node.jobs.pool import PoolSettings, WorkerPool
from node.jobs.worker_life import ModelFiles, WorkerSettings
from node.models.cache import ModelCache, Progress, ReadyModel
from node.models.catalogue import Catalogue
from node.telemetry.logs import Log
from protocol.capacity import ModelOffer
from protocol.errors import Code, LocalError
from protocol.ids import ModelId

FETCH_AGAIN_SECONDS = 300
Watcher = Callable[[bool], None]
"""(are there other models than before?)"""

_log = Log("shared")


class Shared(Inference):
    """The models of this node. Its pool comes to be when they are on disk: until then, and on a
    node that shares nothing, it serves nothing."""

    def __init__(self, config: Config, catalogue: Catalogue, cache: ModelCache) -> None:
        self._config = config
        self._catalogue = catalogue
        self._cache = cache
        self._watchers: list[Watcher] = []
        self._told: frozenset[ModelId] = frozenset()
        self.pool: WorkerPool | None = None
        self.fetching = ""
        """What is being fetched, or why that failed; "" when all is here."""

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` whenever offers or free slots may have changed; it must not wait."""
        self._watchers.append(watcher)

    @property
    def served(self) -> Sequence[Served]:
        return () if self.pool is None else self.pool.served

    def slots_free(self, model: ModelId) -> int:
        return 0 if self.pool is None else self.pool.slots_free(model)

    def generate(self, task: Task) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        if self.pool is None:
            raise LocalError(
                Code.MODEL_NOT_SERVED, "The models are not loaded yet: try again soon.", 5_000
            )
        return self.pool.generate(task)

    def offers(self) -> list[ModelOffer]:
        """What is for sale now: loaded models at the owner's prices, with the slots left."""
        return [self._offer(served) for served in self.served]

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
        )
        files = [
            ModelFiles(ready.model, ready.name, ready.weights, ready.context_tokens)
            for ready in models
        ]
        pool = WorkerPool(PoolSettings(files, settings))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run)
            self.pool = pool
            try:
                while True:
                    self._tell()
                    await pool.wait_changed()
            finally:
                self.pool = None
                self._tell()

    async def _ready(self, name: str) -> ReadyModel:
        while True:
            try:
                return await self._cache.get(self._catalogue.find(name), self._progress)
            except LocalError as error:
                # The node is of use without it, and the index may be back in a while.
                _log.warning("model.not_had", model=name, code=error.code)
                self.fetching = f"{error.sentence} It is tried again every five minutes."
                self._tell()
                await trio.sleep(FETCH_AGAIN_SECONDS)

    def _progress(self, progress: Progress) -> None:
        done, total = progress.bytes_done >> 20, progress.bytes_total >> 20
        of = f" of {total}" if total else ""
        self.fetching = f"{progress.model}: {progress.stage}, {done}{of} MiB"

    def _tell(self) -> None:
        served = frozenset(served.model for served in self.served)
        others = served != self._told  # Which models there are, not only how many slots.
        self._told = served
        for watcher in self._watchers:
            watcher(others)

    def _offer(self, served: Served) -> ModelOffer:
        price = self._config.share.price(served.name)
        return ModelOffer(
            model=served.model,
            name=served.name,
            mode=served.mode,
            context_tokens=served.context_tokens,
            price_in=price.price_in,
            price_out=price.price_out,
            prefill_millitokens_per_second=served.prefill_millitokens_per_second,
            decode_millitokens_per_second=served.decode_millitokens_per_second,
            slots=served.slots,
            slots_free=self.slots_free(served.model),
        )
