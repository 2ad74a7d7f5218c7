"""Draws a token as a pure function of logits, seed and place: Gumbel-max with counter noise.

The rule of protocol/SPEC.md, "Sampling", in torch's float64: of the engines whose logits another
machine has only nearly. The exact engine has its own (node.worker.engine.kernels.sampling).

1. l is the logits after, in this order: repetition over every token of prompt and answer (l / r
   where l > 0, else l * r), frequency (l - f * count in the answer), presence (l - p where the
   answer has it), bias (l + b), mask (a token that is not allowed is never drawn).
2. At temperature T = 0 the token is the largest l, the smallest id on a tie.
3. Else tokens are ordered by falling l, ties by rising id, each with a weight: the whole number
   nearest to 2^44 * e^((l - largest l) * (1 / T)). A token is kept if the weights before it in
   this order come to < top_p times all weights (or top_p is 1), its place is < top_k (or that is
   0), and its l is >= largest l + T * log(min_p) (or that is 0).
4. Of the kept, the one with the largest l + T * g wins, the smallest id on a tie; g is `gumbel`.
5. A token's logprob is l - largest l - log(all weights at T = 1 / 2^44), in millionths.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from node.worker.engine.model import Alternative, Draw
from node.worker.engine.noise import noise_key
from protocol.errors import Code, LocalError
from protocol.job.logprob import MICROLOGPROB_MIN
from protocol.job.sampling import Sampling
from protocol.units import MILLION

WEIGHT_ONE: Final = 2.0**44  # A quarter of a million tokens of it do not overflow.
FIRST_CANDIDATES: Final = 1024  # A sort of 49 k logits costs 7.6 ms, a top-k of 1024 far less.


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_STEP: Final = _signed(0x9E3779B97F4A7C15)
_MIX_1: Final = _signed(0xBF58476D1CE4E5B9)
_MIX_2: Final = _signed(0x94D049BB133111EB)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """A logical right shift of int64, which torch has only as an arithmetic one."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def gumbel(seed: bytes, t: int, ids: Tensor) -> Tensor:
    """The float64 noise of these token ids (int64) at place `t` of an answer: splitmix64 from the
    place's key, and -log(-log1p(-v)) of its upper half."""
    z = (ids + 1) * _STEP + _signed(noise_key(seed, t))
    z = (z ^ _shifted(z, 30)) * _MIX_1
    z = (z ^ _shifted(z, 27)) * _MIX_2
    z = z ^ _shifted(z, 31)
    v = (_shifted(z, 32).double() + 0.5) * 2.0**-32
    return -torch.log(-torch.log1p(-v))


def no_number() -> LocalError:
    return LocalError(
        Code.WORKER_FAILED, "The model computed no number for the next token: ask another."
    )


def nothing_allowed() -> LocalError:
    return LocalError(
        Code.WORKER_FAILED, "No token is allowed here by the form that was asked for: relax it."
    )


def drawn(logits: Tensor, draw: Draw) -> tuple[int, Sequence[Alternative]]:
    """The next token, from one row of float32 logits [vocabulary] on the CPU, and what
    `sampling.logprobs` asks for.

    Raises LocalError WORKER_FAILED where the logits are no numbers or all are masked: this
    sequence cannot go on.
    """
    if not bool(torch.isfinite(logits).all()):
        raise no_number()
    l = _adjusted(logits.double(), draw)  # noqa: E741 - as the rule has it
    best = l.max()
    if best == float("-inf"):
        raise nothing_allowed()
    token = _token(l, draw)
    if not draw.sampling.logprobs:
        return token, ()
    log_whole = math.log(int(_weights(l, 1.0).sum()) / WEIGHT_ONE)
    ids = [token, *_likeliest(l, draw.sampling.logprobs - 1)]
    logprobs = [float(l[one]) - float(best) - log_whole for one in ids]
    return token, [
        Alternative(one, max(MICROLOGPROB_MIN, round(logprob * MILLION)))
        for one, logprob in zip(ids, logprobs, strict=True)
    ]


def _token(l: Tensor, draw: Draw) -> int:  # noqa: E741
    temperature = draw.sampling.temperature_millionths / MILLION
    if temperature == 0:
        return _first_largest(l)
    kept = _kept(l, temperature, draw.sampling)
    if kept is None:
        return _first_largest(l + temperature * gumbel(draw.seed, draw.t, _ids(l)))
    kept = kept.sort().values  # So that the first of equal scores has the smallest id.
    scores = l[kept] + temperature * gumbel(draw.seed, draw.t, kept)
    return int(kept[_first_largest(scores)])


def _likeliest(l: Tensor, count: int) -> list[int]:  # noqa: E741
    """The ids of so many largest values in the rule's order, none of them masked."""
    if not count:
        return []
    candidates = _best(l, FIRST_CANDIDATES)
    if candidates.numel() < count:
        candidates = _best(l, l.numel())
    ids = candidates[:count]
    return [int(one) for one in ids[l[ids] > float("-inf")]]


def _ids(l: Tensor) -> Tensor:  # noqa: E741
    return torch.arange(l.numel(), dtype=torch.int64)


def _first_largest(values: Tensor) -> int:
    return int((values == values.max()).nonzero()[0])


def _adjusted(l: Tensor, draw: Draw) -> Tensor:  # noqa: E741
    """The logits after penalties, bias and mask."""
    sampling = draw.sampling
    repetition = sampling.repetition_penalty_millionths / MILLION
    if repetition != 1.0:
        seen = torch.tensor(sorted({*draw.prompt, *draw.answer}), dtype=torch.int64)
        old = l[seen]
        l = l.index_copy(0, seen, torch.where(old > 0, old / repetition, old * repetition))  # noqa: E741
    frequency = sampling.frequency_penalty_millionths / MILLION
    presence = sampling.presence_penalty_millionths / MILLION
    if (frequency or presence) and draw.answer:
        counts = Counter(draw.answer)
        said = torch.tensor(list(counts), dtype=torch.int64)
        often = torch.tensor(list(counts.values()), dtype=torch.float64)
        l = l.index_copy(0, said, l[said] - frequency * often - presence)  # noqa: E741
    known = [(token, bias / MILLION) for token, bias in sampling.bias if token < l.numel()]
    if known:
        tokens = torch.tensor([token for token, _ in known], dtype=torch.int64)
        biases = torch.tensor([bias for _, bias in known], dtype=torch.float64)
        l = l.index_add(0, tokens, biases)  # noqa: E741
    if draw.allowed is not None:
        l = l.masked_fill(~_allowed(draw.allowed, l.numel()), float("-inf"))  # noqa: E741
    return l


def _allowed(mask: bytes, vocabulary: int) -> Tensor:
    assert 8 * len(mask) >= vocabulary
    octets = torch.frombuffer(bytearray(mask), dtype=torch.uint8)
    bits = (octets[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[:vocabulary].bool()


def _kept(l: Tensor, temperature: float, sampling: Sampling) -> Tensor | None:  # noqa: E741
    """The ids of the kept set, or None for all. A few best candidates settle it nearly always;
    where they do not, all are sorted."""
    top_p = sampling.top_p_millionths / MILLION
    min_p = sampling.min_p_millionths / MILLION
    if top_p >= 1.0 and min_p == 0.0 and sampling.top_k == 0:
        return None
    weights = _weights(l, 1.0 / temperature)
    mass_max = -(-int(weights.sum()) * sampling.top_p_millionths // MILLION)  # Rounded up.
    least = float("-inf") if min_p == 0.0 else float(l.max()) + temperature * math.log(min_p)
    for count in (FIRST_CANDIDATES, l.numel()):
        ids = _best(l, count)
        if not ids.numel():
            continue  # So many are equal that the first few cannot be told.
        keep = l[ids] >= least
        if top_p < 1.0:
            keep &= weights[ids].cumsum(0) - weights[ids] < mass_max
        if sampling.top_k:
            keep &= torch.arange(ids.numel()) < sampling.top_k
        if not bool(keep[-1]) or ids.numel() == l.numel():
            return ids[keep]
    raise AssertionError("the whole vocabulary settles it")


def _weights(l: Tensor, inverse: float) -> Tensor:  # noqa: E741
    """Whole numbers (int64), so that a sum of them has no order."""
    return (torch.exp((l - l.max()) * inverse) * WEIGHT_ONE).round().long()


def _best(l: Tensor, count: int) -> Tensor:  # noqa: E741
    """The ids of at most `count` largest values in the rule's order. Values equal to the smallest
    found are left out, unless all were asked for: others, not found, may equal them."""
    if count >= l.numel():
        return l.sort(descending=True, stable=True).indices
    values, ids = l.topk(count)
    ids = ids[values > values[-1]].sort().values
    return ids[l[ids].sort(descending=True, stable=True).indices]
