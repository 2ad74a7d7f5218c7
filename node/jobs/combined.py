"""Several Inferences as one: this machine's own worker and servers of other programs beside it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from node.jobs.inference import EmbedTask, Event, Inference, Served, Task
from protocol.errors import Code, LocalError
from protocol.ids import ModelId


class CombinedInference(Inference):
    """A task goes to the first of `parts` that serves its model now."""

    def __init__(self, parts: Sequence[Inference]) -> None:
        assert parts
        self._parts = tuple(parts)

    @property
    def served(self) -> Sequence[Served]:
        """Each model once, as it is served by the part that would get its tasks."""
        found: dict[ModelId, Served] = {}
        for part in self._parts:
            for served in part.served:
                found.setdefault(served.model, served)
        return tuple(found.values())

    def slots_free(self, model: ModelId) -> int:
        part = self._serving(model)
        return 0 if part is None else part.slots_free(model)

    def generate(self, task: Task) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._chosen(task.model).generate(task)

    def embed(self, task: EmbedTask) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._chosen(task.model).embed(task)

    def _chosen(self, model: ModelId) -> Inference:
        part = self._serving(model)
        if part is None:
            names = ", ".join(served.name for served in self.served) or "none now"
            raise LocalError(
                Code.MODEL_NOT_SERVED,
                f"This model does not run here now; those that do are {names}.",
                retry_ms=5_000,
            )
        return part

    def _serving(self, model: ModelId) -> Inference | None:
        return next(
            (part for part in self._parts for served in part.served if served.model == model), None
        )
