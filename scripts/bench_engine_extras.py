"""What else is measured of the engine: guessing, sentence vectors, energy."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench_engine_contest import Setting
from bench_engine_places import ROOT
from bench_engine_process import Program, say
from bench_engine_prompts import PROMPTS

from node.worker.engine.speculation import GUESSES_MAX

SCRIPTS: Final = Path(__file__).resolve().parent
TEXTS: Final = 256
TEXT_WORDS_MAX: Final = 90  # Nobody cuts any of them: all do the same work.
COSINE_MIN: Final = 0.999
OTHERS: Final = ("sentence-transformers", "fastembed", "onnxruntime")
OURS: Final = ("ours, bf16", "ours, fp32")


def guessing(setting: Setting, model: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Decoding with prompt lookup over decoding without, for each kind of prompt and batch. Ends
    the benchmark if it changes a single token."""
    script, threads = SCRIPTS / "bench_engine_guessing.py", str(setting.threads)
    program = Program([sys.executable, script, model, threads], favoured=setting.favoured)
    rates: dict[tuple[str, int], dict[int, list[float]]] = {}
    digests: dict[tuple[str, int], str] = {}
    for number in range(rounds):
        say(f"  guessing, round {number + 1} of {rounds}")
        for batch in (1, 2):
            for kind in PROMPTS:
                for guesses in (0, GUESSES_MAX):
                    found = program.ask({"kind": kind, "guesses": guesses, "batch": batch})
                    if digests.setdefault((kind, batch), found["digest"]) != found["digest"]:
                        raise SystemExit(f"Guessing changed an answer: {kind}, batch {batch}.")
                    by_guesses = rates.setdefault((kind, batch), {})
                    by_guesses.setdefault(guesses, []).append(found["decode"])
    program.end()
    return {
        kind: {
            f"batch {batch}": median(rates[kind, batch][GUESSES_MAX])
            / median(rates[kind, batch][0])
            for batch in (1, 2)
        }
        for kind in PROMPTS
    }


def sentences(count: int = TEXTS) -> list[str]:
    """Of the project's own papers: some short, some long, in the order they stand in."""
    names = ("LICENSE", "README.md", "ARCHITECTURE.md", "protocol/SPEC.md")
    text = " ".join((ROOT / name).read_text(encoding="utf-8") for name in names)
    found = [" ".join(one.split()) for one in re.split(r"(?<=[.!?:])\s+", text)]
    return [one for one in found if 3 <= len(one.split()) <= TEXT_WORDS_MAX][:count]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def embedding(setting: Setting, rounds: int) -> dict[str, Any]:
    """Sentences a second on MiniLM; all must give the same vectors but for rounding."""
    places, threads, texts = setting.places, str(setting.threads), sentences()
    programs: dict[str, Program] = {}
    for name in OURS:
        script = SCRIPTS / "bench_engine_vectors.py"
        told: list[str | Path] = [places.encoder, name.removeprefix("ours, "), threads]
        programs[name] = Program([sys.executable, script, *told], favoured=setting.favoured)
    for name in OTHERS:
        script = SCRIPTS / "bench_engine_embedders.py"
        told = [places.encoder, name, threads]
        programs[name] = Program([places.python, script, *told], favoured=setting.favoured)
    rates: dict[str, list[float]] = {name: [] for name in programs}
    first: dict[str, list[list[float]]] = {}
    for number in range(rounds):
        say(f"  vectors, round {number + 1} of {rounds}")
        for name, program in programs.items():
            found = program.ask({"texts": texts})
            rates[name].append(len(texts) / found["seconds"])
            first.setdefault(name, found["vectors"])
    for program in programs.values():
        program.end()
    true = first[OTHERS[0]]
    cosines = {
        name: min(_cosine(a, b) for a, b in zip(true, vectors, strict=True))
        for name, vectors in first.items()
    }
    wrong = [name for name, cosine in cosines.items() if cosine < COSINE_MIN]
    return {
        "texts": len(texts),
        "sentences_per_second": {name: round(median(one), 1) for name, one in rates.items()},
        "cosine_min": {name: round(cosine, 5) for name, cosine in cosines.items()},
        "not_the_same_vectors": wrong,
    }
