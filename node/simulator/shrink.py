"""A short schedule that fails as a long one did, by delta debugging (Zeller, Hildebrandt 2002)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from node.simulator.parts import Build
from node.simulator.simulate import Report, simulate

TRIES_MAX: Final = 60

Fails = Callable[[Sequence[int]], bool]
"""Whether a schedule of these events only still fails."""


def shrunk(events: Sequence[int], fails: Fails, tries_max: int = TRIES_MAX) -> Sequence[int]:
    """As few of these events as were found to fail still, in so many tries. All of them together
    must fail."""
    kept, parts, tries = list(events), 2, 0
    while kept and tries < tries_max:
        size = -(-len(kept) // parts)
        is_shorter = False
        for start in range(0, len(kept), size):
            fewer = kept[:start] + kept[start + size :]
            tries += 1
            if fails(fewer):
                kept, parts, is_shorter = fewer, max(2, parts - 1), True
                break
            if tries >= tries_max:
                break
        if not is_shorter:
            if size <= 1:
                break
            parts = min(len(kept), 2 * parts)
    return kept


def shrink(
    report: Report,
    build: Build | None = None,
    tries_max: int = TRIES_MAX,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """The report of a shorter run that breaks too; of the same one, if none was found. `progress`
    is told how many events each try has."""
    best = report

    def fails(events: Sequence[int]) -> bool:
        nonlocal best
        if progress is not None:
            progress(len(events))
        tried = simulate(replace(report.options, only=frozenset(events)), build)
        if not tried.is_good:
            best = tried
        return not tried.is_good

    # Whatever came after the first thing that did not hold has nothing to do with it.
    happened = report.happened
    if fails(happened):
        shrunk(happened, fails, tries_max)
    return best
