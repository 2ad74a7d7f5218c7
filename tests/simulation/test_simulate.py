"""Whole networks in virtual time, with every fault there is: nothing that must hold breaks."""

import os
from datetime import date

import pytest

from node.simulator.plan import FAULTS, Options
from node.simulator.simulate import Report, simulate

SEEDS = (8, pytest.param(1, marks=pytest.mark.slow))  # 8 has kept a task busy for ever, once.
NEW_SEED = int(os.environ.get("AYNI_SIMULATION_SEED", date.today().toordinal()))
SOAK_MINUTES = float(os.environ.get("AYNI_SOAK_MINUTES", "4"))


def small(seed: int, *, nodes: int = 7, witnesses: int = 4, hours: float = 0.25) -> Options:
    return Options(
        nodes=nodes,
        witnesses=witnesses,
        hours=hours,
        seed=seed,
        deeds_per_hour=16,
        faults_per_hour=50,
    )


def good(options: Options) -> Report:
    report = simulate(options)
    assert report.is_good, [options.command(), *report.broken, *report.lines[-20:]]
    return report


@pytest.mark.parametrize("seed", SEEDS)
def test_a_small_network_with_every_fault(seed: int) -> None:
    report = good(small(seed))
    assert report.entries > 20
    assert report.settled > 3
    assert report.counts["event crash"] > 2


def test_a_network_that_nobody_has_seen() -> None:
    print(f"again: AYNI_SIMULATION_SEED={NEW_SEED}")
    good(small(NEW_SEED, hours=0.1))


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "witnesses"), [(8, 4), (12, 7), (15, 10)])
@pytest.mark.parametrize("seed", [NEW_SEED, NEW_SEED + 1000, 3])
def test_dishonest_witnesses_and_peers(nodes: int, witnesses: int, seed: int) -> None:
    report = good(small(seed, nodes=nodes, witnesses=witnesses, hours=0.5))
    assert report.settled > 3


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_alone(fault: str) -> None:
    options = small(5, hours=0.4)
    good(Options(**{**_fields(options), "faults": frozenset({fault})}))


@pytest.mark.slow
def test_a_soak_ends_without_drift() -> None:
    """Jobs, kills and partitions for minutes of this machine's time, one world after another; each
    ends with an audit, at rest, whose sums are the supply to the micro-credit."""
    from time import monotonic

    until, seed, entries = monotonic() + 60 * SOAK_MINUTES, NEW_SEED, 0
    while monotonic() < until:
        seed += 7
        report = good(small(seed, nodes=10, hours=1.0))
        entries += report.entries
        assert report.drift == 0
    print(f"{entries} entries, no drift; the last seed was {seed}")


def _fields(options: Options) -> dict:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}
