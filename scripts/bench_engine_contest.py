"""Every engine on the same work, in rounds: each round begins with another of them."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import bench_engine_llamacpp as llamacpp
from bench_engine_figures import (
    BANDWIDTH,
    CAPPED,
    LLAMA_CAPPED,
    LLAMA_Q4,
    LLAMA_Q8,
    NATIVE,
    OURS_Q8,
    TORCH,
    TRANSFORMERS,
    Rates,
    Round,
)
from bench_engine_llamacpp import Work
from bench_engine_places import Places
from bench_engine_process import Program, energy_joules, output_of, say

SCRIPTS: Final = Path(__file__).resolve().parent
BANDWIDTH_MEBIBYTES: Final = 1024
BANDWIDTH_PASSES: Final = 5
SLOTS_MAX: Final = 33


@dataclass(frozen=True, slots=True)
class Setting:
    """How everything is run."""

    places: Places
    threads: int
    favoured: bool


@dataclass(frozen=True, slots=True)
class Contestant:
    """One engine, ready: `measure` is one pass of the work that it is given."""

    name: str
    measure: Callable[[Work], Rates]
    work: Work


class Contest:
    """The engines of one model, and what they did."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._programs: list[Program] = []
        self.contestants: list[Contestant] = []
        self.rounds: list[Round] = []
        self.engine = ""  # What ours calls itself.
        self._weight_bytes = 0  # What must be read for each token at batch 1.
        self.joules: dict[str, list[float]] = {}
        """Of each round; those with the same work can be compared."""

    def add_ours(self, name: str, weights: Path, engine: str, work: Work) -> None:
        script, threads = SCRIPTS / "bench_engine_ours.py", str(self._setting.threads)
        slots = str(min(SLOTS_MAX, max(work.batches) + 1))
        program = self._start([sys.executable, script, weights, engine, threads, slots])
        if not self.engine:
            self.engine, self._weight_bytes = program.ready["engine"], program.ready["weight_bytes"]
        self._add(name, lambda work: program.ask(asdict(work)), work)

    def add_llamacpp(self, name: str, weights: Path, work: Work, *, capped: bool = False) -> None:
        tool = self._setting.places.tool("llama-batched-bench", capped)
        threads, favoured = self._setting.threads, self._setting.favoured

        def measure(work: Work) -> Rates:
            return llamacpp.run(tool, weights, threads, work, favoured=favoured)

        self._add(name, measure, work)

    def add_transformers(self, name: str, kind: str, work: Work) -> None:
        places, threads = self._setting.places, str(self._setting.threads)
        script = SCRIPTS / "bench_engine_transformers.py"
        program = self._start([places.python, script, places.unpacked, kind, threads])

        def measure(work: Work) -> Rates:
            rates: dict[str, float] = {}
            for batch in work.batches:
                told = {"prompt": work.prompt_tokens, "tokens": work.decode_tokens, "batch": batch}
                rates[f"decode {batch}"] = program.ask(told)["decode"]
            for tokens in work.prefills:
                told = {"prompt": tokens, "tokens": 0, "batch": 1}
                rates[f"prefill {tokens}"] = program.ask(told)["prefill"]
            return rates

        self._add(name, measure, work)

    def add_bandwidth(self, work: Work) -> None:
        """What the memory allows at batch 1: measured bytes a second by the bytes of the weights
        that the first of ours reads."""
        threads, favoured = str(self._setting.threads), self._setting.favoured
        told = (threads, str(BANDWIDTH_MEBIBYTES), str(BANDWIDTH_PASSES))
        size = self._weight_bytes

        def measure(_: Work) -> Rates:
            passes = output_of((self._setting.places.bandwidth, *told), favoured=favoured).split()
            return {"decode 1": sorted(map(float, passes))[len(passes) // 2] / size}

        self._add(BANDWIDTH, measure, work)

    @property
    def figures(self) -> dict[str, Any]:
        """Every round as it was."""
        return {"engine": self.engine, "rounds": self.rounds, "joules": self.joules}

    def run(self, rounds: int) -> None:
        """One round after another; the order is turned by one place in each, so that none is always
        measured on a machine that the same other one has just warmed."""
        for number in range(rounds):
            turn = number % len(self.contestants)
            order = self.contestants[turn:] + self.contestants[:turn]
            done: dict[str, Rates] = {}
            for contestant in order:
                say(f"  round {number + 1} of {rounds}: {contestant.name}")
                before = energy_joules()
                done[contestant.name] = contestant.measure(contestant.work)
                after = energy_joules()
                # The counter starts again now and then; that round is left out.
                if before is not None and after is not None and after > before:
                    self.joules.setdefault(contestant.name, []).append(after - before)
            # In the order of the tables, whoever was first.
            self.rounds.append({one.name: done[one.name] for one in self.contestants})

    def end(self) -> None:
        for program in self._programs:
            program.end()

    def _start(self, command: Sequence[str | Path]) -> Program:
        program = Program(command, favoured=self._setting.favoured)
        self._programs.append(program)
        return program

    def _add(self, name: str, measure: Callable[[Work], Rates], work: Work) -> None:
        self.contestants.append(Contestant(name, measure, work))


@contextmanager
def open_contest(setting: Setting) -> Iterator[Contest]:
    """Whatever happens, no program is left."""
    contest = Contest(setting)
    try:
        yield contest
    finally:
        contest.end()


def small_contest(contest: Contest, setting: Setting, model: Path, work: Work, slow: Work) -> None:
    """SmolLM2: everybody. `slow` is what those do that need many times as long."""
    places = setting.places
    contest.add_ours(NATIVE, model, "native", work)
    contest.add_ours(CAPPED, model, "avx2", work)
    contest.add_ours(OURS_Q8, places.model("Q8_0"), "native", work)
    contest.add_ours(TORCH, model, "torch", slow)
    contest.add_llamacpp(LLAMA_Q4[0], model, work)
    contest.add_llamacpp(LLAMA_Q4[1], places.model("Q4_0"), work)
    contest.add_llamacpp(LLAMA_Q8, places.model("Q8_0"), work)
    contest.add_llamacpp(LLAMA_CAPPED[0], places.model("Q4_0"), work, capped=True)
    for name, kind in zip(TRANSFORMERS, ("float32", "bfloat16"), strict=True):
        contest.add_transformers(name, kind, slow)
    contest.add_bandwidth(work)


def large_contest(contest: Contest, setting: Setting, work: Work, *, capped: bool) -> None:
    """A model of 1B: both engines on one and the same file, which is llama.cpp's best format."""
    weights = setting.places.model_1b
    contest.add_ours(NATIVE, weights, "native", work)
    contest.add_llamacpp(LLAMA_Q4[1], weights, work)
    if capped:
        contest.add_ours(CAPPED, weights, "avx2", work)
        contest.add_llamacpp(LLAMA_CAPPED[0], weights, work, capped=True)
    contest.add_bandwidth(work)
