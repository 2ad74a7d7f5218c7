"""llama.cpp's own batch benchmark: decoding and prefill of one file of weights."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench_engine_process import output_of

UBATCH_TOKENS: Final = 512  # Its own value, and of our step: the tokens that go through at once.


@dataclass(frozen=True, slots=True)
class Work:
    """What every engine does in a round."""

    batches: Sequence[int]  # Sequences at once.
    prompt_tokens: int  # Before the decoding; each sequence has a prompt of its own.
    decode_tokens: int  # Of each sequence.
    prefills: Sequence[int]  # Prompts of so many tokens, alone.

    @property
    def columns(self) -> list[str]:
        return [
            *(f"decode {batch}" for batch in self.batches),
            *(f"prefill {tokens}" for tokens in self.prefills),
        ]


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def run(tool: Path, weights: Path, threads: int, work: Work, *, favoured: bool) -> dict[str, float]:
    """One pass. Its decoding picks no token and reads no logits: it is given random tokens."""
    context = max(
        max(work.batches, default=0) * (work.prompt_tokens + work.decode_tokens),
        max(work.prefills, default=0) + 1,
    )
    base = (
        *(tool, "-m", weights, "-t", str(threads), "-tb", str(threads)),
        *("-c", str(context), "-b", "2048", "-ub", str(UBATCH_TOKENS)),
        *("--output-format", "jsonl", "-npp"),
    )
    rates: dict[str, float] = {}
    if work.batches:
        sizes = ",".join(map(str, work.batches))
        told = (str(work.prompt_tokens), "-ntg", str(work.decode_tokens), "-npl", sizes)
        for line in _lines(output_of((*base, *told), favoured=favoured)):
            rates[f"decode {line['pl']}"] = line["speed_tg"]
    if work.prefills:
        told = (",".join(map(str, work.prefills)), "-ntg", "1", "-npl", "1")
        for line in _lines(output_of((*base, *told), favoured=favoured)):
            rates[f"prefill {line['pp']}"] = line["speed_pp"]
    return rates
