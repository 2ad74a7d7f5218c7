"""The worker and llama.cpp's server, alive: a mixed load, starting up, memory."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import trio
from bench_engine_contest import Setting
from bench_engine_load import Answerer, Arrival, drive, load_figures
from bench_engine_load import plan as load_plan
from bench_engine_server import open_server
from bench_engine_worker import WorkerPlan, load_message, open_worker, start_message

from node.jobs.worker_process import packer_command
from node.worker import pipe

SEED: Final = 20
FIRST_PROMPT: Final = "Once upon a time in the Andes"
IMPORT_ROUNDS: Final = 3


def memory_mebibytes(pid: int) -> dict[str, int]:
    """Resident memory of a process: its own, and that of mapped files, which others may share and
    the system may take back. Empty where there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
    return {
        "own": int(fields["RssAnon"].split()[0]) >> 10,
        "of_files": (int(fields["RssFile"].split()[0]) + int(fields["RssShmem"].split()[0])) >> 10,
    }


async def _one_load(server: Answerer, pid: int, arrivals: Sequence[Arrival]) -> dict[str, Any]:
    await server.answer(FIRST_PROMPT, 8)
    return {**load_figures(await drive(server, arrivals)), "memory": memory_mebibytes(pid)}


async def mixed_load(
    setting: Setting, model: Path, count: int, per_second: float
) -> dict[str, dict[str, Any]]:
    """The same requests to both, one after the other, each alone on the machine. llama.cpp gets
    the format that is its fastest."""
    arrivals = load_plan(SEED, count, per_second)
    found = {}
    told = WorkerPlan(model, setting.threads, favoured=setting.favoured)
    async with open_worker(told) as worker:
        assert worker.loaded is not None
        name = f"ours, {worker.loaded.engine}"  # Torch, where there is no compiled kernel.
        found[name] = await _one_load(worker, worker.pid, arrivals)
    tool, weights = setting.places.tool("llama-server"), setting.places.model("Q4_0")
    async with open_server(tool, weights, setting.threads, favoured=setting.favoured) as server:
        found["llama.cpp Q4_0"] = await _one_load(server, server.pid, arrivals)
    return found


def import_seconds() -> float:
    """What `import torch` alone takes, the start of Python not counted."""

    def run(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", code], check=True)
        return time.perf_counter() - began

    return min(run("import torch") for _ in range(IMPORT_ROUNDS)) - min(
        run("pass") for _ in range(IMPORT_ROUNDS)
    )


def pack(model: Path, path: Path) -> None:
    """Weights as the native engine wants them, in a file, by the program that the daemon runs."""
    plan = WorkerPlan(model, 1, str(path))
    told = pipe.frame(start_message(plan)) + pipe.frame(load_message(plan))
    subprocess.run(packer_command(), input=told, check=True, stdout=subprocess.DEVNULL)


async def _worker_start(told: WorkerPlan) -> dict[str, Any]:
    """Seconds from the start of the process."""
    async with open_worker(told) as worker:
        first = (await worker.answer(FIRST_PROMPT, 1))[0] - worker.began
        return {
            "ready": round(worker.ready_seconds, 3),
            "loaded": round(worker.loaded_seconds, 3),
            "first_token": round(first, 3),
            "memory": memory_mebibytes(worker.pid),
        }


async def start_up(setting: Setting, model: Path, folder: Path) -> dict[str, Any]:
    """From the start of a process to its first token, the files in the system's cache."""
    packed = folder / "packed"
    await trio.to_thread.run_sync(pack, model, packed)
    plain = WorkerPlan(model, setting.threads, favoured=setting.favoured)
    ready = WorkerPlan(model, setting.threads, str(packed), favoured=setting.favoured)
    found = {"import_torch": round(await trio.to_thread.run_sync(import_seconds), 3)}
    tool = setting.places.tool("llama-server")
    began = trio.current_time()
    async with open_server(tool, model, setting.threads, favoured=setting.favoured) as server:
        first = (await server.answer(FIRST_PROMPT, 1))[0] - began
        theirs = {"first_token": round(first, 3), "memory": memory_mebibytes(server.pid)}
    return {
        **found,
        "ours, packed before": await _worker_start(ready),
        "ours, packed at the start": await _worker_start(plain),
        "llama.cpp": theirs,
    }
