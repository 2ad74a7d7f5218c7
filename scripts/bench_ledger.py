"""The ledger's speed against what it is made of: raw verification and raw waits for the disk.

    .venv/bin/python scripts/bench_ledger.py [--quick] [--json]

Four witnesses are real processes on this machine, on loopback; each runs what a witness needs:
identity, network, database, ledger. Payers, in processes of their own, keep many accounts' entries
on their way at once. Every figure stands beside a baseline measured in the same run.
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
from typing import Any

import psutil
from bench_ledger_alone import alone_figures
from bench_ledger_disk import disk_figures
from bench_ledger_verify import ROUNDS, raw_rate, verify_figures, verify_lines
from bench_ledger_world import STREAMS, WITNESSES, charter_of
from bench_net import machine

SCRIPT = Path(__file__).with_name("bench_ledger_node.py")
PAYERS, HOSTS = 2, 8  # Processes, and the nodes in each.
ON_THEIR_WAY = PAYERS * HOSTS * STREAMS
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


def certified_figures(folder: Path, seconds: float) -> dict[str, Any]:
    """Entries certified and stored by all four witnesses, and how long a vote takes."""
    paying = (
        int((seconds + WARM_SECONDS) * PER_SECOND_MAX) // ENTRIES_PER_ACCOUNT + 4 * ON_THEIR_WAY
    )
    probing = int(seconds * PROBE_PER_SECOND_MAX) + 100
    accounts = paying + 2 * probing
    with parts_ended() as parts:

        def start(name: str, **task: Any) -> Part:
            parts.append(Part(name, {"accounts": accounts, "seconds": seconds, **task}))
            return parts[-1]

        witnesses = []
        for number in range(WITNESSES):
            home = folder / f"witness-{number}"
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
                hosts=HOSTS,
                first=number * share,
                last=(number + 1) * share,
                warm_seconds=WARM_SECONDS,
                **asked,
            )
            for number in range(PAYERS)
        ]
        run = measured(probe, payers, witnesses, seconds)
        stored(run.pop("in_all"), witnesses)
    return {**run, "vote_ms": {"unloaded": unloaded, **run["vote_ms"]}}


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
        "on_their_way": ON_THEIR_WAY,
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


def stored(certified: int, witnesses: Sequence[Part]) -> None:
    """Each witness has what the payers say, and at most what was on its way at the end."""
    for witness in witnesses:
        witness.tell()
        said = witness.says()
        if not certified <= said["entries"] <= certified + ON_THEIR_WAY or said["refused"]:
            raise SystemExit(f"{certified} entries were certified; a witness says {said}.")
        witness.end()


def bound_figures(figures: dict[str, Any]) -> dict[str, Any]:
    """What the goals are measured by. A disk's group is of 100 changes; the stricter reading takes
    them as entries, although each witness writes a vote and a certificate for each.

    `ratio` is of the rate as it was; `ratio_of_share` of the rate for each processor second that
    this benchmark got, since on a machine with other work it did not get them all.
    """
    each = 1 + charter_of([]).quorum
    disk, run = figures["disk"]["database_changes_per_second"], figures["certified"]
    together = figures["raw_per_second"] * CORES / (each * WITNESSES)
    one = figures["raw_per_second"] / each
    bound = min(disk, together)
    ratio = run["certified_per_second"] / bound
    return {
        "by_disk": disk,
        "by_signatures": round(together, 1),
        "bound": round(bound, 1),
        "ratio": round(ratio, 3),
        "ratio_of_share": round(ratio / run["processor_share"], 3),
        "goal": CERTIFIED_GOAL,
        "alone_bound": round(min(disk, one), 1),
        "alone_ratio": round(figures["alone"]["certified_per_second"] / min(disk, one), 3),
        "alone_ratio_of_processor": round(
            1000 / figures["alone"]["processor_ms_per_entry"] / min(disk, one), 3
        ),
    }


def lines_of(figures: dict[str, Any]) -> list[str]:
    """For people."""
    disk, run, bound = figures["disk"], figures["certified"], figures["bound"]
    spent, votes = run["processor_ms_per_entry"], run["vote_ms"]
    alone = figures["alone"]
    return [
        json.dumps(figures["machine"]),
        f"raw: {figures['raw_per_second']} verifications/s on one core; the database "
        f"{disk['database_groups_per_second']} groups of {disk['group']} changes/s, a plain file "
        f"{disk['file_groups_per_second']}",
        f"{WITNESSES} witnesses, {run['payers']} payers, {run['on_their_way']} entries on their "
        f"way: {run['certified_per_second']} certified entries/s, "
        f"{run['certified_per_second_and_core']} for each core, with "
        f"{run['processor_share']} of the machine's processor time; for an entry "
        f"{spent['each_witness']} ms at each witness, {spent['payer']} ms at its payer",
        f"bound {bound['bound']}/s (disk {bound['by_disk']}, signatures "
        f"{bound['by_signatures']}): ratio {bound['ratio']}, of the processor time had "
        f"{bound['ratio_of_share']} (goal: {bound['goal']})",
        f"one witness without a network: {alone['certified_per_second']} certified entries/s, "
        f"{alone['processor_ms_per_entry']} ms of processor for an entry; bound "
        f"{bound['alone_bound']}/s: ratio {bound['alone_ratio']}, of its processor time "
        f"{bound['alone_ratio_of_processor']}",
        *(
            f"a vote, {name}: p50 {one['p50']} ms, p99 {one['p99']} ms ({one['count']})"
            for name, one in votes.items()
        ),
        *verify_lines(figures["verification"]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--seconds", type=float, help="of paying and of each probe")
    parser.add_argument("--entries", type=int, help="of the exports")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; else a temporary one")
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
        figures["certified"] = certified_figures(Path(folder), seconds)
    figures["bound"] = bound_figures(figures)
    figures["verification"] = verify_figures(entries, 1 if chosen.quick else ROUNDS)
    print(json.dumps(figures) if chosen.json else "\n".join(lines_of(figures)))


if __name__ == "__main__":
    main()
