"""The torch engine on a GPU, where there is one: as on the CPU, and its graphs as without them."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from node.worker.engine.architectures.fixed_decode import FixedDecode, captured
from node.worker.engine.device import Device, choose
from node.worker.engine.model import Draw, Piece, Token
from node.worker.engine.torch_model import TorchModel
from node.worker.weights import open_weights
from protocol.job.sampling import Sampling
from tests.node.worker import tiny_families
from tests.node.worker.decoding import DRAW, Decoding, gguf_file
from tests.node.worker.tiny_families import FAMILIES
from tests.tiny_model import tiny_model

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no GPU of CUDA or ROCm on this machine"
)
IDS = [(7 * n * n + 3 * n) % 96 for n in range(90)]
TABLES: Sequence[Sequence[int]] = ([9, 4, 11], [8, 7], [20])


def device(compute: str) -> Device:
    return choose("cuda", compute)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_computes_what_the_cpu_does(tmp_path: Path, name: str) -> None:
    files = tiny_families.save(tmp_path / "tiny", FAMILIES[name])
    expected = Decoding(files).logits(Piece([0, 1, 2], 0, IDS, [DRAW] * 90))
    model = Decoding(files, device=device("f32"), together=True)
    model.logits(*(Piece(t, 0, IDS[: 60 - 30 * n], []) for n, t in enumerate(TABLES[:2])))
    fixed = FixedDecode(model.decoder, device("f32").torch_device, 23, captured)
    for at in range(10):
        pieces = [
            Piece(table, place + at, [IDS[place + at]], [DRAW])
            for table, place in zip(TABLES, (60, 30, 0), strict=True)
        ]
        wanted = expected[[60 + at, 30 + at, at]]
        assert torch.allclose(model.logits(*pieces), wanted, rtol=1e-3, atol=1e-3)
        with torch.inference_mode():
            _, logits = fixed.step(pieces)
        assert torch.allclose(logits.cpu(), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("compute", ["f32", "bf16"])
def test_a_model_answers(tmp_path: Path, compute: str) -> None:
    path = tiny_model(tmp_path / "tiny.gguf")
    with open_weights(gguf_file(path)) as weights:
        model = TorchModel(weights, device(compute), 8, 128)
    assert model.engine == f"torch ({compute}, graphs)"
    warm = Draw(Sampling(temperature_millionths=10**6), b"s" * 32, 0, [], [])
    (first,) = model.step([Piece([3, 5], 0, IDS[:40], [warm])])
    assert isinstance(first[0], Token)
    (second,) = model.step([Piece([3, 5], 40, [first[0].id], [warm])])
    assert isinstance(second[0], Token)
    assert len(second[0].row) == 2 * model.width
    assert model.measure().decode > 0
