"""transformers' own `generate`, timed; run by the peers' Python, asked in lines of JSON.

    python bench_engine_transformers.py FOLDER float32|bfloat16 THREADS

Says {"ready": true}; then each line {"prompt": P, "tokens": N, "batch": B} is answered by
{"prefill": tokens a second, "decode": tokens a second of all B sequences together}.
"""

import json
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList


class Clock(StoppingCriteria):
    """`generate` asks it after every token; it notes the time and never stops anything."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


def measure(model: Any, prompt: int, tokens: int, batch: int) -> dict[str, float]:
    """Greedy, `tokens` after the first; the time of the first one is the prompt's."""
    random = torch.Generator().manual_seed(batch)
    vocabulary = model.config.vocab_size
    ids = torch.randint(100, vocabulary, (batch, prompt), generator=random)
    clock = Clock()
    began = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens + 1,
            min_new_tokens=tokens + 1,
            do_sample=False,
            stopping_criteria=StoppingCriteriaList([clock]),
        )
    first, last = clock.times[0], clock.times[tokens]
    return {
        "prefill": batch * prompt / (first - began),
        "decode": batch * tokens / (last - first) if tokens else 0.0,
    }


def main() -> None:
    folder, kind, threads = sys.argv[1:4]
    torch.set_num_threads(int(threads))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, kind))
    model.generation_config.pad_token_id = model.config.eos_token_id
    measure(model, 16, 2, 1)  # What is lazy is done by then, as on the other sides.
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(model, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
