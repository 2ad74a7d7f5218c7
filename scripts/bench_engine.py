"""The engine's speed against llama.cpp, transformers and the memory of the machine, in one run.

    scripts/bench_engine_setup                          (once: installs what it is compared with)
    .venv/bin/python scripts/bench_engine.py [--quick] [--json] [--docs docs]

The engines take turns on the same weights, round after round, each alone and in a session of its
own; the median of the rounds counts on every side, and every figure stands beside the others of
the same run. With --json the last line is one object with all figures; they are also kept in the
folder of the peers, in figures.json.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import trio
from bench_engine_contest import Setting, large_contest, open_contest, small_contest
from bench_engine_extras import embedding, guessing
from bench_engine_figures import LLAMA_Q4, medians
from bench_engine_llamacpp import Work
from bench_engine_load import arrivals_per_second
from bench_engine_mixed import mixed_load, start_up
from bench_engine_places import find_model, find_places
from bench_engine_process import enter_own_session, say
from bench_engine_report import flat, goal_lines, text_lines, write_docs
from bench_net import machine

PROMPT_TOKENS: Final = 64
DECODE_TOKENS: Final = 48
LOADS: Final = {"llama.cpp busy for 70 % of its time": 1.0, "more than llama.cpp can do": 2.0}
PARTS: Final = ("large", "load", "start", "guessing", "vectors")


def run_trio(measure: Callable[..., Awaitable[Any]], *told: Any) -> Any:
    """As trio.run; the words of a part that gives up are shown, not the tree it fell out of."""
    try:
        return trio.run(measure, *told)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


class Benchmark:
    """All parts of one run. Each adds its figures, and how busy the machine was around it."""

    def __init__(self, setting: Setting, model: Path, quick: bool, rounds: int) -> None:
        self._setting = setting
        self._model = model
        self._quick = quick
        self._rounds = rounds
        self.figures: dict[str, Any] = {
            "machine": machine(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "favoured": setting.favoured,
        }

    def _measured(self, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        before = [round(load, 1) for load in os.getloadavg()]
        found = measure()
        return {
            **found,
            "load_before": before,
            "load_after": [round(load, 1) for load in os.getloadavg()],
            "threads": self._setting.threads,
        }

    def small(self) -> None:
        batches = (1, 8, 32) if self._quick else (1, 2, 4, 8, 16, 32)
        slow_batches = (1, 8) if self._quick else (1, 2, 4, 8, 16, 32)
        prefills = (512,) if self._quick else (128, 512)
        work = Work(batches, PROMPT_TOKENS, DECODE_TOKENS, prefills)
        slow = Work(slow_batches, PROMPT_TOKENS, DECODE_TOKENS, prefills)

        def measure() -> dict[str, Any]:
            with open_contest(self._setting) as contest:
                small_contest(contest, self._setting, self._model, work, slow)
                contest.run(self._rounds)
                return {**contest.figures, "columns": work.columns}

        say("SmolLM2-135M")
        self.figures["small"] = self._measured(measure)

    def large(self) -> None:
        batches = (1, 8) if self._quick else (1, 2, 4, 8, 16, 32)
        work = Work(batches, PROMPT_TOKENS, DECODE_TOKENS, (512,) if self._quick else (128, 512))

        def measure() -> dict[str, Any]:
            with open_contest(self._setting) as contest:
                large_contest(contest, self._setting, work, capped=not self._quick)
                contest.run(max(2, self._rounds - 1))
                return {**contest.figures, "columns": work.columns}

        say("a Llama of 1B")
        self.figures["large"] = self._measured(measure)

    def load(self) -> None:
        rates = medians(self.figures["small"]["rounds"])[LLAMA_Q4[1]]
        capacity = arrivals_per_second(rates["prefill 512"], rates["decode 8"])
        count = 24 if self._quick else 80
        self.figures["loads"] = {}
        for name, factor in list(LOADS.items())[: 1 if self._quick else None]:
            say(f"mixed load: {name}")
            per_second = capacity * factor

            def measure(per_second: float = per_second) -> dict[str, Any]:
                told = (self._setting, self._model, count, per_second)
                servers = run_trio(mixed_load, *told)
                return {"requests": count, "per_second": per_second, "servers": servers}

            self.figures["loads"][name] = self._measured(measure)

    def start(self) -> None:
        say("starting up")
        with tempfile.TemporaryDirectory(prefix="ayni-bench-") as folder:
            told = (self._setting, self._model, Path(folder))
            self.figures["start_up"] = run_trio(start_up, *told)

    def guessing(self) -> None:
        rounds = 1 if self._quick else self._rounds
        self.figures["guessing"] = self._measured(
            lambda: {"gains": guessing(self._setting, self._model, rounds)}
        )

    def vectors(self) -> None:
        rounds = 1 if self._quick else self._rounds
        self.figures["embedding"] = self._measured(lambda: embedding(self._setting, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="at most eight minutes")
    parser.add_argument("--rounds", type=int, help="of each engine; the median counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each engine")
    parser.add_argument("--only", nargs="*", choices=PARTS, help="these parts beside SmolLM2's")
    parser.add_argument(
        "--no-favour",
        action="store_true",
        help="do not ask the system to serve what is measured before other people's sessions",
    )
    parser.add_argument("--docs", type=Path, help="write tables and plots into this folder")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    chosen = parser.parse_args()
    places = find_places()
    if not places.encoder.exists():  # It is what is made last.
        raise SystemExit("The peers are not installed: run scripts/bench_engine_setup once.")
    setting = Setting(places, chosen.threads, favoured=not chosen.no_favour)
    enter_own_session(favoured=setting.favoured)
    rounds = chosen.rounds or (3 if chosen.quick else 5)
    benchmark = Benchmark(setting, find_model().weights, chosen.quick, rounds)
    figures = benchmark.figures
    for part in ("small", *(PARTS if chosen.only is None else chosen.only)):
        getattr(benchmark, part)()
        # What was measured is kept, whatever becomes of the parts that follow.
        places.figures.write_text(json.dumps({**figures, **flat(figures)}), encoding="utf-8")
    for line in (*text_lines(figures), "", *goal_lines(figures)):
        print(line)
    if chosen.docs:
        write_docs(figures, chosen.docs)
    sys.stdout.flush()
    if chosen.json:
        print(json.dumps({**figures, **flat(figures)}))


if __name__ == "__main__":
    main()
