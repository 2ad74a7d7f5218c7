"""The sampling rule in plain Python: written from the rule's words, not from a sampler.

What it does to numbers is what SPEC.md says, one operation after the other, so that the exact
sampler has to give the same bits; a sampler that uses its library's logarithm gives nearly them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import pack, unpack

from protocol.job.sampling import Sampling

WORD = (1 << 64) - 1
LN2_HIGH = float.fromhex("0x1.62e42fefa38p-1")
LN2_LOW = float.fromhex("0x1.ef35793c76730p-45")
LN2_INVERSE = float.fromhex("0x1.71547652b82fep+0")
SQRT2 = float.fromhex("0x1.6a09e667f3bcdp+0")
FACTORIALS = (6227020800.0, 479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0,
              120.0, 24.0, 6.0, 2.0, 1.0, 1.0)  # fmt: skip
MASKED = float("-inf")


def exp(x: float) -> float:
    """e^x for x <= 0."""
    if x < -708.0:
        return 0.0
    n = float(round(x * LN2_INVERSE))
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = 1.0 / FACTORIALS[0]
    for factorial in FACTORIALS[1:]:
        p = p * r + 1.0 / factorial
    return float(p * 2.0**n)


def log(x: float) -> float:
    """The natural logarithm of a positive normal number."""
    (bits,) = unpack("<Q", pack("<d", x))
    exponent = float((bits >> 52) - 1023)
    (m,) = unpack("<d", pack("<Q", (bits & ((1 << 52) - 1)) | (1023 << 52)))
    if m > SQRT2:
        m, exponent = m * 0.5, exponent + 1.0
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 1.0 / 21.0
    for odd in range(19, 1, -2):
        p = p * z + 1.0 / odd
    rest = (s + s) * (z * p) + exponent * LN2_LOW
    return float(exponent * LN2_HIGH + ((s + s) + rest))


def key_of(seed: bytes, t: int) -> int:
    key = blake2b(t.to_bytes(8, "little"), digest_size=8, key=seed, person=b"ayni-gumbel-1")
    return int.from_bytes(key.digest(), "little")


def noise(key: int, token: int) -> float:
    """One value of Gumbel noise."""
    z = (key + (token + 1) * 0x9E3779B97F4A7C15) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    z ^= z >> 31
    v = ((z >> 32) + 0.5) * 2.0**-32
    return -log(-log(1.0 - v))


@dataclass(frozen=True)
class Drawing:
    """What a token is a function of, beside the logits."""

    sampling: Sampling
    seed: bytes
    t: int
    prompt: Sequence[int] = ()
    answer: Sequence[int] = ()
    allowed: Sequence[bool] | None = None


def adjusted(logits: Sequence[float], drawing: Drawing) -> list[float]:
    sampling = drawing.sampling
    repetition = sampling.repetition_penalty_millionths / 10**6
    frequency = sampling.frequency_penalty_millionths / 10**6
    presence = sampling.presence_penalty_millionths / 10**6
    result = list(logits)
    if repetition != 1.0:
        for token in {*drawing.prompt, *drawing.answer}:
            value = result[token]
            result[token] = value / repetition if value > 0 else value * repetition
    for token, count in Counter(drawing.answer).items():
        result[token] = (result[token] - frequency * count) - presence
    for token, bias in sampling.bias:
        if token < len(result):
            result[token] += bias / 10**6
    for token in range(len(result)):
        if drawing.allowed is not None and not drawing.allowed[token]:
            result[token] = MASKED
    return result


def ordered(values: Sequence[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda token: (-values[token], token))


def weights(values: Sequence[float], inverse: float) -> list[int]:
    """Of each token, in steps of 2^-44."""
    best = max(values)
    return [round(exp((value - best) * inverse) * 2.0**44) for value in values]


def kept(values: Sequence[float], sampling: Sampling) -> list[int]:
    """The tokens that may win, in order; masked ones may be among them and never do."""
    temperature = sampling.temperature_millionths / 10**6
    order, each = ordered(values), weights(values, 1.0 / temperature)
    least = MASKED
    if sampling.min_p_millionths:
        least = values[order[0]] + temperature * log(sampling.min_p_millionths / 10**6)
    chosen, before = [], 0
    for place, token in enumerate(order):
        if (
            (before * 10**6 < sampling.top_p_millionths * sum(each) or _all_of_it(sampling))
            and (place < sampling.top_k or not sampling.top_k)
            and values[token] >= least
        ):
            chosen.append(token)
        before += each[token]
    return chosen


def _all_of_it(sampling: Sampling) -> bool:
    return sampling.top_p_millionths == 10**6


def drawn(logits: Sequence[float], drawing: Drawing) -> int:
    """The token."""
    values = adjusted(logits, drawing)
    temperature = drawing.sampling.temperature_millionths / 10**6
    if temperature == 0:
        return ordered(values)[0]
    key = key_of(drawing.seed, drawing.t)
    scores = {
        token: values[token] + temperature * noise(key, token)
        for token in kept(values, drawing.sampling)
    }
    return max(scores, key=lambda token: (scores[token], -token))


def alternatives(logits: Sequence[float], drawing: Drawing) -> list[tuple[int, int]]:
    """(token, micrologprob): the drawn one, then the likeliest that are not masked."""
    if not drawing.sampling.logprobs:
        return []
    values = adjusted(logits, drawing)
    best, log_whole = max(values), log(sum(weights(values, 1.0)) / 2.0**44)
    likeliest = [token for token in ordered(values) if values[token] > MASKED]
    tokens = [drawn(logits, drawing), *likeliest[: drawing.sampling.logprobs - 1]]
    return [
        (token, max(-9_999_000_000, round(((values[token] - best) - log_whole) * 1e6)))
        for token in tokens
    ]
