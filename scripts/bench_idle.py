"""What a node costs that does nothing: memory, processor, and the start of the command.

.venv/bin/python scripts/bench_idle.py [--json]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from bench_net import ROOT, machine, open_net

from node.config import Config, ShareSettings, find_paths
from node.keystore import read_api_key

NODES = 4
SECONDS = 20
SETTLE_SECONDS = 15  # After the start: connections, adverts, and the allocator's second thoughts.
STARTS = 11
GOALS = {"memory_megabytes": 120, "processor_percent": 1.0, "help_seconds": 0.3}


def idle_figures() -> dict[str, Any]:
    """Of four daemons that know each other and share nothing; the worst of them counts."""
    with open_net(NODES, Config(share=ShareSettings(enabled=False))) as nodes:
        wait_for_peers(nodes)
        time.sleep(SETTLE_SECONDS)
        daemons = [psutil.Process(node["pid"]) for node in nodes]
        before = [sum(daemon.cpu_times()[:2]) for daemon in daemons]
        began = time.monotonic()
        time.sleep(SECONDS)
        seconds = time.monotonic() - began
        after = [sum(daemon.cpu_times()[:2]) for daemon in daemons]
        memory = [daemon.memory_info().rss / 1e6 for daemon in daemons]
    shares = [100 * (b - a) / seconds for a, b in zip(before, after, strict=True)]
    return {
        "peers": NODES - 1,
        "memory_megabytes": round(max(memory), 1),
        "processor_percent": round(max(shares), 2),
        "processor_percent_median": round(statistics.median(shares), 2),
        **start_figures(),
    }


def wait_for_peers(nodes: list[dict[str, Any]]) -> None:
    for node in nodes:
        paths = find_paths(Path(node["home"]))
        headers = {"authorization": f"Bearer {read_api_key(paths.api_key_file)}"}
        deadline = time.monotonic() + 60
        while True:
            peers = httpx.get(node["url"] + "/ayni/v1/peers", headers=headers, trust_env=False)
            known = [peer for peer in peers.json() if peer["connected"] and peer["hardware"]]
            if len(known) == NODES - 1:
                break
            if time.monotonic() > deadline:
                sys.exit(f"{node['name']} knows {len(known)} peers after a minute")
            time.sleep(0.1)


def start_figures() -> dict[str, float]:
    """`ayni --help` against a Python that does nothing, in turns; the median of each."""
    commands = {
        "help_seconds": [sys.executable, "-m", "node", "--help"],
        "python_seconds": [sys.executable, "-c", "pass"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS):
        for name, command in commands.items():
            began = time.monotonic()
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.monotonic() - began)
    return {name: round(statistics.median(taken), 3) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    as_json = parser.parse_args().json
    figures = {"machine": machine(), "idle": idle_figures()}
    if as_json:
        print(json.dumps(figures))
        return
    print(json.dumps(figures["machine"]))
    for line in idle_lines(figures["idle"]):
        print(line)


def idle_lines(idle: dict[str, Any]) -> list[str]:
    """The figures beside their goals."""
    return [f"{name:<20} {idle[name]:>8} (goal: below {goal})" for name, goal in GOALS.items()] + [
        f"{'a bare python':<20} {idle['python_seconds']:>8} s"
    ]


if __name__ == "__main__":
    main()
