"""What the benchmarks share: a testnet of real daemons, and what machine this is."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from node.config import Config, ShareSettings, find_paths, read_file, write
from node.testnet.plan import prepare

ROOT = Path(__file__).resolve().parent.parent
FLAGS_OF_INTEREST = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "neon", "asimd")


def machine() -> dict[str, Any]:
    """The processor, what it can, and how busy it is before anything is measured."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS_OF_INTEREST if flag in flags],
        "torch": version("torch"),
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def ayni(home: Path, *words: str) -> str:
    """What a command says. Ends the benchmark with its words when it fails."""
    command = [sys.executable, "-m", "node", "--home", str(home), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr or done.stdout)
    return done.stdout


@contextmanager
def open_net(nodes: int, second: Config, models: str = "") -> Iterator[list[dict[str, Any]]]:
    """So many daemons on loopback; the second one shares and works as told, the others share
    nothing. `models` is a catalogue of one's own."""
    with tempfile.TemporaryDirectory(prefix="ayni-bench-") as name:
        folder = Path(name)
        for number, home in enumerate(prepare(folder, nodes)):
            paths = find_paths(home.folder)
            told = second if number == 1 else Config(share=ShareSettings(enabled=False))
            config = read_file(paths.config_file, Config)
            write(paths.config_file, replace(config, share=told.share, worker=told.worker))
            paths.models_file.write_text(models, encoding="utf-8")
        try:
            yield json.loads(ayni(folder, "testnet", "up", "--detach", "--json"))
        finally:
            ayni(folder, "testnet", "down")
