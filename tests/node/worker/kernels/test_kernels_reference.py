"""Each feature of a step against plain float64 torch, and the rotations against math."""

import math

import pytest
import torch
from torch import Tensor

from node.worker.engine.kernels.library import Kernels, Rope
from tests.node.worker.kernels.random_model import PLAIN, Plan, RandomModel, Steps, ids_of
from tests.node.worker.kernels.reference import reference

TOKENS = 90
FEATURES = {
    "q4": PLAIN,
    "q8": PLAIN.but(body=1),
    "bias": PLAIN.but(bias=True),
    "query_key_norm": PLAIN.but(query_key_norm=True),
    "post_norms": PLAIN.but(post_norms=True),
    "attention_softcap": PLAIN.but(attention_softcap=2.0),
    "logit_softcap": PLAIN.but(logit_softcap=2.0),
    "windows": PLAIN.but(windows=(33, 7)),
    "gelu": PLAIN.but(activation=1),
    "embedding_scale": PLAIN.but(embedding_scale=5.5),
    "head": PLAIN.but(tied=False),
    "one_key_head": PLAIN.but(key_heads=1),
    "head_width_8": PLAIN.but(head_width=8, heads=8, key_heads=2),
}


def share_off(got: Tensor, expected: Tensor) -> Tensor:
    """How far each row is off, as a share of its length."""
    return (got - expected).norm(dim=1) / expected.norm(dim=1)


@pytest.mark.parametrize("name", FEATURES)
def test_feature_is_what_the_reference_says(kernels: Kernels, name: str) -> None:
    plan: Plan = FEATURES[name]
    random, ids = RandomModel(plan, kernels), ids_of(plan, TOKENS)
    with Steps(random, kernels.paths()[0][0], 2) as steps:
        hidden, logits = steps.whole(ids)
    rounded = reference(random, ids, exact=False)
    # Where a number lies on the edge between two whole ones the last bit of a sum decides, and a
    # step of 1/127 in one value goes on through the layers and, by the cache, to later rows; rows
    # before the first such place are off by the rounding of float32 alone.
    assert share_off(hidden, rounded[0]).min() < 1e-5
    assert share_off(logits, rounded[1]).min() < 1e-5
    assert share_off(hidden, rounded[0]).max() < 5e-2
    assert share_off(logits, rounded[1]).max() < 5e-2
    assert share_off(logits, rounded[1]).median() < 1e-2
    plain = reference(random, ids, exact=True)
    assert share_off(logits, plain[1]).max() < 0.12
    assert torch.cosine_similarity(logits.double(), plain[1]).mean() > 0.998


@pytest.mark.parametrize("name", [n for n in FEATURES if n not in ("q4", "head")])
def test_feature_makes_a_difference(kernels: Kernels, name: str) -> None:
    """So that the test above cannot pass by leaving the feature out on both sides."""
    plan = FEATURES[name]
    if plan.head_width != PLAIN.head_width:
        pytest.skip("another shape has nothing to differ from")
    out = []
    for each in (PLAIN, plan):
        with Steps(RandomModel(each, kernels), kernels.paths()[0][0]) as steps:
            out.append(steps.whole(ids_of(PLAIN, TOKENS))[1])
    assert share_off(out[0], out[1]).max() > 2e-2


@pytest.mark.parametrize(("base", "scale"), [(10000.0, 1.0), (1e6, 0.125), (500000.0, 1.0)])
@pytest.mark.parametrize("divided", [False, True])
def test_rotations_are_right_to_the_last_bit(
    kernels: Kernels, base: float, scale: float, divided: bool
) -> None:
    half, positions = 32, 131072
    divisor = torch.linspace(1.0, 8.0, half)
    table = torch.empty(positions, half, 2)
    rope = Rope(base, scale, divisor.data_ptr() if divided else 0)
    kernels.rotations(table.data_ptr(), positions, half, rope)
    off = 0
    for position in (0, 1, 2, 511, 4095, 65537, 131071):
        for i in range(half):
            angle = position * scale * base ** (-i / half)
            if divided:
                angle = angle / float(divisor[i])
            cosine, sine = torch.tensor([math.cos(angle), math.sin(angle)]).float()
            assert float((table[position, i, 0] - cosine).abs()) < 1e-7
            assert float((table[position, i, 1] - sine).abs()) < 1e-7
            off += int(table[position, i, 0] != cosine) + int(table[position, i, 1] != sine)
    assert off <= 2  # Of 448: where the angle itself is uncertain in float64.
    assert torch.equal(table[0, :, 0], torch.ones(half))


def test_faults_in_weights_show_and_stay_in_their_row(kernels: Kernels) -> None:
    """A scale that is no number makes the rows that use it no numbers: nothing is smoothed over,
    and what does not use it is as before."""
    random, ids = RandomModel(PLAIN.but(tied=False), kernels), ids_of(PLAIN, 20)
    expected = None
    for path, _ in kernels.paths():
        with Steps(random, path, 2) as steps:
            whole = steps.whole(ids)
            head = random.kept["head"].data.view(torch.int16)
            head[0], before = 0x7E00, int(head[0])  # The scale of row 0.
            hurt = steps.whole(ids)
            head[0] = before
            embedding = random.kept["embedding"].data.view(torch.int16)
            kept = embedding.clone()
            embedding[:] = 0x7C00  # All is infinite.
            lost = steps.whole(ids)
            embedding.copy_(kept)
        assert torch.equal(hurt[0], whole[0])
        assert hurt[1][:, 0].isnan().all()
        assert torch.equal(hurt[1][:, 1:], whole[1][:, 1:])
        assert not lost[1].isfinite().any()
        expected = whole if expected is None else expected
        assert torch.equal(whole[1], expected[1])
