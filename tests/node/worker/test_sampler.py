"""The torch sampler draws what its plain-Python twin draws, and what the golden vectors say."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given

from node.worker.engine.model import Draw
from node.worker.engine.sampler import FIRST_CANDIDATES, drawn, gumbel
from node.worker.engine.torch_threads import one_thread
from protocol.errors import Code, LocalError
from protocol.job.sampling import Sampling
from tests.node.worker import sampling_twin as twin
from tests.node.worker.record_sampling import FILE, LOGIT_STEPS
from tests.node.worker.sampling_cases import MILLION, asked, cases, expected, logits_of

VECTORS: dict[str, Any] = json.loads(FILE.read_text())
LARGE = [
    Sampling(MILLION, 900_000),
    Sampling(MILLION, top_k=FIRST_CANDIDATES + 5),
    Sampling(MILLION, min_p_millionths=20_000),
    Sampling(MILLION, logprobs=21),
]


@pytest.fixture(autouse=True, scope="module")
def single() -> Iterator[None]:
    """As in a worker: threads cost more here than they give."""
    with one_thread():
        yield


@given(cases())
def test_it_draws_what_its_twin_draws(case: tuple[list[float], twin.Drawing]) -> None:
    assert asked(drawn, *case) == expected(*case)


@pytest.mark.parametrize("spread", [0.01, 2.0, 8.0])
@pytest.mark.parametrize("step", [0.0, 0.25])
def test_a_large_vocabulary_falls_back_to_a_whole_sort(spread: float, step: float) -> None:
    """A flat distribution needs more than the first candidates, a steep one does not."""
    logits = logits_of(int(spread * 100), 3 * FIRST_CANDIDATES, spread, step)
    for number, sampling in enumerate(LARGE):
        for t in range(2):
            drawing = twin.Drawing(sampling, bytes([number]) * 32, t, [1, 2, 2], [5])
            assert asked(drawn, logits, drawing) == expected(logits, drawing)


def test_equal_logits_give_the_smallest_id() -> None:
    assert asked(drawn, [0.0, 2.0, 1.0, 2.0], twin.Drawing(Sampling(), bytes(32), 0))[0] == 1
    flat = [1.0] * (2 * FIRST_CANDIDATES)
    first = twin.Drawing(Sampling(MILLION, top_k=1, logprobs=3), bytes(32), 0)
    token, alternatives = asked(drawn, flat, first)
    assert (token, [one for one, _ in alternatives]) == (0, [0, 0, 1])


def test_golden_noise() -> None:
    """Its library's logarithm may differ by a last bit; the exact sampler's may not."""
    for case in VECTORS["noise"]:
        ids = torch.arange(len(case["first"]), dtype=torch.int64)
        ours = gumbel(bytes.fromhex(case["seed"]), case["t"], ids).tolist()
        golden = [float.fromhex(value) for value in case["first"]]
        assert ours == pytest.approx(golden, rel=1e-13, abs=1e-13)


def test_golden_tokens() -> None:
    for case in VECTORS["drawn"]:
        sampling = msgspec.convert(case["sampling"], Sampling)
        logits = [step / LOGIT_STEPS for step in case["logits"]]
        for t, token in enumerate(case["tokens"]):
            seed = bytes.fromhex(case["seed"])
            drawing = twin.Drawing(sampling, seed, t, case["prompt"], case["answer"])
            assert asked(drawn, logits, drawing)[0] == token
            assert token in case["kept"]


def test_noise_follows_its_distribution() -> None:
    """Mean 0.5772 and variance pi^2 / 6 of a Gumbel distribution; the seed is fixed."""
    values = gumbel(bytes(range(32)), 3, torch.arange(1 << 16, dtype=torch.int64))
    assert bool(torch.isfinite(values).all())
    assert values.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert values.var().item() == pytest.approx(1.6449, abs=0.04)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_no_number_fails_by_code(bad: float) -> None:
    with pytest.raises(LocalError) as caught:
        drawn(torch.tensor([0.0, bad]), Draw(Sampling(), bytes(32), 0, [], []))
    assert caught.value.code == Code.WORKER_FAILED
    assert "no number" in caught.value.sentence


def test_a_mask_that_leaves_nothing_fails_by_code() -> None:
    with pytest.raises(LocalError) as caught:
        drawn(torch.zeros(9), Draw(Sampling(MILLION), bytes(32), 0, [], [], allowed=bytes(2)))
    assert caught.value.code == Code.WORKER_FAILED
    assert "allowed" in caught.value.sentence
