"""Writes tests/vectors/sampling.json from the plain-Python twin: run on purpose, never by a test.

python -m tests.node.worker.record_sampling
"""

import json
import random
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from struct import pack
from typing import Any

import msgspec

from protocol.job.sampling import Sampling
from tests.node.worker import sampling_twin as twin

FILE = Path(__file__).parents[2] / "vectors" / "sampling.json"
NOISE_CASES, NOISE_IDS, NOISE_SHOWN = 10, 1000, 4
DRAW_CASES, VOCABULARY, TOKENS = 100, 24, 12
LOGIT_STEPS = 256  # A vector's logits are whole numbers of such parts, and exact in float32.


def doubles_digest(values: Sequence[float]) -> str:
    """BLAKE2b-256 of the values as float64, little endian."""
    return blake2b(pack(f"<{len(values)}d", *values), digest_size=32).hexdigest()


def _noise(number: int) -> dict[str, Any]:
    seed = blake2b(pack("<I", number), digest_size=32).digest()
    key = twin.key_of(seed, number * number)
    values = [twin.noise(key, token) for token in range(NOISE_IDS)]
    return {
        "seed": seed.hex(),
        "t": number * number,
        "ids": NOISE_IDS,
        "first": [value.hex() for value in values[:NOISE_SHOWN]],
        "digest": doubles_digest(values),
    }


def _drawn(number: int, chance: random.Random) -> dict[str, Any]:
    steps = [round(chance.gauss(0, 2) * LOGIT_STEPS) for _ in range(VOCABULARY)]
    if number % 4 == 0:  # Ties.
        steps = [step - step % LOGIT_STEPS for step in steps]
    sampling = Sampling(
        chance.choice([300_000, 700_000, 1_000_000, 2_000_000]) if number % 10 else 0,
        chance.choice([500_000, 900_000, 1_000_000]),
        chance.choice([0, 0, 100_000]),
        chance.choice([0, 0, 5]),
        chance.choice([1_000_000, 1_200_000]),
        chance.choice([0, 500_000]),
        chance.choice([0, 300_000]),
        chance.choice([(), ((3, 2_500_000), (7, -100_000_000))]),
        chance.choice([0, 1, 4]),
    )
    seed = blake2b(pack("<I", 1000 + number), digest_size=32).digest()
    prompt = [chance.randrange(VOCABULARY) for _ in range(3)]
    answer = [chance.randrange(VOCABULARY) for _ in range(number % 6)]
    logits = [step / LOGIT_STEPS for step in steps]
    drawings = [twin.Drawing(sampling, seed, t, prompt, answer) for t in range(TOKENS)]
    values = twin.adjusted(logits, drawings[0])
    warm = sampling.temperature_millionths > 0
    return {
        "sampling": msgspec.to_builtins(sampling),
        "seed": seed.hex(),
        "prompt": prompt,
        "answer": answer,
        "logits": steps,
        "kept": twin.kept(values, sampling) if warm else twin.ordered(values)[:1],
        "tokens": [twin.drawn(logits, drawing) for drawing in drawings],
        "alternatives": twin.alternatives(logits, drawings[0]),
    }


def main() -> None:
    chance = random.Random(7)
    parts = {
        "noise": [_noise(number) for number in range(NOISE_CASES)],
        "drawn": [_drawn(number, chance) for number in range(DRAW_CASES)],
    }
    lines = [
        f'"{name}": [\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
        for name, cases in parts.items()
    ]
    FILE.write_text("{\n" + "\n],\n".join(lines) + "\n]\n}\n")


if __name__ == "__main__":
    main()
