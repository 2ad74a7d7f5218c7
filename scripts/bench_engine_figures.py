"""The arithmetic of the engine's benchmark: medians of rounds, ratios, goals, tables. No I/O."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Rates = Mapping[str, float]
"""Tokens a second by what was done: "decode 8" is eight sequences at once, "prefill 512" one
prompt of so many tokens."""
Round = Mapping[str, Rates]
"""What each engine did in one round, by its name."""

NATIVE: Final = "ours"
CAPPED: Final = "ours, AVX2"
TORCH: Final = "ours, torch bf16"
OURS_Q8: Final = "ours, Q8_0"
LLAMA_Q4: Final = ("llama.cpp Q4_1", "llama.cpp Q4_0")
LLAMA_Q8: Final = "llama.cpp Q8_0"
LLAMA_CAPPED: Final = ("llama.cpp AVX2 Q4_0",)
TRANSFORMERS: Final = ("transformers fp32", "transformers bf16")
BANDWIDTH: Final = "limit of the memory"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of the last line of `--json`: ours over the best of the others."""

    name: str
    done: str  # "decode 1"
    ours: str
    others: Sequence[str]
    goal: float | None  # None: told, and not promised.


COMPARISONS: Final = (
    Comparison("decode_b1_vs_llamacpp", "decode 1", NATIVE, LLAMA_Q4, 1.5),
    Comparison("decode_b8_vs_llamacpp", "decode 8", NATIVE, LLAMA_Q4, 2.0),
    Comparison("decode_b32_vs_llamacpp", "decode 32", NATIVE, LLAMA_Q4, 1.6),
    Comparison("prefill512_vs_llamacpp", "prefill 512", NATIVE, LLAMA_Q4, 1.3),
    Comparison("decode_b1_vs_transformers", "decode 1", NATIVE, TRANSFORMERS, 8.0),
    Comparison("decode_b8_vs_transformers", "decode 8", NATIVE, TRANSFORMERS, 6.0),
    Comparison("decode_b1_vs_bandwidth", "decode 1", NATIVE, (BANDWIDTH,), 0.75),
    Comparison("q8_decode_b1_vs_llamacpp", "decode 1", OURS_Q8, (LLAMA_Q8,), None),
    Comparison("q8_decode_b8_vs_llamacpp", "decode 8", OURS_Q8, (LLAMA_Q8,), None),
    Comparison("q8_decode_b32_vs_llamacpp", "decode 32", OURS_Q8, (LLAMA_Q8,), None),
    Comparison("avx2_decode_b1_vs_llamacpp", "decode 1", CAPPED, LLAMA_CAPPED, None),
    Comparison("avx2_decode_b8_vs_llamacpp", "decode 8", CAPPED, LLAMA_CAPPED, None),
    Comparison("avx2_decode_b32_vs_llamacpp", "decode 32", CAPPED, LLAMA_CAPPED, None),
    Comparison("avx2_prefill512_vs_llamacpp", "prefill 512", CAPPED, LLAMA_CAPPED, None),
)


def medians(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """Of every engine and everything it did: the median of the rounds it did it in."""
    found: dict[str, dict[str, list[float]]] = {}
    for one in rounds:
        for engine, rates in one.items():
            for done, rate in rates.items():
                found.setdefault(engine, {}).setdefault(done, []).append(rate)
    return {
        engine: {done: statistics.median(rates) for done, rates in by_done.items()}
        for engine, by_done in found.items()
    }


def ratio(rates: Mapping[str, Rates], one: Comparison) -> float | None:
    """None when either side was not measured."""
    ours = rates.get(one.ours, {}).get(one.done)
    others = [rates[name][one.done] for name in one.others if one.done in rates.get(name, {})]
    if ours is None or not others or max(others) <= 0:
        return None
    return ours / max(others)


@dataclass(frozen=True, slots=True)
class Found:
    """A comparison, made: the ratio of the medians, and the least and the greatest of a round."""

    comparison: Comparison
    ratio: float
    least: float
    greatest: float

    @property
    def is_met(self) -> bool:
        goal = self.comparison.goal
        return goal is None or self.ratio >= goal


def compare(rounds: Sequence[Round]) -> list[Found]:
    """Every comparison of which both sides were measured."""
    rates = medians(rounds)
    made = []
    for comparison in COMPARISONS:
        whole = ratio(rates, comparison)
        each = [found for one in rounds if (found := ratio(one, comparison)) is not None]
        if whole is not None and each:
            made.append(Found(comparison, whole, min(each), max(each)))
    return made


def percentile(values: Iterable[float], share: float) -> float:
    """The least value that at least `share` of them do not pass (nearest rank); 0 of none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    rank = max(1, -(-len(ordered) * round(share * 1000) // 1000))
    return ordered[min(rank, len(ordered)) - 1]


def number(value: float | None) -> str:
    """Three digits that count, for a table; a dash for what was not measured."""
    if value is None:
        return "-"
    for least, digits in ((100, 0), (10, 1)):
        if abs(value) >= least:
            return f"{value:.{digits}f}"
    return f"{value:.2f}"


def rate_rows(rates: Mapping[str, Rates], columns: Sequence[str]) -> list[list[str]]:
    """A table: a row for each engine, a column for each thing done."""
    head = ["tokens a second", *columns]
    return [
        head,
        *(
            [name, *(number(done.get(column)) for column in columns)]
            for name, done in rates.items()
        ),
    ]


def ratio_rows(found: Sequence[Found]) -> list[list[str]]:
    """A table of what was compared, each beside its goal."""
    rows = [["ratio", "of medians", "of one round, least to greatest", "goal", ""]]
    for one in found:
        goal = one.comparison.goal
        met = "" if goal is None else ("met" if one.is_met else "missed")
        spread = f"{number(one.least)} to {number(one.greatest)}"
        rows.append([one.comparison.name, number(one.ratio), spread, number(goal), met])
    return rows


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines for a terminal: the first column to the left, the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            word.rjust(width) if place else word.ljust(width)
            for place, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The same for docs/engine.md."""
    marks = ["---", *("---:" for _ in rows[0][1:])]
    return ["| " + " | ".join(row) + " |" for row in (rows[0], marks, *rows[1:])]
