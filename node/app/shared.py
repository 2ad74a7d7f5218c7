"""What this node runs for others: models of its own worker, and of servers beside it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio

from node.app.own_models import OwnModels
from node.config import BackendSettings, Config
from node.jobs.combined import CombinedInference
from node.jobs.inference import EmbedTask, Event, Inference, Served, Task
from node.jobs.openai_backend import OpenAiBackend
from node.jobs.openai_server import ServerSettings, WantedModel
from node.jobs.pool import WorkerPool
from node.models.cache import ModelCache
from node.models.catalogue import Catalogue, external_model_id
from protocol.capacity import ModelOffer
from protocol.ids import ModelId

Watcher = Callable[[bool], None]
"""(are there other models than before?)"""


class Shared(Inference):
    """All models of this node, as one Inference with prices."""

    def __init__(
        self, config: Config, catalogue: Catalogue, cache: ModelCache, config_folder: Path
    ) -> None:
        """Key files of backends that are no absolute paths are in `config_folder`."""
        self._config = config
        self._watchers: list[Watcher] = []
        self._told: frozenset[ModelId] = frozenset()
        self._own = OwnModels(config, catalogue, cache, self._tell)
        self._backends = [
            OpenAiBackend(_server(settings, config_folder), self._tell)
            for settings in config.share.backends
        ]
        self._all = CombinedInference([self._own, *self._backends])

    @property
    def pool(self) -> WorkerPool | None:
        """None while there is none."""
        return self._own.pool

    @property
    def fetching(self) -> str:
        """What is being fetched, or why that failed; "" when all is here."""
        return self._own.fetching

    @property
    def backend_faults(self) -> Sequence[str]:
        """A sentence for each server that does not offer all that it is meant to."""
        return [backend.fault for backend in self._backends if backend.fault]

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` whenever offers or free slots may have changed; it must not wait."""
        self._watchers.append(watcher)

    @property
    def served(self) -> Sequence[Served]:
        return self._all.served

    def slots_free(self, model: ModelId) -> int:
        return self._all.slots_free(model)

    def generate(self, task: Task) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._all.generate(task)

    def embed(self, task: EmbedTask) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._all.embed(task)

    def offers(self) -> list[ModelOffer]:
        """What is for sale now: loaded models at the owner's prices, with the slots left."""
        return [self._offer(served) for served in self.served]

    async def run_own(self) -> None:
        """Fetch what is missing, then keep the worker running until cancelled."""
        await self._own.run()

    async def run_backends(self) -> None:
        """Look after the servers beside the worker until cancelled."""
        if self._config.share.enabled:
            async with trio.open_nursery() as nursery:
                for backend in self._backends:
                    nursery.start_soon(backend.run)

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
            kind=served.kind,
            mode=served.mode,
            context_tokens=served.context_tokens,
            price_in=price.price_in,
            price_out=price.price_out,
            prefill_millitokens_per_second=served.prefill_millitokens_per_second,
            decode_millitokens_per_second=served.decode_millitokens_per_second,
            slots=served.slots,
            slots_free=self.slots_free(served.model),
        )


def _server(settings: BackendSettings, config_folder: Path) -> ServerSettings:
    key_file = Path(settings.api_key_file).expanduser()
    return ServerSettings(
        url=settings.url,
        models={
            external_model_id(model.serve_as): WantedModel(
                model.name, model.serve_as, model.context_tokens
            )
            for model in settings.models
        },
        slots=settings.slots,
        takes=settings.takes,
        api_key_file=config_folder / key_file if settings.api_key_file else None,
    )
