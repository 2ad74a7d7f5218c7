"""How long drawing a token takes, as ratios to torch.multinomial in the same run.

python -m scripts.bench_sampling [--json] [--vocabulary 49152] [--rounds 50]

The logits are made to look like a language model's: normal, with a few tokens far above the rest;
"flat" has none of those, which is what costs others a sort of everything. Each figure is the
median of rounds that are interleaved, on one thread.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from node.worker.engine import sampler
from node.worker.engine.kernels.library import load
from node.worker.engine.kernels.sampling import NativeSampler
from node.worker.engine.model import Draw
from protocol.job.sampling import Sampling
from protocol.units import MILLION

KINDS: Final = {
    "greedy": Sampling(),
    "temperature 1": Sampling(MILLION),
    "top-p 0.9": Sampling(MILLION, 900_000),
    "top-k 40": Sampling(MILLION, top_k=40),
    "min-p 0.05": Sampling(MILLION, min_p_millionths=50_000),
    "penalties": Sampling(MILLION, 900_000, repetition_penalty_millionths=1_100_000),
    "20 logprobs": Sampling(MILLION, 900_000, logprobs=21),
}
PROMPT: Final = range(500)
ANSWER: Final = range(100, 300)


def logits(vocabulary: int, *, flat: bool) -> Tensor:
    chance = torch.Generator().manual_seed(5)
    values = torch.randn(vocabulary, generator=chance) * (1.0 if flat else 2.5)
    if not flat:
        values[torch.randint(vocabulary, (20,), generator=chance)] += 8.0
    return values


def multinomial(values: Tensor) -> None:
    torch.multinomial(torch.softmax(values, 0), 1)


def sorted_nucleus(values: Tensor) -> None:
    """Top-p 0.9 as it is usually written."""
    p, ids = torch.softmax(values, 0).sort(descending=True)
    p[p.cumsum(0) - p >= 0.9] = 0.0
    ids[torch.multinomial(p, 1)]


def works(values: Tensor) -> dict[str, Callable[[int], object]]:
    """What is timed, by name; each takes the number of its round."""

    def drawn(by: Callable[[Tensor, Draw], object], kind: Sampling) -> Callable[[int], object]:
        return lambda t: by(values, Draw(kind, bytes(32), t, PROMPT, ANSWER))

    made: dict[str, Callable[[int], object]] = {
        "torch.multinomial": lambda t: multinomial(values),
        "torch, sorted top-p": lambda t: sorted_nucleus(values),
        "torch.argmax": lambda t: values.argmax(),
    }
    kernels = load()
    for name, kind in KINDS.items():
        if kernels is not None:
            native = NativeSampler(kernels.library, kernels.paths()[0][0])
            made[f"native {name}"] = drawn(native.drawn, kind)
        made[f"ours in torch, {name}"] = drawn(sampler.drawn, kind)
    return made


def medians_ms(todo: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in todo}
    for number in range(rounds):
        for name, work in todo.items():
            began = time.perf_counter()
            work(number)
            taken[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if load() is None:
        print("No kernel library is built here: the torch sampler alone is timed.", file=sys.stderr)
    figures: dict[str, float] = {}
    for shape in ("usual", "flat"):
        values = logits(options.vocabulary, flat=shape == "flat")
        for name, ms in medians_ms(works(values), options.rounds).items():
            figures[f"{shape}: {name}"] = ms
    against = {name: ms / figures["usual: torch.multinomial"] for name, ms in figures.items()}
    if options.json:
        print(json.dumps({"ms": figures, "vs_multinomial": against}))
        return
    for name, ms in figures.items():
        print(f"{name:40} {ms:8.3f} ms {against[name]:8.2f} of multinomial")


if __name__ == "__main__":
    main()
