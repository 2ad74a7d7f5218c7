"""What samplers are asked in tests: any draw, as themselves and as their twin understand it."""

import random
from collections.abc import Callable, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from node.worker.engine.model import Alternative, Draw
from protocol.job.sampling import Sampling
from tests.node.worker import sampling_twin as twin

MILLION = 10**6
VOCABULARY = 60
Drawn = Callable[[Tensor, Draw], tuple[int, Sequence[Alternative]]]

samplings = st.builds(
    Sampling,
    temperature_millionths=st.sampled_from([0, 1, 300_000, MILLION, 2 * MILLION]),
    top_p_millionths=st.sampled_from([1, 500_000, 900_000, 999_999, MILLION]),
    min_p_millionths=st.sampled_from([0, 0, 1, 50_000, 600_000, MILLION]),
    top_k=st.sampled_from([0, 0, 1, 3, 40]),
    repetition_penalty_millionths=st.sampled_from([MILLION, 1_300_000, 700_000]),
    frequency_penalty_millionths=st.sampled_from([0, 400_000, -400_000]),
    presence_penalty_millionths=st.sampled_from([0, 600_000]),
    bias=st.dictionaries(
        st.integers(0, VOCABULARY + 3),
        st.sampled_from([-100 * MILLION, -1_234_567, 500_000, 100 * MILLION]),
        max_size=4,
    ).map(lambda biases: tuple(sorted(biases.items()))),
    logprobs=st.sampled_from([0, 0, 1, 2, 6, 21]),
)


def logits_of(seed: int, count: int, spread: float, step: float = 0.0) -> list[float]:
    """float32 values; a step makes many of them equal."""
    chance = random.Random(seed)
    values = [chance.gauss(0, spread) for _ in range(count)]
    if step:
        values = [round(value / step) * step for value in values]
    return torch.tensor(values, dtype=torch.float32).tolist()


@st.composite
def logits(draw: st.DrawFn) -> list[float]:
    """Of few tokens or of VOCABULARY; usual ones, many ties, all equal, far apart."""
    count = draw(st.sampled_from([1, 2, 9, VOCABULARY]))
    if draw(st.booleans()):
        spread = draw(st.sampled_from([0.0, 0.01, 2.0, 40.0, 1e30]))
        return logits_of(
            draw(st.integers(0, 10**6)), count, spread, draw(st.sampled_from([0, 0.5]))
        )
    values = st.floats(width=32, allow_nan=False, allow_infinity=False)
    return draw(st.lists(values, min_size=count, max_size=count))


@st.composite
def drawings(draw: st.DrawFn, vocabulary: int) -> twin.Drawing:
    ids = st.lists(st.integers(0, vocabulary - 1), max_size=9)
    allowed = None
    if draw(st.booleans()):
        allowed = draw(st.lists(st.booleans(), min_size=vocabulary, max_size=vocabulary))
        allowed[draw(st.integers(0, vocabulary - 1))] = True
    seed = draw(st.binary(min_size=32, max_size=32))
    return twin.Drawing(
        draw(samplings), seed, draw(st.integers(0, 1 << 15)), draw(ids), draw(ids), allowed
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[float], twin.Drawing]:
    values = draw(logits())
    return values, draw(drawings(len(values)))


def draw_of(drawing: twin.Drawing) -> Draw:
    mask = None
    if drawing.allowed is not None:
        bits = sum(1 << token for token, allowed in enumerate(drawing.allowed) if allowed)
        mask = bits.to_bytes((len(drawing.allowed) + 7) // 8, "little")
    return Draw(
        drawing.sampling, drawing.seed, drawing.t, drawing.prompt, drawing.answer, allowed=mask
    )


def asked(
    drawn: Drawn, values: Sequence[float], drawing: twin.Drawing
) -> tuple[int, list[tuple[int, int]]]:
    """The token and (token, micrologprob) pairs that a sampler gives."""
    token, alternatives = drawn(torch.tensor(values, dtype=torch.float32), draw_of(drawing))
    return token, [(one.token, one.micrologprob) for one in alternatives]


def expected(values: Sequence[float], drawing: twin.Drawing) -> tuple[int, list[tuple[int, int]]]:
    return twin.drawn(values, drawing), twin.alternatives(values, drawing)
