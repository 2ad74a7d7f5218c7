"""Writes tests/vectors/sampling.json from the plain-Python twin: run on purpose, never by a test.

python -m tests.node.worker.record_sampling
"""

import json
import random
from hashlib import blake2b
from pathlib import Path
from struct import pack, unpack

import msgspec

from protocol.job.sampling import Sampling
from tests.node.worker import sampling_twin as twin

NOISE_CASES, NOISE_IDS, TOKEN_CASES, VOCABULARY = 20, 50, 60, 24


def main() -> None:
    chance = random.Random(7)
    noise, tokens = [], []
    for number in range(NOISE_CASES):
        seed = blake2b(pack("<I", number), digest_size=32).digest()
        ids = sorted({0, 49_151, *(chance.randrange(1 << 18) for _ in range(NOISE_IDS - 2))})
        values = [twin.noise(seed, number * number, token).hex() for token in ids]
        noise.append({"seed": seed.hex(), "t": number * number, "ids": ids, "values": values})
    for number in range(TOKEN_CASES):
        seed = blake2b(pack("<I", 1000 + number), digest_size=32).digest()
        logits = [unpack("<f", pack("<f", chance.gauss(0, 2)))[0] for _ in range(VOCABULARY)]
        sampling = Sampling(
            chance.choice([0, 300_000, 700_000, 1_000_000, 2_000_000]),
            chance.choice([500_000, 900_000, 1_000_000]),
            chance.choice([0, 0, 100_000]),
            chance.choice([0, 0, 5]),
            chance.choice([1_000_000, 1_200_000]),
            chance.choice([0, 500_000]),
            chance.choice([0, 300_000]),
        )
        prompt = [chance.randrange(VOCABULARY) for _ in range(3)]
        answer = [chance.randrange(VOCABULARY) for _ in range(number % 6)]
        tokens.append(
            {
                "sampling": msgspec.to_builtins(sampling),
                "seed": seed.hex(),
                "t": number,
                "prompt": prompt,
                "answer": answer,
                "logits": [value.hex() for value in logits],
                "token": twin.drawn(logits, sampling, (seed, number), prompt, answer),
            }
        )
    path = Path(__file__).parents[2] / "vectors" / "sampling.json"
    path.write_text(json.dumps({"noise": noise, "tokens": tokens}, indent=1) + "\n")


if __name__ == "__main__":
    main()
