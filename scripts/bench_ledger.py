"""The ledger's speed against what it is made of: raw verification and raw waits for the disk.

    .venv/bin/python scripts/bench_ledger.py [--quick] [--json]

Four and then seven witnesses are real processes on this machine, on loopback; each runs what a
witness needs: identity, network, database, ledger. Payers, in processes of their own, keep many
accounts' entries on their way at once. Every figure stands beside a baseline measured in the same
run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from bench_ledger_alone import alone_figures
from bench_ledger_cores import CORES_ENTRIES_MIN, cores_figures, cores_lines
from bench_ledger_disk import disk_figures
from bench_ledger_verify import ROUNDS, raw_rate, verify_figures, verify_lines
from bench_ledger_world import charter_of
from bench_net import machine

SCRIPT = Path(__file__).with_name("bench_ledger_node.py")
PAYERS = 2  # Processes.
WITNESS_COUNTS = (4, 7)


class Shape(NamedTuple):
    """Who pays: nodes in each process, and accounts that pay at the same time behind each."""

    name: str
    hosts: int
    lanes: int

    @property
    def on_their_way(self) -> int:
        """Entries, of all payers."""
        return PAYERS * self.hosts * self.lanes


# A node signs one entry after another, so homes that pay are many connections with little on each;
# what many accounts share a connection with, such as a gateway, has its questions travel together.
SHAPES = (Shape("homes", 16, 2), Shape("gateways", 1, 64))
CORES = os.cpu_count() or 1
WARM_SECONDS = 2
CERTIFIED_GOAL = 0.6
PER_SECOND_MAX = 2000  # Entries, of all payers together: so many accounts are prepared.
ENTRIES_PER_ACCOUNT = 50  # At least: then a payer takes the next.
PROBE_PER_SECOND_MAX = 100
SECONDS, ENTRIES = 15, 10_000
QUICK = 10  # A tenth of all that.


class Part:
    """A process of the benchmark, and what it says."""

    def __init__(self, name: str, task: dict[str, Any]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._watched = psutil.Process(self._process.pid)
        self.tell(json.dumps(task))

    def tell(self, line: str = "go") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def says(self) -> dict[str, Any]:
        """Its next line. Ends the benchmark when it has failed."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"A {self.name} ended with {self._process.wait()}; see above.")
        words: dict[str, Any] = json.loads(line)
        return words

    def processor_seconds(self) -> float:
        return sum(self._watched.cpu_times()[:2])

    def end(self) -> None:
        """It ends by itself once its input does."""
        self._process.communicate(timeout=30)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def parts_ended() -> Iterator[list[Part]]:
    """Whatever happens, no process is left."""
    parts: list[Part] = []
    try:
        yield parts
    finally:
        for part in parts:
            part.kill()


def certified_figures(folder: Path, seconds: float, count: int, shape: Shape) -> dict[str, Any]:
    """Entries certified and stored by all of `count` witnesses, and how long a vote takes."""
    paying = int((seconds + WARM_SECONDS) * PER_SECOND_MAX) // ENTRIES_PER_ACCOUNT
    paying += 4 * shape.on_their_way
    probing = int(seconds * PROBE_PER_SECOND_MAX) + 100
    accounts = paying + 2 * probing
    with parts_ended() as parts:

        def start(name: str, **task: Any) -> Part:
            common = {"accounts": accounts, "seconds": seconds, "witnesses": count}
            parts.append(Part(name, {**common, **task}))
            return parts[-1]

        witnesses = []
        for number in range(count):
            home = folder / f"{shape.name}-{count}-{number}"
            home.mkdir()
            witnesses.append(start("witness", number=number, folder=str(home)))
        asked = {"addresses": [witness.says()["address"] for witness in witnesses]}
        idle = start("probe", first=paying, last=paying + probing, **asked)
        idle.says()
        idle.tell()
        unloaded = idle.says()["vote_ms"]
        probe = start("probe", first=paying + probing, last=accounts, **asked)
        share = paying // PAYERS
        payers = [
            start(
                "payer",
                number=number,
                hosts=shape.hosts,
                lanes=shape.lanes,
                first=number * share,
                last=(number + 1) * share,
                warm_seconds=WARM_SECONDS,
                **asked,
            )
            for number in range(PAYERS)
        ]
        run = measured(probe, payers, witnesses, seconds)
        stored(run.pop("in_all"), witnesses, shape)
    votes = {"unloaded": unloaded, **run["vote_ms"]}
    of = {"witnesses": count, "shape": shape.name, "on_their_way": shape.on_their_way}
    return {**of, **run, "vote_ms": votes}


def measured(
    probe: Part, payers: Sequence[Part], witnesses: Sequence[Part], seconds: float
) -> dict[str, Any]:
    """One run of all of them, which are ready or soon will be."""
    parts = (probe, *payers, *witnesses)
    for part in (probe, *payers):
        part.says()
    for payer in payers:
        payer.tell()
    for payer in payers:
        payer.says()
    probe.tell()
    before, began = {part: part.processor_seconds() for part in parts}, time.perf_counter()
    results = [payer.says() for payer in payers]
    passed = time.perf_counter() - began
    spent = {part: part.processor_seconds() - before[part] for part in parts}
    certified = sum(result["certified"] for result in results)
    if not certified:
        raise SystemExit("No entry was certified in so short a time; give it more --seconds.")
    rate = sum(result["certified"] / result["seconds"] for result in results)
    at_witness = sum(spent[one] for one in witnesses) / certified / len(witnesses)
    at_payer = sum(spent[one] for one in payers) / certified
    return {
        "payers": len(payers),
        "seconds": seconds,
        "in_all": sum(result["in_all"] for result in results),
        "certified": certified,
        "certified_per_second": round(rate, 1),
        "certified_per_second_and_core": round(rate / CORES, 1),
        "processor_share": round(sum(spent.values()) / passed / CORES, 3),
        "processor_ms_per_entry": {
            "each_witness": round(1000 * at_witness, 3),
            "payer": round(1000 * at_payer, 3),
        },
        "vote_ms": {"loaded": probe.says()["vote_ms"], "payers": results[0]["vote_ms"]},
    }


def stored(certified: int, witnesses: Sequence[Part], shape: Shape) -> None:
    """Each witness has what the payers say, and at most what was on its way at the end."""
    for witness in witnesses:
        witness.tell()
        said = witness.says()
        if not certified <= said["entries"] <= certified + shape.on_their_way or said["refused"]:
            raise SystemExit(f"{certified} entries were certified; a witness says {said}.")
        witness.end()


def bound_figures(figures: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """What the goals are measured by. A disk's group is of 100 changes; the stricter reading takes
    them as entries, although each witness writes a vote and a certificate for each.

    `ratio` is of the rate as it was; `ratio_of_share` of the rate for each processor second that
    this benchmark got, since on a machine with other work it did not get them all.
    """
    count = run["witnesses"]
    each = 1 + charter_of([], count).quorum
    disk = figures["disk"]["database_changes_per_second"]
    together = figures["raw_per_second"] * CORES / (each * count)
    bound = min(disk, together)
    ratio = run["certified_per_second"] / bound
    return {
        "by_disk": disk,
        "by_signatures": round(together, 1),
        "bound": round(bound, 1),
        "ratio": round(ratio, 3),
        "ratio_of_share": round(ratio / run["processor_share"], 3),
        "goal": CERTIFIED_GOAL,
    }


def alone_bound(figures: dict[str, Any]) -> dict[str, Any]:
    """The same for one witness without a network, of four."""
    alone = figures["alone"]
    disk = figures["disk"]["database_changes_per_second"]
    bound = min(disk, figures["raw_per_second"] / (1 + charter_of([]).quorum))
    return {
        "bound": round(bound, 1),
        "ratio": round(alone["certified_per_second"] / bound, 3),
        "ratio_of_processor": round(1000 / alone["processor_ms_per_entry"] / bound, 3),
    }


def run_lines(run: dict[str, Any]) -> list[str]:
    """For people: one run with a network."""
    spent, bound = run["processor_ms_per_entry"], run["bound"]
    return [
        f"{run['witnesses']} witnesses, {run['payers']} payers as {run['shape']}, "
        f"{run['on_their_way']} entries on their way: {run['certified_per_second']} certified "
        f"entries/s, {run['certified_per_second_and_core']} for each core, with "
        f"{run['processor_share']} of the machine's processor time; for an entry "
        f"{spent['each_witness']} ms at each witness, {spent['payer']} ms at its payer",
        f"  bound {bound['bound']}/s (disk {bound['by_disk']}, signatures "
        f"{bound['by_signatures']}): ratio {bound['ratio']}, of the processor time had "
        f"{bound['ratio_of_share']} (goal: {bound['goal']})",
        *(
            f"  a vote, {name}: p50 {one['p50']} ms, p99 {one['p99']} ms ({one['count']})"
            for name, one in run["vote_ms"].items()
        ),
    ]


def lines_of(figures: dict[str, Any]) -> list[str]:
    """For people."""
    disk, alone, of_alone = figures["disk"], figures["alone"], figures["alone"]["bound"]
    return [
        json.dumps(figures["machine"]),
        f"raw: {figures['raw_per_second']} verifications/s on one core; the database "
        f"{disk['database_groups_per_second']} groups of {disk['group']} changes/s, a plain file "
        f"{disk['file_groups_per_second']}",
        *(line for run in figures["certified"] for line in run_lines(run)),
        f"one witness of four without a network: {alone['certified_per_second']} certified "
        f"entries/s, {alone['processor_ms_per_entry']} ms of processor for an entry; bound "
        f"{of_alone['bound']}/s: ratio {of_alone['ratio']}, of its processor time "
        f"{of_alone['ratio_of_processor']}",
        *verify_lines(figures["verification"]),
        *cores_lines(figures["verification"]["cores"]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--seconds", type=float, help="of paying and of each probe")
    parser.add_argument("--entries", type=int, help="of the exports")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; else a temporary one")
    parser.add_argument("--witnesses", type=int, nargs="+", default=WITNESS_COUNTS, metavar="N")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    chosen = parser.parse_args()
    scale = QUICK if chosen.quick else 1
    seconds = chosen.seconds or SECONDS / scale
    entries = chosen.entries or ENTRIES // scale
    figures: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="ayni-bench-", dir=chosen.folder) as folder:
        figures["raw_per_second"] = round(raw_rate())
        figures["disk"] = disk_figures(Path(folder), seconds / 5)
        figures["alone"] = alone_figures(Path(folder), max(500, entries // 2))
        runs = [
            certified_figures(Path(folder), seconds, count, shape)
            for count in chosen.witnesses
            for shape in SHAPES
        ]
    figures["certified"] = [{**run, "bound": bound_figures(figures, run)} for run in runs]
    figures["alone"]["bound"] = alone_bound(figures)
    figures["verification"] = verify_figures(entries, 1 if chosen.quick else ROUNDS)
    figures["verification"]["cores"] = cores_figures(max(CORES_ENTRIES_MIN, entries), CORES)
    print(json.dumps(figures) if chosen.json else "\n".join(lines_of(figures)))


if __name__ == "__main__":
    main()
