"""Times a model of ours as the scheduler uses it: the same work as every other engine's."""

import random
import time
from collections.abc import Iterator, Sequence
from typing import Final

from node.worker.engine.blocks import blocks_for
from node.worker.engine.model import STEP_ROWS_MAX, Draw, Drawn, LoadedModel, Piece, Token
from protocol.job.sampling import Sampling

GREEDY: Final = Sampling()
SEED: Final = bytes(32)


def random_ids(model: LoadedModel, count: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(100, model.vocabulary), k=count)


def draw(t: int) -> Draw:
    return Draw(GREEDY, SEED, t, (), ())


def token_of(drawn: Drawn) -> int:
    """Ends the benchmark with the engine's words when it could not draw."""
    if not isinstance(drawn, Token):
        raise SystemExit(str(drawn))
    return drawn.id


class Sequences:
    """Some sequences side by side, each in blocks of its own."""

    def __init__(self, model: LoadedModel, prompts: Sequence[Sequence[int]], room: int) -> None:
        self._model = model
        self._prompts = prompts
        each = blocks_for(len(prompts[0]) + room)
        if each * len(prompts) > model.blocks:
            raise SystemExit(
                f"The cache has {model.blocks} blocks; {each * len(prompts)} are used."
            )
        self._blocks = [range(n * each, (n + 1) * each) for n in range(len(prompts))]
        self._position = 0
        self._last: list[int] = []

    def read(self) -> None:
        """The prompts, in as few steps as may be."""
        last: dict[int, int] = {}
        for pieces in self._steps():
            numbers = [number for number, _ in pieces]
            drawn = self._model.step([piece for _, piece in pieces])
            last.update((n, token_of(d[0])) for n, d in zip(numbers, drawn, strict=True) if d)
        self._last = [last[number] for number in range(len(self._prompts))]
        self._position = len(self._prompts[0])

    def _steps(self) -> Iterator[list[tuple[int, Piece]]]:
        step: list[tuple[int, Piece]] = []
        room = STEP_ROWS_MAX
        for number, prompt in enumerate(self._prompts):
            at = 0
            while at < len(prompt):
                ids = prompt[at : at + room]
                ends = at + len(ids) == len(prompt)
                piece = Piece(self._blocks[number], at, ids, [draw(0)] if ends else [])
                step.append((number, piece))
                at += len(ids)
                room -= len(ids)
                if not room:
                    yield step
                    step, room = [], STEP_ROWS_MAX
        if step:
            yield step

    def write(self, tokens: int) -> None:
        """So many tokens of each, one of each in a step; every one is drawn from the logits of the
        one before."""
        for t in range(1, tokens + 1):
            pieces = [
                Piece(blocks, self._position, [token], [draw(t)])
                for blocks, token in zip(self._blocks, self._last, strict=True)
            ]
            self._last = [token_of(drawn[0]) for drawn in self._model.step(pieces)]
            self._position += 1


def decode_rate(model: LoadedModel, batch: int, prompt: int, tokens: int) -> float:
    """Tokens a second of all sequences together; the prompts are read before the clock starts."""
    prompts = [random_ids(model, prompt, seed) for seed in range(batch)]
    sequences = Sequences(model, prompts, tokens)
    sequences.read()
    began = time.perf_counter()
    sequences.write(tokens)
    return batch * tokens / (time.perf_counter() - began)


def prefill_rate(model: LoadedModel, prompt: int) -> float:
    """Tokens of one prompt a second, the first token of the answer drawn as well."""
    sequences = Sequences(model, [random_ids(model, prompt, prompt)], 1)
    began = time.perf_counter()
    sequences.read()
    return prompt / (time.perf_counter() - began)
