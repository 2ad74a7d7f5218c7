"""The native engine on a real model: as good as float32, the same bits however it runs. Slow."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from node.config import load as load_config
from node.models.cache import ModelCache
from node.models.catalogue import load_catalogue
from node.worker.engine.blocks import blocks_for
from node.worker.engine.model import Piece
from node.worker.engine.native_model import NativeModel
from node.worker.engine.packed_model import MemorySink, PackedModel, pack_model, packed_model_bytes
from node.worker.engine.room import Room
from node.worker.gguf import read_gguf
from node.worker.tokenizer import gguf_tokenizer
from node.worker.weights import open_weights
from tests.node.worker.decoding import Decoding, gguf_file
from tests.node.worker.native_case import GREEDY, kernels, same_bits
from tests.pages import ROOT

pytestmark = pytest.mark.slow
WINDOW_TOKENS = 256  # What the decoder of the tests holds.
TOKENS = 2048


@pytest.fixture
async def path() -> Path:
    """`AYNI_TEST_SMOLLM2` may name the file; else the catalogue's is taken, checked by digest."""
    named = os.environ.get("AYNI_TEST_SMOLLM2")
    if named:
        return Path(named)
    paths, _ = load_config(None)
    cache = ModelCache(paths.models_folder, paths.config_folder)
    ready = await cache.get(load_catalogue().find("smollm2-135m-instruct"))
    return ready.weights


def opened(path: Path, threads: int, number: int | None = None) -> NativeModel:
    with open_weights(gguf_file(path)) as weights:
        sink = MemorySink(packed_model_bytes(weights))
        packed = PackedModel(pack_model(weights, sink), sink.data)
    chosen = kernels().paths()[0][0] if number is None else number
    return NativeModel(packed, kernels(), Room(64, 2048, ""), threads, chosen)


def windows(path: Path) -> Iterator[list[int]]:
    """Text that a model has not learned by heart: half of a licence, half of our own page."""
    tokenizer = gguf_tokenizer(read_gguf(path))
    half = TOKENS // 2
    for name in ("LICENSE", "README.md"):
        ids = tokenizer.text((ROOT / name).read_text())
        assert len(ids) >= half
        for start in range(0, half, WINDOW_TOKENS):
            yield ids[start : start + WINDOW_TOKENS]


def piece(ids: list[int]) -> Piece:
    return Piece(range(blocks_for(len(ids))), 0, ids, [GREEDY] * len(ids))


async def test_it_is_close_to_float32(path: Path) -> None:
    """The bounds of the specification: KL 0.01 in the mean, 95 % of the first choices the same."""
    model = opened(path, 1)
    assert model.mode == "native-1/gguf"
    exactly = Decoding(gguf_file(path))
    divergence, agreed, count = 0.0, 0, 0
    for ids in windows(path):
        exact, ours = exactly.logits(piece(ids)), model.logits([piece(ids)])
        p, q = torch.log_softmax(exact, -1), torch.log_softmax(ours, -1)
        divergence += float((p.exp() * (p - q)).sum(-1).double().sum())
        agreed += int((exact.argmax(-1) == ours.argmax(-1)).sum())
        count += len(ids)
    print(f"KL {divergence / count:.5f}, same first choice {agreed / count:.2%} of {count}")
    assert count >= 2000
    assert divergence / count <= 0.01
    assert agreed / count >= 0.95


async def test_a_real_model_gives_the_same_bits_on_every_path_thread_and_chunk(path: Path) -> None:
    ids = next(windows(path))[:70]
    expected = opened(path, 1).logits([piece(ids)])
    for number, name in kernels().paths():
        model = opened(path, 2, number)
        parts = []
        for start, end in ((0, 1), (1, 34), (34, 67), (67, 70)):
            chunk = ids[start:end]
            parts.append(model.logits([Piece(range(3), start, chunk, [GREEDY] * len(chunk))]))
        assert same_bits(torch.cat(parts), expected), name
