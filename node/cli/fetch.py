"""Getting a model's files, with a progress bar for a person and a few lines for a pipe."""

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from node.cli.output import Output
from node.cli.words import bytes_words
from node.config import Paths

if TYPE_CHECKING:
    from node.models.cache import Progress, ReadyModel

_PERCENT_STEP = 10


def fetch_model(name: str, paths: Paths, output: Output) -> "ReadyModel":
    """The model on this disk, fetched where it is missing; a second run goes on where the first
    one stopped. Raises LocalError NOT_FOUND, UNAVAILABLE or DIGEST_MISMATCH."""
    import trio

    from node.models.cache import ModelCache
    from node.models.catalogue import load_catalogue

    model = load_catalogue(paths.models_file).find(name)
    cache = ModelCache(paths.models_folder, paths.config_folder)
    with ExitStack() as stack:
        watch = _bar(stack) if sys.stderr.isatty() and not output.as_json else _Lines(output)
        return trio.run(cache.get, model, watch)


class _Lines:
    """One remark for each new stage and every tenth of it."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last: tuple[str, str, int] = ("", "", 0)

    def __call__(self, progress: "Progress") -> None:
        total = progress.bytes_total
        share = progress.bytes_done * 100 // total if total else 0
        step = (progress.file, progress.stage, share // _PERCENT_STEP)
        if step == self._last:
            return
        self._last = step
        size = f" of {bytes_words(total)}" if total else ""
        self._output.remark(f"{progress.stage} {progress.file}: {share} %{size}")


def _bar(stack: ExitStack) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    bars = stack.enter_context(
        Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
    )
    tasks: dict[tuple[str, str], Any] = {}

    def watch(progress: "Progress") -> None:
        stage = (progress.file, progress.stage)
        if stage not in tasks:
            tasks[stage] = bars.add_task(f"{progress.stage} {progress.file}", total=None)
        bars.update(tasks[stage], completed=progress.bytes_done, total=progress.bytes_total or None)

    return watch
