"""The sampling rule in plain Python: written from the rule's words, not from the sampler."""

import math
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

from protocol.job.sampling import Sampling

WORD = (1 << 64) - 1


def noise(seed: bytes, t: int, token: int) -> float:
    """One value of Gumbel noise."""
    key = blake2b(t.to_bytes(8, "little"), digest_size=8, key=seed, person=b"ayni-gumbel-1")
    z = (int.from_bytes(key.digest(), "little") + (token + 1) * 0x9E3779B97F4A7C15) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    z ^= z >> 31
    v = ((z >> 32) + 0.5) * 2.0**-32
    return -math.log(-math.log1p(-v))


def penalised(
    logits: Sequence[float], sampling: Sampling, prompt: Sequence[int], answer: Sequence[int]
) -> list[float]:
    repetition = sampling.repetition_penalty_millionths / 10**6
    frequency = sampling.frequency_penalty_millionths / 10**6
    presence = sampling.presence_penalty_millionths / 10**6
    result = list(logits)
    for token in {*prompt, *answer}:
        value = result[token]
        result[token] = value / repetition if value > 0 else value * repetition
    for token, count in Counter(answer).items():
        result[token] = result[token] - frequency * count - presence
    return result


def kept(values: Sequence[float], sampling: Sampling) -> list[int]:
    temperature = sampling.temperature_millionths / 10**6
    order = sorted(range(len(values)), key=lambda token: (-values[token], token))
    weights = [math.exp((values[token] - values[order[0]]) / temperature) for token in order]
    whole, before, chosen = math.fsum(weights), 0.0, []
    for place, (token, weight) in enumerate(zip(order, weights, strict=True)):
        if (
            (before < sampling.top_p_millionths / 10**6 or sampling.top_p_millionths == 10**6)
            and (place < sampling.top_k or not sampling.top_k)
            and weight >= sampling.min_p_millionths / 10**6
        ):
            chosen.append(token)
        before += weight / whole
    return chosen


def drawn(
    logits: Sequence[float],
    sampling: Sampling,
    place: tuple[bytes, int],
    prompt: Sequence[int],
    answer: Sequence[int],
) -> int:
    """The token; `place` is the seed and t."""
    values = penalised(logits, sampling, prompt, answer)
    temperature = sampling.temperature_millionths / 10**6
    if temperature == 0:
        return max(range(len(values)), key=lambda token: (values[token], -token))
    scores = {t: values[t] + temperature * noise(*place, t) for t in kept(values, sampling)}
    return max(scores, key=lambda token: (scores[token], -token))
