"""Draws a token as a pure function of logits, seed and place: Gumbel-max with counter noise.

The rule, of which a plain-Python twin stands in the tests, in float64 throughout:

1. l is the logits after penalties, in this order: repetition over every token of prompt and
   answer (l / r where l > 0, else l * r), frequency (l - f * count in the answer), presence
   (l - p where the answer has it).
2. At temperature T = 0 the token is the largest l, the smallest id on a tie.
3. Else tokens are ordered by falling l, ties by rising id, with p = softmax(l / T) over all.
   One is kept if the mass before it in this order is < top_p, its place is < top_k (if that is
   not 0), and its p >= min_p times the largest p.
4. Of the kept, the one with the largest l + T * g wins, the smallest id on a tie; g is `gumbel`.
"""

from collections import Counter
from hashlib import blake2b
from typing import Final

import torch
from torch import Tensor

from node.worker.engine.model import Draw
from protocol.errors import Code, LocalError
from protocol.job.sampling import Sampling
from protocol.units import MILLION

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
    """The float64 noise of these token ids (int64) at place `t` of an answer: splitmix64 from a
    key that BLAKE2b makes of seed and place, and -log(-log1p(-v)) of its upper half."""
    key = blake2b(t.to_bytes(8, "little"), digest_size=8, key=seed, person=b"ayni-gumbel-1")
    z = (ids + 1) * _STEP + _signed(int.from_bytes(key.digest(), "little"))
    z = (z ^ _shifted(z, 30)) * _MIX_1
    z = (z ^ _shifted(z, 27)) * _MIX_2
    z = z ^ _shifted(z, 31)
    v = (_shifted(z, 32).double() + 0.5) * 2.0**-32
    return -torch.log(-torch.log1p(-v))


def drawn(logits: Tensor, draw: Draw) -> int:
    """The next token, from one row of float32 logits on the CPU.

    Raises LocalError WORKER_FAILED where the logits are no numbers: this sequence cannot go on.
    """
    l = _penalised(logits.double(), draw)  # noqa: E741 - as the rule has it
    best = l.max()
    if not torch.isfinite(best):
        raise LocalError(
            Code.WORKER_FAILED, "The model computed no number for the next token: ask another."
        )
    temperature = draw.sampling.temperature_millionths / MILLION
    if temperature == 0:
        return _first_largest(l)
    kept = _kept(l, temperature, draw.sampling)
    if kept is None:
        return _first_largest(l + temperature * gumbel(draw.seed, draw.t, _ids(l)))
    kept = kept.sort().values  # So that the first of equal scores has the smallest id.
    scores = l[kept] + temperature * gumbel(draw.seed, draw.t, kept)
    return int(kept[_first_largest(scores)])


def _ids(l: Tensor) -> Tensor:  # noqa: E741
    return torch.arange(l.numel(), dtype=torch.int64)


def _first_largest(values: Tensor) -> int:
    return int((values == values.max()).nonzero()[0])


def _penalised(l: Tensor, draw: Draw) -> Tensor:  # noqa: E741
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
    return l


def _kept(l: Tensor, temperature: float, sampling: Sampling) -> Tensor | None:  # noqa: E741
    """The ids of the kept set, or None for all. A few best candidates settle it nearly always;
    where they do not, all are sorted."""
    top_p = sampling.top_p_millionths / MILLION
    min_p = sampling.min_p_millionths / MILLION
    if top_p >= 1.0 and min_p == 0.0 and sampling.top_k == 0:
        return None
    best = l.max()
    whole = torch.exp((l - best) / temperature).sum()
    for count in (FIRST_CANDIDATES, l.numel()):
        ids = _best(l, count)
        if not ids.numel():
            continue  # So many are equal that the first few cannot be told.
        weights = torch.exp((l[ids] - best) / temperature)
        p = weights / whole
        before = p.cumsum(0) - p
        # The first always stays: rounding could give it a mass before it that is not quite 0.
        before[0] = 0.0
        keep = weights >= min_p
        if top_p < 1.0:
            keep &= before < top_p
        if sampling.top_k:
            keep &= torch.arange(ids.numel()) < sampling.top_k
        if not bool(keep[-1]) or ids.numel() == l.numel():
            return ids[keep]
    raise AssertionError("the whole vocabulary settles it")


def _best(l: Tensor, count: int) -> Tensor:  # noqa: E741
    """The ids of at most `count` largest values in the rule's order. Values equal to the smallest
    found are left out, unless all were asked for: others, not found, may equal them."""
    if count >= l.numel():
        return l.sort(descending=True, stable=True).indices
    values, ids = l.topk(count)
    ids = ids[values > values[-1]].sort().values
    return ids[l[ids].sort(descending=True, stable=True).indices]
