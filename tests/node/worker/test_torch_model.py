"""The torch engine against a plain reference: alone or beside others, whole or in parts."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from node.worker.engine.device import choose
from node.worker.engine.model import BLOCK_TOKENS, Draw, Piece, Token
from node.worker.engine.torch_model import TorchModel, need_of
from node.worker.gguf import read_gguf
from node.worker.gguf_shape import shape_of
from node.worker.weights import open_weights
from protocol.errors import Code, LocalError
from protocol.job.sampling import Sampling
from tests.node.worker import tiny_families
from tests.node.worker.decoding import CPU, DRAW, Decoding, gguf_file
from tests.node.worker.reference_llama import reference_logits
from tests.node.worker.tiny_families import FAMILIES
from tests.tiny_model import BF16, F16, MIXED, Q4_0, Q4_1, Q8_0, TinyShape, tiny_gguf, tiny_model

IDS = [(7 * n) % 260 for n in range(90)]
WARM = Draw(Sampling(temperature_millionths=10**6), b"s" * 32, 0, [], [])


def torch_model(path: Path, blocks: int = 8, context_tokens: int = 128) -> TorchModel:
    with open_weights(gguf_file(path)) as weights:
        return TorchModel(weights, CPU, blocks, context_tokens)


def close(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [F16, BF16, Q4_0, Q4_1, Q8_0])
@pytest.mark.parametrize("tied", [True, False])
def test_it_computes_what_the_reference_does(tmp_path: Path, kind: int, tied: bool) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_gguf(3, kind, TinyShape(tied=tied)))
    ours = Decoding(gguf_file(path)).logits(Piece([2, 0], 0, IDS[:50], [DRAW]))
    theirs = reference_logits(path, IDS[:50])[-1:]
    assert close(ours, theirs)
    # The comparison can fail: another prompt gives something else.
    assert not close(ours, reference_logits(path, IDS[1:50])[-1:])


@pytest.mark.parametrize("kind", MIXED)
def test_it_runs_every_format(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "tiny.gguf"
    shape = TinyShape(layers=1, width=256, inner_width=256, tied=False)
    path.write_bytes(tiny_gguf(4, kind, shape))
    ours = Decoding(gguf_file(path)).logits(Piece([0], 0, IDS[:20], [DRAW]))
    assert float(ours.std()) > 0.1
    assert close(ours, reference_logits(path, IDS[:20])[-1:])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("torch_model") / "tiny.gguf")


@pytest.fixture(scope="module")
def decoding(path: Path) -> Decoding:
    return Decoding(gguf_file(path))


@pytest.fixture(scope="module")
def expected(path: Path) -> Tensor:
    return reference_logits(path, IDS)


@given(
    st.lists(st.integers(1, 89), unique=True).map(sorted),
    st.permutations(range(24)),
    st.integers(0, 3),
)
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40, deadline=None)
def test_any_parts_in_any_blocks_beside_others(
    decoding: Decoding, expected: Tensor, cuts: list[int], order: Sequence[int], others: int
) -> None:
    """A prompt in parts, in blocks in any order; others are at another place in theirs."""
    blocks, rest = order[:3], order[3:]
    for start, end in zip([0, *cuts], [*cuts, len(IDS)], strict=True):
        pieces = [Piece(blocks, start, IDS[start:end], [DRAW])]
        for other in range(others):
            mine = rest[4 * other : 4 * other + 4]
            pieces.insert(0, Piece(mine, start, IDS[::-1][start:end], [DRAW] if other else []))
        logits = decoding.logits(*pieces)
        assert close(logits[-1], expected[end - 1])


def test_every_place_can_be_drawn_after(decoding: Decoding, expected: Tensor) -> None:
    logits = decoding.logits(
        Piece([0, 1, 2], 0, IDS[:50], [DRAW] * 7), Piece([5], 0, IDS[:9], [DRAW] * 2)
    )
    assert close(logits, torch.cat((expected[43:50], expected[7:9])))


def test_half_numbers_stay_near(path: Path, expected: Tensor) -> None:
    model = Decoding(gguf_file(path), device=choose("cpu", "bf16"))
    ours = model.logits(Piece([3, 1, 2], 0, IDS, [DRAW])).double()
    assert float((ours - expected[-1]).abs().sum() / expected[-1].abs().sum()) < 0.03


def test_a_step_gives_each_piece_its_tokens_and_their_rows(path: Path, expected: Tensor) -> None:
    model = torch_model(path)
    assert model.step([Piece([1], 0, IDS[:20], [])]) == [[]]
    none, some = model.step(
        [Piece([2, 3], 0, IDS[:30], []), Piece([1], 20, IDS[20:24], [DRAW, DRAW, DRAW])]
    )
    assert none == []
    for place, token in zip((21, 22, 23), some, strict=True):
        assert isinstance(token, Token)
        assert token.id == int(expected[place].argmax())
        row = torch.frombuffer(bytearray(token.row), dtype=torch.bfloat16).double()
        assert row.shape == (model.width,)
        # The head of this model is its embedding: the row gives the logits again.
        with open_weights(gguf_file(path)) as weights:
            head = weights.tensor("token_embd.weight", (model.vocabulary, model.width)).double()
        again = head @ row
        assert float((again - expected[place]).abs().max()) < 0.03 * float(expected.abs().max())
    assert not model.is_exact
    assert (model.mode, model.engine, model.blocks) == ("cpu-f32/gguf", "torch (f32)", 8)


def test_a_sequence_that_breaks_does_so_alone(tmp_path: Path) -> None:
    """A token whose row in the file is not a number: only who says it suffers; and
    who has its blocks later does not."""
    data = bytearray(tiny_gguf(1, F16, TinyShape(tied=False)))
    (tmp_path / "bad.gguf").write_bytes(data)
    info = read_gguf(tmp_path / "bad.gguf").tensors["token_embd.weight"]
    row = info.offset + 200 * 64 * 2
    data[row : row + 2] = b"\x00\x7e"
    (tmp_path / "bad.gguf").write_bytes(data)
    model = torch_model(tmp_path / "bad.gguf")
    first, second = model.step(
        [Piece([0], 0, [5, 200, 6], [DRAW, WARM, WARM]), Piece([1], 0, [5, 6], [DRAW])]
    )
    assert [isinstance(each, LocalError) for each in first[1:]] == [True, True]
    assert isinstance(second[0], Token)
    (after,) = model.step([Piece([0], 0, [5, 6], [DRAW])])
    assert after == second


def test_it_times_itself(path: Path) -> None:
    for context in (128, 8, 1):
        rates = torch_model(path, context_tokens=context).measure()
        assert rates.prefill > 0
        assert rates.decode > 0


def test_what_it_needs_is_known_before(path: Path) -> None:
    shape = shape_of(read_gguf(path))
    for compute, size in (("f32", 4), ("bf16", 2)):
        need = need_of(shape, choose("cpu", compute))
        assert need.block == 2 * 2 * 32 * BLOCK_TOKENS * size
        layer = 64 * (64 + 32 + 32 + 64 + 3 * 96)
        embedding = shape.vocabulary * 64
        assert need.fixed == size * (2 * layer + embedding + max(embedding, 2 * 64 * 96))


def test_a_mode_names_its_weights(tmp_path: Path) -> None:
    files = tiny_families.save(tmp_path / "tiny", FAMILIES["qwen3"])
    with open_weights(files) as weights:
        model = TorchModel(weights, choose("cpu", "bf16"), 4, 64)
    assert (model.mode, model.engine) == ("cpu-bf16/safetensors", "torch (bf16)")
    (tokens,) = model.step([Piece([0], 0, [1, 2, 3], [DRAW])])
    assert isinstance(tokens[0], Token)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"llama.embedding_length": 128}, "needed"),
        ({"llama.block_count": 3}, "no tensor"),
        ({"llama.feed_forward_length": 95}, "needed"),
    ],
)
def test_weights_that_do_not_fit_their_header_are_refused(
    tmp_path: Path, change: dict[str, object], word: str
) -> None:
    file = tmp_path / "odd.gguf"
    file.write_bytes(tiny_gguf(changes=change))
    with pytest.raises(LocalError, match=word) as caught:
        torch_model(file)
    assert caught.value.code == Code.BAD_MODEL


def test_devices_that_are_not_here_are_refused() -> None:
    for device, compute in (("tpu", "auto"), ("cpu", "int4"), ("cuda:77", "auto")):
        with pytest.raises(LocalError, match="BAD_CONFIG"):
            choose(device, compute)
