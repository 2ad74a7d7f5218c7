"""What a worker process is told at its start: how to behave, and which models to load."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node.worker import pipe
from protocol.ids import ModelId


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that is to be served."""

    model: ModelId
    name: str
    files: Sequence[pipe.File]
    context_tokens_max: int = 0  # 0: all that it was made for.
    chat_template: str = ""  # Empty: the one among the files.
    packed: Path | None = None  # Where its packed weights are kept; None: nowhere.
    memory_bytes_max: int = 0  # 0: what the machine has to give.


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
    engine: str = "auto"  # Or "native" or "torch".
    public_prefixes: Sequence[str] = ()  # System prompts whose cache all requesters may share.


def start_messages(
    settings: WorkerSettings, models: Sequence[ModelFiles]
) -> list[pipe.Start | pipe.Load]:
    """The first words to a worker, or to the process that packs models for it."""
    s = settings
    start = pipe.Start(
        s.threads, s.idle_priority, s.device, s.compute, s.engine, sorted(_readable(models))
    )
    return [start, *(_load(s, model) for model in models)]


def _readable(models: Sequence[ModelFiles]) -> set[str]:
    """Every file, where its name leads: a cache may hold links. What is packed may be written
    anew, as another file of the same folder."""
    paths = {Path(file.path) for model in models for file in model.files}
    paths |= {model.packed.parent for model in models if model.packed is not None}
    return {str(path.resolve()) for path in paths}


def _load(settings: WorkerSettings, model: ModelFiles) -> pipe.Load:
    return pipe.Load(
        model=model.model,
        name=model.name,
        files=list(model.files),
        packed_path="" if model.packed is None else str(model.packed),
        chat_template=model.chat_template,
        slots=settings.slots,
        context_tokens_max=model.context_tokens_max,
        memory_bytes_max=model.memory_bytes_max,
        public_prefixes=list(settings.public_prefixes),
    )
