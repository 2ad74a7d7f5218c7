"""The sampler draws what its plain-Python twin draws, and what the golden vectors say."""

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from node.worker.engine.model import Draw
from node.worker.engine.sampler import FIRST_CANDIDATES, drawn, gumbel
from protocol.errors import Code, LocalError
from protocol.job.sampling import Sampling
from tests.node.worker import sampling_twin as twin

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "sampling.json").read_text()
)
MILLION = 10**6
samplings = st.builds(
    Sampling,
    temperature_millionths=st.sampled_from([0, 1, 300_000, MILLION, 2 * MILLION]),
    top_p_millionths=st.sampled_from([1, 500_000, 900_000, MILLION]),
    min_p_millionths=st.sampled_from([0, 50_000, 600_000]),
    top_k=st.sampled_from([0, 1, 3, 40]),
    repetition_penalty_millionths=st.sampled_from([MILLION, 1_300_000, 700_000]),
    frequency_penalty_millionths=st.sampled_from([0, 400_000, -400_000]),
    presence_penalty_millionths=st.sampled_from([0, 600_000]),
)


def logits_of(seed: int, count: int, spread: float, step: float = 0.0) -> list[float]:
    """float32 values; a step makes many of them equal."""
    chance = random.Random(seed)
    values = [chance.gauss(0, spread) for _ in range(count)]
    if step:
        values = [round(value / step) * step for value in values]
    return torch.tensor(values, dtype=torch.float32).tolist()


def both(
    logits: list[float], sampling: Sampling, seed: bytes, t: int, answer: list[int]
) -> tuple[int, int]:
    draw = Draw(sampling, seed, t, [1, 2, 2], answer)
    ours = drawn(torch.tensor(logits, dtype=torch.float32), draw)
    return ours, twin.drawn(logits, sampling, (seed, t), [1, 2, 2], answer)


@given(
    samplings,
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.5]),
    st.lists(st.integers(0, 59), max_size=9),
)
def test_it_draws_what_its_twin_draws(
    sampling: Sampling, number: int, step: float, answer: list[int]
) -> None:
    logits = logits_of(number, 60, 2.0, step)
    ours, theirs = both(logits, sampling, number.to_bytes(32, "little"), number % 7, answer)
    assert ours == theirs


@pytest.mark.parametrize("spread", [0.01, 2.0, 8.0])
@pytest.mark.parametrize("step", [0.0, 0.25])
def test_a_large_vocabulary_falls_back_to_a_whole_sort(spread: float, step: float) -> None:
    """A flat distribution needs more than the first candidates, a steep one does not."""
    logits = logits_of(int(spread * 100), 3 * FIRST_CANDIDATES, spread, step)
    for number, sampling in enumerate(
        [
            Sampling(MILLION, 900_000),
            Sampling(MILLION, top_k=FIRST_CANDIDATES + 5),
            Sampling(MILLION, min_p_millionths=20_000),
            Sampling(MILLION),
        ]
    ):
        for t in range(3):
            ours, theirs = both(logits, sampling, bytes([number]) * 32, t, [5])
            assert ours == theirs


def test_equal_logits_give_the_smallest_id() -> None:
    logits = [0.0, 2.0, 1.0, 2.0]
    assert both(logits, Sampling(), bytes(32), 0, []) == (1, 1)
    flat = [1.0] * (2 * FIRST_CANDIDATES)
    ours, theirs = both(flat, Sampling(MILLION, top_k=1), bytes(32), 0, [])
    assert ours == theirs == 0


def test_golden_noise() -> None:
    for case in VECTORS["noise"]:
        ids = torch.tensor(case["ids"], dtype=torch.int64)
        ours = gumbel(bytes.fromhex(case["seed"]), case["t"], ids).tolist()
        expected = [float.fromhex(value) for value in case["values"]]
        assert ours == pytest.approx(expected, rel=1e-13, abs=1e-13)


def test_golden_tokens() -> None:
    for case in VECTORS["tokens"]:
        sampling = msgspec.convert(case["sampling"], Sampling)
        logits = torch.tensor([float.fromhex(v) for v in case["logits"]], dtype=torch.float32)
        draw = Draw(
            sampling, bytes.fromhex(case["seed"]), case["t"], case["prompt"], case["answer"]
        )
        assert drawn(logits, draw) == case["token"]


def test_noise_follows_its_distribution() -> None:
    """Mean 0.5772 and variance pi^2 / 6 of a Gumbel distribution; the seed is fixed."""
    values = gumbel(bytes(range(32)), 3, torch.arange(1 << 16, dtype=torch.int64))
    assert bool(torch.isfinite(values).all())
    assert values.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert values.var().item() == pytest.approx(1.6449, abs=0.04)


def test_no_number_fails_by_code() -> None:
    for bad in (float("nan"), float("inf")):
        with pytest.raises(LocalError) as caught:
            drawn(torch.tensor([0.0, bad]), Draw(Sampling(), bytes(32), 0, [], []))
        assert caught.value.code == Code.WORKER_FAILED
