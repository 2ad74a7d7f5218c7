"""Prompt lookup on and off, on prompts of several kinds; asked in lines of JSON.

    python bench_engine_guessing.py WEIGHTS THREADS

Says {"ready": true}; then each line {"kind": "copy", "guesses": 3, "batch": 1} is answered by
{"decode": tokens a second after the first of each answer, "digest": of all the tokens}: the
digest must be the same whether it guesses or not.
"""

import json
import sys
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

import torch
from bench_engine_ours import open_whole
from bench_engine_prompts import PROMPTS

from node.worker.engine.model import LoadedModel
from node.worker.engine.rows import RowStore
from node.worker.engine.scheduler import Scheduler, Settings
from node.worker.engine.sequence import Job
from node.worker.engine.speculation import Speculation
from node.worker.gguf import read_gguf
from node.worker.pipe import Ended, Failed, Progress
from node.worker.tokenizer import ModelTokenizer, gguf_tokenizer
from protocol.job.sampling import Sampling

ANSWER_TOKENS: Final = 96
SLOTS: Final = 3


class Answers:
    """One round: two answers side by side or one after the other."""

    def __init__(self, model: LoadedModel, tokenizer: ModelTokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer

    def run(self, kind: str, guesses: int, batch: int) -> dict[str, object]:
        prompts = PROMPTS[kind]
        groups = [prompts] if batch == 2 else [(prompt,) for prompt in prompts]
        seconds, tokens, digest = 0.0, 0, blake2b(digest_size=16)
        for group in groups:
            answers, passed = self._together(group, guesses)
            seconds += passed
            for ids in answers:
                tokens += len(ids) - 1
                digest.update(repr(ids).encode())
        return {"decode": tokens / seconds, "digest": digest.hexdigest()}

    def _together(self, prompts: Sequence[str], guesses: int) -> tuple[list[list[int]], float]:
        """The answers, and the seconds from when all prompts were read to the last token."""
        settings = Settings(
            SLOTS,
            self._model.context_tokens,
            frozenset(),
            speculation=Speculation(guesses_max=guesses),
        )
        scheduler = Scheduler(self._model, settings, RowStore())
        answers: list[list[int]] = [[] for _ in prompts]
        for number, prompt in enumerate(prompts):
            ids = self._tokenizer.chat([("user", prompt)])
            text, sampling = self._tokenizer.stream([]), Sampling()
            scheduler.add(Job(number, b"", ids, (), text, sampling, bytes(32), 0, ANSWER_TOKENS))
        began = 0.0
        while not scheduler.idle:
            for event in scheduler.step():
                match event:
                    case Progress(task=task, ids=ids):
                        answers[task] += ids
                    case Failed(sentence=sentence):
                        raise SystemExit(sentence)
                    case Ended():
                        pass
            if not began and all(answers):
                began = time.perf_counter()
        return answers, time.perf_counter() - began


def main() -> None:
    weights, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    model, _ = open_whole(weights, "native", threads, SLOTS)
    answers = Answers(model, gguf_tokenizer(read_gguf(weights)))
    answers.run("chat", 0, 1)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answers.run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
