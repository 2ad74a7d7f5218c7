"""The simulator finds each mistake, and a shorter schedule that shows it."""

from dataclasses import replace

import pytest

from node.simulator.plan import Options
from node.simulator.shrink import shrink, shrunk
from node.simulator.simulate import Report, simulate
from tests.simulation.mistakes import MISTAKES

SEEDS_MAX = 6
SLOW = {"M2: a claim twice", "M2: a claim without proof", "M4: votes lost in a crash"}
"""Those that show late in a world."""


def options_for(mistake: str, seed: int) -> Options:
    faults = {"latency", "peers"} | ({"crashes"} if "crash" in mistake else set())
    return Options(
        nodes=6,
        witnesses=4,
        hours=0.12,
        seed=seed,
        faults=frozenset(faults),
        deeds_per_hour=120,
        faults_per_hour=80,
    )


def found(mistake: str) -> Report:
    for seed in range(1, SEEDS_MAX + 1):
        report = simulate(options_for(mistake, seed), MISTAKES[mistake])
        if not report.is_good:
            return report
    raise AssertionError(f"{mistake} was not found")


@pytest.mark.parametrize(
    "mistake",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MISTAKES],
)
def test_each_mistake_is_found(mistake: str) -> None:
    assert found(mistake).broken


def test_a_failing_schedule_is_cut_down() -> None:
    mistake = "M6: a chunk charged twice"
    report = found(mistake)
    assert len(report.happened) > 1
    shorter = shrink(report, MISTAKES[mistake])
    assert not shorter.is_good
    assert shorter.options.only is not None
    assert len(shorter.options.only) == 1
    again = simulate(shorter.options, MISTAKES[mistake])
    assert (again.digest, again.broken) == (shorter.digest, shorter.broken)
    assert f"--only {min(shorter.options.only)}" in shorter.options.command()


def test_the_same_world_without_the_mistake_holds() -> None:
    options = options_for("M6: a chunk charged twice", 1)
    report = simulate(replace(options, hours=0.05))
    assert report.is_good, report.broken


@pytest.mark.parametrize("needed", [{3}, {0, 9}, {2, 5, 7}, set()])
def test_shrinking_keeps_just_what_fails(needed: set[int]) -> None:
    kept = shrunk(list(range(10)), lambda events: needed <= set(events), tries_max=200)
    assert set(kept) == needed


def test_shrinking_ends_after_so_many_tries() -> None:
    tries = 0

    def fails(events) -> bool:
        nonlocal tries
        tries += 1
        return len(events) > 900

    shrunk(list(range(1000)), fails, tries_max=20)
    assert tries <= 20
