"""A GGUF file is untrusted: read right when it is right, refused by code when it is not."""

import random
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.worker.gguf import FORMATS, read_gguf
from node.worker.gguf_weights import GgufWeights, halves_first
from node.worker.quantised import Blocks, dequantised
from protocol.errors import Code, LocalError
from tests.tiny_model import BF16, F16, F32, Q4_0, Q4_1, Q8_0, blocks, tiny_gguf, tiny_model

WHOLE = tiny_gguf()


def half(raw: bytes) -> float:
    return float(struct.unpack("<e", raw)[0])


def plain(raw: bytes, kind: int) -> list[float]:
    """The formats of ggml, one value at a time."""
    block = FORMATS[kind]
    values: list[float] = []
    for at in range(0, len(raw), block.size_bytes):
        piece = raw[at : at + block.size_bytes]
        match kind:
            case 0:
                values += struct.unpack("<f", piece)
            case 1:
                values.append(half(piece))
            case 30:
                values += struct.unpack("<f", b"\0\0" + piece)
            case 8:
                values += [half(piece[:2]) * q for q in struct.unpack("<32b", piece[2:])]
            case 2:
                q = [b & 15 for b in piece[2:]] + [b >> 4 for b in piece[2:]]
                values += [half(piece[:2]) * (each - 8) for each in q]
            case 3:
                q = [b & 15 for b in piece[4:]] + [b >> 4 for b in piece[4:]]
                values += [half(piece[:2]) * each + half(piece[2:4]) for each in q]
    return values


@pytest.mark.parametrize("kind", [F32, F16, Q4_0, Q4_1, Q8_0, BF16])
def test_each_format_gives_exactly_its_values(kind: int) -> None:
    raw = blocks(random.Random(kind), 4 * 64, kind)
    data = torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(4, -1)
    given_values = dequantised(Blocks(FORMATS[kind].name, 4, 64, data))
    assert given_values.shape == (4, 64)
    assert given_values.flatten().tolist() == pytest.approx(plain(raw, kind), rel=1e-6, abs=1e-9)


def test_rows_are_put_back_in_order() -> None:
    heads, head, columns = 3, 8, 2
    original = torch.arange(heads * head * columns).reshape(heads * head, columns)
    # What the conversion to GGUF does: the two halves of each head are interleaved.
    permuted = original.reshape(heads, 2, head // 2, columns).transpose(1, 2)
    assert torch.equal(halves_first(permuted.reshape(-1, columns), heads), original)


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    gguf = read_gguf(tiny_model(tmp_path / "tiny.gguf"))
    assert gguf.text("general.architecture") == "llama"
    assert gguf.number("llama.rope.freq_base") == 10000.0
    with GgufWeights(gguf) as weights:
        assert weights.tensor("blk.1.attn_k.weight", (32, 64)).shape == (32, 64)
        with pytest.raises(LocalError, match="BAD_MODEL"):
            weights.tensor("blk.1.attn_k.weight", (64, 32))
        with pytest.raises(LocalError, match="no tensor"):
            weights.tensor("blk.9.attn_k.weight", (32, 64))
        blocks = weights.blocks("blk.1.attn_k.weight", 32, 64)
        assert torch.equal(dequantised(blocks), weights.tensor("blk.1.attn_k.weight", (32, 64)))


def code_of(path: Path, data: bytes) -> Code | None:
    path.write_bytes(data)
    try:
        gguf = read_gguf(path)
        with GgufWeights(gguf) as weights:
            for name, info in gguf.tensors.items():
                weights.tensor(name, info.shape)
    except LocalError as error:
        return error.code
    return None


@given(st.integers(0, len(WHOLE) - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, size: int) -> None:
    assert code_of(tmp_path / "cut.gguf", WHOLE[:size]) == Code.BAD_MODEL


@given(st.integers(0, 9000), st.binary(min_size=1, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_a_changed_header_is_read_or_refused(tmp_path: Path, at: int, junk: bytes) -> None:
    data = WHOLE[:at] + junk + WHOLE[at + len(junk) :]
    assert code_of(tmp_path / "junk.gguf", data) in (None, Code.BAD_MODEL)


@pytest.mark.parametrize(
    ("tensors", "keys"), [(1 << 62, 0), (0, 1 << 62), ((1 << 64) - 1, (1 << 64) - 1)]
)
def test_a_huge_count_is_refused_at_once(tmp_path: Path, tensors: int, keys: int) -> None:
    data = b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + bytes(64)
    assert code_of(tmp_path / "huge.gguf", data) == Code.BAD_MODEL


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="NOT_FOUND"):
        read_gguf(tmp_path / "none.gguf")
