"""Starts one worker process, ends it within a second, and hears what it writes to stderr."""

import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import psutil
import trio

import node
from node.worker.pipe import ENVIRONMENT_ALLOWED

LINE_CHARACTERS_MAX: Final = 200
LINES_MAX: Final = 200  # Of one life of a worker: a library that complains without end is muted.
READ_BYTES: Final = 64 << 10
LEAVE_SECONDS: Final = 0.5  # After its pipe is closed; a worker that is well needs a few ms.
TERMINATE_SECONDS: Final = 0.3

# An isolated interpreter (-I) takes no path from the directory or the environment, so ours is
# handed over: the folder that this package was itself imported from.
_START: Final = (
    "import sys, runpy; sys.path.append(sys.argv[1]); "
    "runpy.run_module(sys.argv[2], run_name='__main__', alter_sys=True)"
)


def worker_command() -> list[str]:
    """How to start `node.worker` with this interpreter, from a checkout or an installation."""
    return _command("node.worker")


def packer_command() -> list[str]:
    """How to start `node.worker.pack`."""
    return _command("node.worker.pack")


def _command(module: str) -> list[str]:
    assert node.__file__ is not None
    return [sys.executable, "-I", "-c", _START, str(Path(node.__file__).parent.parent), module]


def worker_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """What a worker may know of the daemon's environment: a passphrase or a token is not in it."""
    return {name: variables[name] for name in ENVIRONMENT_ALLOWED if name in variables}


@asynccontextmanager
async def open_process(command: Sequence[str]) -> AsyncIterator[trio.Process]:
    """The process, with pipes at stdin, stdout and stderr; on leaving it is gone, within a second
    and also when cancelled. Raises OSError when it cannot be started."""
    process = await trio.lowlevel.open_process(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=worker_environment(os.environ),
    )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


async def _end(process: trio.Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    await process.stdin.aclose()
    for seconds, insist in (
        (LEAVE_SECONDS, process.terminate),
        (TERMINATE_SECONDS, process.kill),
        (math.inf, None),
    ):
        with trio.move_on_after(seconds):
            await process.wait()
            break
        assert insist is not None
        insist()
    await process.stdout.aclose()
    await process.stderr.aclose()


async def read_lines(stream: trio.abc.ReceiveStream, take: Callable[[str], None]) -> None:
    """Hand on each line, cut to a bound, until the stream ends; after a bound it is only read."""
    rest, lines = b"", 0
    try:
        while data := await stream.receive_some(READ_BYTES):
            *whole, rest = (rest + data).split(b"\n")
            # A line without end must not grow: its beginning is all that is shown.
            rest = rest[: 4 * LINE_CHARACTERS_MAX]
            for line in whole:
                lines += 1
                if lines <= LINES_MAX and line.strip():
                    take(line.decode("utf-8", "replace").strip()[:LINE_CHARACTERS_MAX])
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


def resident_bytes(pid: int) -> int:
    """The memory that a process holds, 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
