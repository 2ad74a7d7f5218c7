"""Has models packed for the native engine before a worker starts, which may write no files."""

from collections.abc import Sequence

import trio

from node.jobs.worker_process import open_process, read_lines
from node.jobs.worker_settings import ModelFiles, WorkerSettings, start_messages
from node.telemetry.logs import Log
from node.worker import pipe

PACK_SECONDS_MAX = 600  # Some ten GB to read and to write, on a slow disk.

_log = Log("packer")


async def pack(
    command: Sequence[str], settings: WorkerSettings, models: Sequence[ModelFiles]
) -> None:
    """Run the process that packs what is not packed yet, to its end. Whatever goes wrong is said
    in the log, and the worker then packs in memory."""
    wanted = [model for model in models if model.packed is not None]
    if settings.engine == "torch" or not wanted:
        return
    try:
        with trio.move_on_after(PACK_SECONDS_MAX):
            async with open_process(command) as process, trio.open_nursery() as nursery:
                assert process.stdin is not None
                assert process.stderr is not None
                nursery.start_soon(read_lines, process.stderr, _complain)
                data = b"".join(pipe.frame(each) for each in start_messages(settings, wanted))
                await process.stdin.send_all(data)
                await process.stdin.aclose()
                await process.wait()
    except* (OSError, trio.BrokenResourceError):
        _log.warning("packer.failed")


def _complain(line: str) -> None:
    # No prompt is anywhere near, so its words may be shown.
    _log.warning("packer.complained", line=line)
