"""The engine against a plain reference: alone or beside others, whole or in parts."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from node.worker.engine.architectures.llama import Llama, shape_of
from node.worker.engine.device import choose
from node.worker.engine.model import Draw, Piece
from node.worker.engine.torch_model import TorchModel
from node.worker.gguf import read_gguf
from node.worker.weights import Weights
from protocol.errors import Code, LocalError
from protocol.job.sampling import Sampling
from tests.node.worker.reference_llama import reference_logits
from tests.tiny_model import BF16, F16, Q4_0, Q4_1, Q8_0, TinyShape, tiny_gguf, tiny_model

CPU = choose("cpu", "f32")
DRAW = Draw(Sampling(), bytes(32), 0, [], [])
IDS = [(7 * n) % 260 for n in range(50)]


def llama(path: Path, slots: int = 3) -> Llama:
    gguf = read_gguf(path)
    with torch.inference_mode(), Weights(gguf) as weights:
        return Llama(weights, shape_of(gguf), CPU, slots, 128)


def logits(model: Llama, pieces: Sequence[Piece]) -> Tensor:
    with torch.inference_mode():
        return model.logits(model.hidden(pieces))


def close(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [F16, BF16, Q4_0, Q4_1, Q8_0])
@pytest.mark.parametrize("tied", [True, False])
def test_it_computes_what_the_reference_does(tmp_path: Path, kind: int, tied: bool) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_gguf(3, kind, TinyShape(tied=tied)))
    ours = logits(llama(path), [Piece(0, 0, IDS, DRAW)])
    theirs = reference_logits(path, IDS)[-1:]
    assert close(ours, theirs)
    # The comparison can fail: another prompt gives something else.
    assert not close(ours, reference_logits(path, IDS[1:])[-1:])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("llama") / "tiny.gguf")


@pytest.mark.parametrize("cuts", [[49], [1, 2, 3], [32], [10, 40]])
def test_a_prompt_in_parts_is_the_same_prompt(path: Path, cuts: list[int]) -> None:
    model = llama(path)
    for start, end in zip([0, *cuts], [*cuts, len(IDS)], strict=True):
        last = logits(model, [Piece(1, start, IDS[start:end], DRAW)])
    assert close(last, reference_logits(path, IDS)[-1:])


def test_sequences_side_by_side_do_not_touch(path: Path) -> None:
    """One answers, one reads a prompt in parts, one begins in a slot that was used before."""
    model, expected = llama(path), reference_logits(path, IDS)
    other = reference_logits(path, IDS[::-1])
    logits(model, [Piece(2, 0, [9, 9, 9, 9], DRAW), Piece(0, 0, IDS[:20], None)])
    logits(model, [Piece(0, 20, IDS[20:30], None), Piece(2, 0, IDS[::-1][:5], None)])
    for n in range(10):
        both = logits(
            model,
            [
                Piece(0, 30 + n, [IDS[30 + n]], DRAW),
                Piece(1, 4 * n, IDS[4 * n : 4 * n + 4], None),
                Piece(2, 5 + n, [IDS[::-1][5 + n]], DRAW),
            ],
        )
        assert close(both[0], expected[30 + n])
        assert close(both[1], other[5 + n])
    assert close(logits(model, [Piece(1, 40, IDS[40:], DRAW)]), expected[-1:])


def test_many_rows_at_once(path: Path) -> None:
    model, expected = llama(path, slots=6), reference_logits(path, IDS)
    pieces = [Piece(slot, 0, IDS[: 10 + slot], DRAW) for slot in range(6)]
    assert close(logits(model, pieces), expected[9:15])


def test_half_numbers_stay_near(path: Path) -> None:
    gguf, device = read_gguf(path), choose("cpu", "bf16")
    with torch.inference_mode(), Weights(gguf) as weights:
        model = Llama(weights, shape_of(gguf), device, 1, 128)
    ours = logits(model, [Piece(0, 0, IDS, DRAW)]).double()
    theirs = reference_logits(path, IDS)[-1:]
    assert float((ours - theirs).abs().sum() / theirs.abs().sum()) < 0.03


def test_a_sequence_that_breaks_does_so_alone(tmp_path: Path) -> None:
    """A token whose row in the file is not a number: only who says it suffers."""
    data = bytearray(tiny_gguf(1, F16, TinyShape(tied=False)))
    (tmp_path / "bad.gguf").write_bytes(data)
    info = read_gguf(tmp_path / "bad.gguf").tensors["token_embd.weight"]
    row = info.offset + 200 * 64 * 2
    data[row : row + 2] = b"\x00\x7e"
    (tmp_path / "bad.gguf").write_bytes(data)
    model = TorchModel(read_gguf(tmp_path / "bad.gguf"), CPU, 2, 128)
    first, second = model.step([Piece(0, 0, [5, 200], DRAW), Piece(1, 0, [5, 6], DRAW)])
    assert isinstance(first, LocalError)
    assert isinstance(second, int)


def test_it_times_itself(path: Path) -> None:
    for context in (0, 8, 1):
        rates = TorchModel(read_gguf(path), CPU, 1, context).measure()
        assert rates.prefill > 0
        assert rates.decode > 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"general.architecture": "mamba"}, "mamba"),
        ({"llama.attention.head_count_kv": 3}, "fit"),
        ({"llama.embedding_length": 128}, "shape|needed"),
        ({"llama.block_count": 3}, "no tensor"),
        ({"llama.block_count": 0}, "fit"),
        ({"llama.context_length": 0}, "fit"),
        ({"llama.attention.head_count": 0}, "fit"),
        ({"llama.expert_count": 8}, "experts"),
        ({"llama.rope.scaling.type": "yarn"}, "scaling"),
        ({"llama.attention.layer_norm_rms_epsilon": None}, "epsilon"),
    ],
)
def test_what_it_cannot_run_is_refused(
    tmp_path: Path, change: dict[str, object], word: str
) -> None:
    file = tmp_path / "odd.gguf"
    file.write_bytes(tiny_gguf(changes=change))
    with pytest.raises(LocalError, match=word) as caught:
        TorchModel(read_gguf(file), CPU, 1, 64)
    assert caught.value.code == Code.BAD_MODEL


def test_devices_that_are_not_here_are_refused() -> None:
    for device, compute in (("tpu", "auto"), ("cpu", "int4"), ("cuda:77", "auto")):
        with pytest.raises(LocalError, match="BAD_CONFIG"):
            choose(device, compute)
