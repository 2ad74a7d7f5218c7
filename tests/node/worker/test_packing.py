"""Packing loses nothing where it says so, and little and the same elsewhere."""

import math
import random
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from node.worker.engine.packed_index import Q4, Q8, packed_bytes
from node.worker.engine.packing import Losses, is_lossless, packed, packed_format
from node.worker.quantised import BLOCK_FORMATS, Blocks, dequantised, row_bytes
from tests.node.worker.packed_twin import unpacked

SIZES = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q8_0": 34}
SHAPES = st.tuples(st.integers(1, 10), st.integers(1, 2))
# Small and large scales, negative ones, zero and numbers below the smallest normal float16.
SCALES = st.floats(-64, 64, width=16) | st.sampled_from([0.0, 6e-8, -3e-6, 1e-4, 0.01])


def blocks_of(format: str, rows: int, groups: int, chance: random.Random, scale: float) -> Blocks:
    """Random values under random scales about `scale`; -128 does not occur in Q8_0."""
    data = bytearray()
    for _ in range(rows * groups):
        halves = 2 if format == "Q4_1" else 1
        data += struct.pack(f"<{halves}e", *(scale * chance.uniform(0, 1) for _ in range(halves)))
        values = chance.randbytes(SIZES[format] - 2 * halves)
        data += values.replace(b"\x80", b"\x7f") if format == "Q8_0" else values
    raw = torch.frombuffer(data, dtype=torch.uint8).view(rows, -1)
    return Blocks(format, rows, 32 * groups, raw)


def packed_whole(blocks: Blocks, format: int, losses: Losses) -> bytes:
    pieces = [bytes(piece.flatten().tolist()) for piece in packed(blocks, format, losses)]
    data = b"".join(pieces)
    assert len(data) == packed_bytes(format, blocks.rows, blocks.columns)
    return data


@given(
    st.sampled_from([("Q4_0", Q4), ("Q4_1", Q4), ("Q4_0", Q8), ("Q5_0", Q8), ("Q8_0", Q8)]),
    SHAPES,
    st.randoms(use_true_random=False),
    SCALES,
)
@settings(max_examples=40)
def test_what_fits_is_the_same_number_after_packing(
    how: tuple[str, int], shape: tuple[int, int], chance: random.Random, scale: float
) -> None:
    blocks = blocks_of(how[0], *shape, chance, scale)
    losses = Losses()
    assert is_lossless(blocks, how[1])
    data = packed_whole(blocks, how[1], losses)
    assert losses.sentences() == []
    assert torch.equal(unpacked(data, how[1], blocks.rows, blocks.columns), dequantised(blocks))


def test_rows_that_fill_up_the_last_eight_are_zeros() -> None:
    blocks = blocks_of("Q4_1", 3, 2, random.Random(1), 1.0)
    data = packed_whole(blocks, Q4, Losses())
    assert torch.equal(unpacked(data, Q4, 8, 64)[3:], torch.zeros(5, 64))


@pytest.mark.parametrize(
    ("formats", "format"),
    [
        (["Q4_0", "Q4_1"], Q4),
        (["Q4_K", "Q4_K", "Q4_K"], Q4),
        (["Q4_K", "Q4_K", "Q6_K"], Q8),
        (["Q8_0"], Q8),
        (["Q5_0", "Q4_0"], Q8),
        (["BF16"], Q8),
    ],
)
def test_four_bits_are_kept_where_all_that_is_joined_has_four(
    formats: list[str], format: int
) -> None:
    assert packed_format(formats) == format


def test_minus_128_is_rounded_and_said() -> None:
    blocks = blocks_of("Q8_0", 8, 1, random.Random(2), 1.0)
    blocks.data[5, 20] = 128
    assert not is_lossless(blocks, Q8)
    losses = Losses()
    data = packed_whole(blocks, Q8, losses)
    assert torch.allclose(unpacked(data, Q8, 8, 32), dequantised(blocks), rtol=0, atol=1.0)
    assert losses.sentences()[0].startswith("Tensors of Q8_0 were rounded (1), by ")


def plain(rows: int, columns: int, seed: int, scale: float) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=chance) * scale


def float_blocks(weights: Tensor) -> Blocks:
    return Blocks("F32", *weights.shape, weights.contiguous().view(torch.uint8))


@given(st.integers(0, 1 << 30), st.sampled_from([1e-6, 1e-3, 0.02, 1.0, 3e4]))
@settings(max_examples=20)
def test_floats_are_rounded_to_the_nearest_of_255_steps(seed: int, scale: float) -> None:
    weights = plain(9, 64, seed, scale)
    losses = Losses()
    data = packed_whole(float_blocks(weights), Q8, losses)
    result = unpacked(data, Q8, 9, 64)
    scales = weights.view(9, 2, 32).abs().amax(dim=2, keepdim=True) / 127
    # Half a step, and what the scale lost when it became a float16.
    bound = (scales * 0.51 + 2.0**-24 * 127).expand(9, 2, 32).reshape(9, 64)
    assert bool(((result - weights).abs() <= bound).all())
    (loss,) = [losses.begin("F32")]
    expected = float((result - weights).double().norm() / weights.double().norm())
    assert math.isclose(loss.relative, expected, rel_tol=1e-6)


def test_the_loss_of_bell_shaped_weights_is_about_half_a_percent() -> None:
    losses = Losses()
    packed_whole(float_blocks(plain(64, 256, 3, 0.02)), Q8, losses)
    assert 0.004 < losses.begin("F32").relative < 0.008


@pytest.mark.parametrize("format", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q5_1", "F16", "BF16"])
def test_every_other_format_comes_close(format: str) -> None:
    chance = random.Random(format)
    columns = 256
    raw = bytearray(chance.randbytes(9 * row_bytes(format, columns)))
    data = torch.frombuffer(raw, dtype=torch.uint8).view(9, -1)
    if format in ("F16", "BF16"):
        numbers = plain(9, columns, 4, 0.05).to(
            getattr(torch, {"F16": "half"}.get(format, "bfloat16"))
        )
        data = numbers.view(torch.uint8)
    else:
        _mild_scales(data, format)
    blocks = Blocks(format, 9, columns, data)
    chosen = packed_format([format])
    losses = Losses()
    result = unpacked(packed_whole(blocks, chosen, losses), chosen, 9, columns)
    relative = losses.begin(format).relative
    assert relative < (0.001 if format == "Q4_K" else 0.01)
    assert torch.allclose(result, dequantised(blocks), rtol=0, atol=float(result.abs().max()) / 100)


def _mild_scales(data: Tensor, format: str) -> None:
    """Random bytes make scales that are no numbers: set them to usual ones."""
    places = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
    blocks = data.view(-1, BLOCK_FORMATS[format].size_bytes)
    for index, at in enumerate(places.get(format, (0, 2))):
        half = torch.tensor([0.003 if index == 0 else 0.01], dtype=torch.float16)
        blocks[:, at : at + 2] = half.view(torch.uint8)


@pytest.mark.parametrize("scale", [math.inf, math.nan])
def test_weights_that_are_no_numbers_are_refused(scale: float) -> None:
    blocks = blocks_of("Q8_0", 8, 1, random.Random(5), 1.0)
    blocks.data[3, :2] = torch.tensor([scale], dtype=torch.float16).view(torch.uint8)
    with pytest.raises(ValueError, match="no numbers"):
        packed_whole(blocks, Q8, Losses())


def test_floats_too_large_for_a_scale_are_refused() -> None:
    weights = plain(8, 32, 6, 1.0)
    weights[2, 3] = 1e9
    with pytest.raises(ValueError, match="too large"):
        packed_whole(float_blocks(weights), Q8, Losses())


def test_the_same_bytes_whatever_the_pieces() -> None:
    """Rows are packed some thousands at a time: what a row becomes is its own affair."""
    blocks = blocks_of("Q4_1", 40, 2, random.Random(7), 0.1)
    whole = packed_whole(blocks, Q4, Losses())
    parts = b"".join(
        packed_whole(Blocks("Q4_1", 8, 64, blocks.data[at : at + 8]), Q4, Losses())
        for at in range(0, 40, 8)
    )
    assert parts == whole
