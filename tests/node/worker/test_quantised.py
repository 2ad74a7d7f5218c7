"""Each format stands for exactly the values that llama.cpp's own Python gives it."""

import gguf
import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from node.worker.quantised import BLOCK_FORMATS, Blocks, dequantised, row_bytes

# Where the float16 scales of each format stand in its blocks.
SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82),
    "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip
QUANTISED = st.sampled_from(sorted(SCALES))


def random_rows(name: str, rows: int, blocks: int, seed: int) -> NDArray[numpy.uint8]:
    """Any bytes but for the scales, which are numbers."""
    chance, size = numpy.random.default_rng(seed), BLOCK_FORMATS[name].size_bytes
    raw = chance.integers(0, 256, (rows, blocks, size), dtype=numpy.uint8)
    for at in SCALES[name]:
        scales = chance.normal(size=(rows, blocks, 1)).astype(numpy.float16)
        raw[:, :, at : at + 2] = scales.view(numpy.uint8)
    return raw.reshape(rows, -1)


@given(QUANTISED, st.integers(1, 5), st.integers(1, 3), st.integers(0, 1 << 32))
def test_blocks_are_what_llama_cpp_says(name: str, rows: int, blocks: int, seed: int) -> None:
    raw = random_rows(name, rows, blocks, seed)
    columns = blocks * BLOCK_FORMATS[name].values
    assert raw.shape[1] == row_bytes(name, columns)
    ours = dequantised(Blocks(name, rows, columns, torch.from_numpy(raw.copy())))
    theirs = gguf.dequantize(raw, gguf.GGMLQuantizationType[name])
    assert torch.equal(ours, torch.from_numpy(theirs))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_plain_numbers_stay_as_they_are(name: str) -> None:
    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[name]
    values = torch.linspace(-3, 3, 6 * 8).reshape(6, 8).to(kind)
    blocks = Blocks(name, 6, 8, values.view(torch.uint8))
    assert torch.equal(dequantised(blocks), values.float())
    assert torch.equal(dequantised(blocks, torch.bfloat16), values.bfloat16())


@pytest.mark.parametrize("name", sorted(SCALES))
def test_many_rows_come_in_turns_and_are_rounded_once(name: str) -> None:
    """More values than are worked on at once."""
    columns = 16 * 256
    raw = torch.from_numpy(random_rows(name, 3, columns // BLOCK_FORMATS[name].values, 7))
    few = dequantised(Blocks(name, 3, columns, raw))
    many = dequantised(Blocks(name, 1500, columns, raw.repeat(500, 1)), torch.bfloat16)
    assert torch.equal(many, few.bfloat16().repeat(500, 1))
