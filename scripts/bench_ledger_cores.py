"""An export verified by all processors, against raw verification on all of them at once.

Wall time, since that is what a person waits for; so other work on the machine counts against it,
and the share of the processors that it got is told beside it.
"""

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from bench_ledger_verify import RAW_SECONDS, export_accounts, export_of, in_pieces, raw_rate
from bench_ledger_world import genesis_of

from node.cli.ledger_cores import audit_with
from protocol.ledger.audit import Depth

CORES_ENTRIES_MIN = 20_000  # Processes take a second to start, so that few would tell nothing.
FULL_GOAL, HEADS_GOAL = 0.72, 0.63  # Nine tenths of those for one core.


def _raw_together(cores: int) -> float:
    """Verifications a second of all cores at once, each measured by its own processor's time."""
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as workers:
        return sum(workers.map(raw_rate, [2 * RAW_SECONDS] * cores))


def _spent() -> float:
    own, others = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return sum(one.ru_utime + one.ru_stime for one in (own, others))


def cores_figures(entries: int, cores: int) -> dict[str, Any]:
    """Each depth over a file of pays that are claimed, with so many processes."""
    rules, data, _ = export_of(entries, with_claims=True)
    genesis = genesis_of(export_accounts())
    raw = _raw_together(cores)
    runs = []
    for depth in Depth:
        began, spent = time.perf_counter(), _spent()
        report = audit_with(genesis, in_pieces(data), depth, cores)
        seconds, spent = time.perf_counter() - began, _spent() - spent
        assert report.ok, report.faults
        count = entries * (1 + rules.quorum) if depth is Depth.FULL else report.signatures
        runs.append(
            {
                "depth": depth.value,
                "seconds": round(seconds, 2),
                "entries_per_second": round(entries / seconds),
                "processor_share": round(spent / seconds / cores, 3),
                "ratio": round(count / seconds / raw, 3),
                "ratio_of_processor": round(count / spent * cores / raw, 3),
            }
        )
    return {"cores": cores, "entries": entries, "raw_per_second": round(raw), "runs": runs}


def cores_lines(figures: dict[str, Any]) -> list[str]:
    """For people."""
    goals = {Depth.FULL.value: FULL_GOAL, Depth.HEADS.value: HEADS_GOAL}
    return [
        f"{figures['entries']} entries by {figures['cores']} cores, {one['depth']}: "
        f"{one['entries_per_second']} entries/s with {one['processor_share']} of the processors: "
        f"{one['ratio']} of raw on all of them ({figures['raw_per_second']}/s), "
        f"{one['ratio_of_processor']} of the processor time had (goal: {goals[one['depth']]})"
        for one in figures["runs"]
    ]
