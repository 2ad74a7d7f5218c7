"""The exact sampler gives its twin's bits: from each compiler, at each level, on each path."""

import ctypes
import json
import math
import random
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from node.worker.engine.kernels.build import MACHINE_FLAGS, PLAIN, SOURCES, compilers
from node.worker.engine.kernels.sampling import NativeSampler
from node.worker.engine.model import Draw
from protocol.errors import Code, LocalError
from protocol.job.sampling import Sampling
from tests.node.worker import sampling_twin as twin
from tests.node.worker.record_sampling import FILE, LOGIT_STEPS, doubles_digest
from tests.node.worker.sampling_cases import MILLION, asked, cases, expected, logits_of

pytestmark = pytest.mark.skipif(not compilers(), reason="there is no C compiler here")

VECTORS: dict[str, Any] = json.loads(FILE.read_text())
LEVELS = (("-O0",), ("-O2",), ("-O3",), ("-O3", "-march=native"))
CAPABILITIES = ("DEFAULT", "AVX2", "AVX512")  # As torch has them, from the least.
PATHS = (0, 1, 3)  # And the path of each, as ayni_kernels.h has it.


@dataclass(frozen=True)
class Built:
    """sample.c, compiled in one way, with a sampler for each path that this processor has."""

    name: str
    library: ctypes.CDLL
    samplers: dict[int, NativeSampler]

    def computed(self, function: str, values: Sequence[float]) -> list[float]:
        """exp or log of each."""
        given, results = (ctypes.c_double * len(values))(*values), (ctypes.c_double * len(values))()
        getattr(self.library, f"ayni_sample_{function}")(given, results, len(values))
        return list(results)

    def noise(self, key: int, first: int, count: int) -> list[float]:
        results = (ctypes.c_double * count)()
        self.library.ayni_sample_noise(ctypes.c_uint64(key), first, count, results)
        return list(results)


def compiled(folder: Path, compiler: Sequence[str], level: Sequence[str]) -> Built:
    target = folder / f"{''.join(level)}.so"
    flags = [*PLAIN, *MACHINE_FLAGS["sample.c"], *level]
    command = [*compiler, *flags, "-shared", str(SOURCES / "sample.c"), "-o", str(target)]
    subprocess.run([*command, "-lm"], check=True, capture_output=True, timeout=300)
    library = ctypes.CDLL(str(target))
    has = torch.backends.cpu.get_cpu_capability()
    paths = PATHS[: CAPABILITIES.index(has) + 1] if has in CAPABILITIES else PATHS[:1]
    samplers = {path: NativeSampler(library, path) for path in paths}
    return Built(" ".join([*compiler, *level]), library, samplers)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Built]:
    folder = tmp_path_factory.mktemp("sample")
    return [compiled(folder, compilers()[0], level) for level in LEVELS]


def agree(
    built: Sequence[Built], values: Sequence[float], drawing: twin.Drawing, right: object
) -> None:
    """Every build and path gives this token and these alternatives."""
    for each in built:
        for path, sampler in each.samplers.items():
            assert asked(sampler.drawn, values, drawing) == right, (each.name, path)


def bits(values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


@given(st.lists(st.floats(max_value=0.0, allow_nan=False) | st.floats(-750.0, 0.0), max_size=80))
def test_exp_has_the_twins_bits_and_is_right(built: list[Built], values: list[float]) -> None:
    expected_values = [twin.exp(value) for value in values]
    for each in built:
        assert bits(each.computed("exp", values)) == bits(expected_values), each.name
    right = [math.exp(value) if value >= -708.0 else 0.0 for value in values]
    assert expected_values == pytest.approx(right, rel=4e-16, abs=0)


@given(st.lists(st.floats(min_value=2.3e-308, allow_infinity=False) | st.floats(0.4, 3.0)))
def test_log_has_the_twins_bits_and_is_right(built: list[Built], values: list[float]) -> None:
    expected_values = [twin.log(value) for value in values]
    for each in built:
        assert bits(each.computed("log", values)) == bits(expected_values), each.name
    right = [math.log(value) for value in values]
    assert expected_values == pytest.approx(right, rel=1e-15, abs=0)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 31) - 100), st.integers(1, 99))
def test_noise_has_the_twins_bits(built: list[Built], key: int, first: int, count: int) -> None:
    expected_values = [twin.noise(key, token) for token in range(first, first + count)]
    for each in built:
        assert bits(each.noise(key, first, count)) == bits(expected_values), each.name


def test_golden_noise(built: list[Built]) -> None:
    """Ten thousand values, by digest."""
    for case in VECTORS["noise"]:
        key = twin.key_of(bytes.fromhex(case["seed"]), case["t"])
        for each in built:
            values = each.noise(key, 0, case["ids"])
            assert [value.hex() for value in values[:4]] == case["first"], each.name
            assert doubles_digest(values) == case["digest"], each.name


@given(cases())
def test_it_draws_what_its_twin_draws(
    built: list[Built], case: tuple[list[float], twin.Drawing]
) -> None:
    agree(built, *case, expected(*case))


def test_golden_tokens(built: list[Built]) -> None:
    for case in VECTORS["drawn"]:
        sampling = msgspec.convert(case["sampling"], Sampling)
        logits = [step / LOGIT_STEPS for step in case["logits"]]
        seed = bytes.fromhex(case["seed"])
        for t, token in enumerate(case["tokens"]):
            drawing = twin.Drawing(sampling, seed, t, case["prompt"], case["answer"])
            alternatives = twin.alternatives(logits, drawing)
            if t == 0:
                assert alternatives == [tuple(one) for one in case["alternatives"]]
            agree(built, logits, drawing, (token, alternatives))


@pytest.mark.parametrize(("spread", "step"), [(0.01, 0.0), (2.0, 0.25), (8.0, 0.0)])
def test_a_large_vocabulary(built: list[Built], spread: float, step: float) -> None:
    """Not a whole number of vectors, flat and steep, with ties and without."""
    logits = logits_of(int(spread * 100), 3003, spread, step)
    for number, sampling in enumerate(
        [
            Sampling(MILLION),
            Sampling(MILLION, 900_000),
            Sampling(2 * MILLION, 10_000, top_k=300),
            Sampling(MILLION, min_p_millionths=20_000, logprobs=21),
        ]
    ):
        drawing = twin.Drawing(sampling, bytes([number]) * 32, number, [1, 2, 2], [5])
        agree(built, logits, drawing, expected(logits, drawing))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 8, 9])
def test_no_number_fails_by_code(built: list[Built], bad: float, place: int) -> None:
    logits = torch.zeros(10)
    logits[place] = bad
    for each in built:
        with pytest.raises(LocalError) as caught:
            each.samplers[0].drawn(logits, Draw(Sampling(MILLION), bytes(32), 0, [], []))
        assert caught.value.code == Code.WORKER_FAILED


def test_a_mask_of_one_forces_it_and_of_none_fails_by_code(built: list[Built]) -> None:
    only = Draw(Sampling(MILLION, logprobs=3), bytes(32), 0, [], [], allowed=bytes([0, 2]))
    none = Draw(Sampling(MILLION), bytes(32), 0, [], [], allowed=bytes(2))
    for each in built:
        token, alternatives = each.samplers[0].drawn(torch.arange(10.0), only)
        assert token == 9
        assert [(one.token, one.micrologprob) for one in alternatives] == [(9, 0), (9, 0)]
        with pytest.raises(LocalError) as caught:
            each.samplers[0].drawn(torch.zeros(10), none)
        assert "allowed" in caught.value.sentence


def test_what_no_caller_may_ask_is_refused_and_not_read(built: list[Built]) -> None:
    wrong = [
        Draw(Sampling(repetition_penalty_millionths=2 * MILLION), bytes(32), 0, [10], []),
        Draw(Sampling(frequency_penalty_millionths=MILLION), bytes(32), 0, [], [-1]),
        Draw(Sampling(logprobs=22), bytes(32), 0, [], []),
        Draw(Sampling(temperature_millionths=-1), bytes(32), 0, [], []),
    ]
    for draw in wrong:
        for each in built:
            with pytest.raises(AssertionError):
                each.samplers[0].drawn(torch.zeros(10), draw)


@pytest.mark.slow
def test_every_other_compiler_gives_the_same_bits(tmp_path: Path) -> None:
    others = compilers()[1:]
    if not others:
        pytest.skip("there is one compiler here")
    chance = random.Random(11)
    key, numbers = 1 << 63, [chance.uniform(-720.0, 0.0) for _ in range(10_000)]
    logarithms = [math.exp(number) for number in numbers if number > -700.0]
    for place, compiler in enumerate(others):
        for level in ("-O2", "-O3"):
            folder = tmp_path / f"{place}{level}"
            folder.mkdir()
            built = [compiled(folder, compiler, (level,))]
            exps, logs = built[0].computed("exp", numbers), built[0].computed("log", logarithms)
            assert bits(exps) == bits([twin.exp(number) for number in numbers])
            assert bits(logs) == bits([twin.log(number) for number in logarithms])
            noise = [twin.noise(key, token) for token in range(10_000)]
            assert bits(built[0].noise(key, 0, 10_000)) == bits(noise)
            for t in range(40):
                logits = logits_of(t, 700, chance.choice([0.1, 2.0, 9.0]), chance.choice([0, 0.5]))
                top_p = chance.choice([MILLION, 900_000, 300_000])
                sampling = Sampling(MILLION, top_p, logprobs=chance.choice([0, 21]))
                drawing = twin.Drawing(sampling, bytes(32), t, [1, 2, 2], [5])
                agree(built, logits, drawing, expected(logits, drawing))
