"""A real model: SmolLM2-135M-Instruct from the cache, or fetched into it. Slow."""

import os
from pathlib import Path

import pytest
import torch

from node.config import load
from node.models.cache import ModelCache
from node.models.catalogue import load_catalogue
from node.worker.engine.blocks import blocks_for
from node.worker.engine.device import choose
from node.worker.engine.model import Piece
from node.worker.engine.rows import RowStore
from node.worker.engine.serving import Machine, open_served
from node.worker.gguf import read_gguf
from node.worker.pipe import Add, Began, FromWorker, Load, Progress
from node.worker.tokenizer import gguf_tokenizer
from protocol.job.sampling import Sampling
from tests.node.worker.decoding import DRAW, Decoding, gguf_file
from tests.node.worker.reference_llama import reference_logits

pytestmark = pytest.mark.slow
MODEL = b"m" * 32
QUESTION = [("user", "What is the capital of France? Answer in one word.")]


@pytest.fixture
async def path() -> Path:
    """`AYNI_TEST_SMOLLM2` may name the file; else the catalogue's is taken, checked by digest."""
    named = os.environ.get("AYNI_TEST_SMOLLM2")
    if named:
        return Path(named)
    paths, _ = load(None)
    cache = ModelCache(paths.models_folder, paths.config_folder)
    ready = await cache.get(load_catalogue().find("smollm2-135m-instruct"))
    return ready.weights


async def test_it_agrees_with_the_reference(path: Path) -> None:
    ids = gguf_tokenizer(read_gguf(path)).chat(QUESTION)
    # The ids that the model's publisher gives for this chat begin so: <|im_start|> system \n You.
    assert ids[:4] == [1, 9690, 198, 2683]
    blocks = range(blocks_for(len(ids)))
    ours = Decoding(gguf_file(path)).logits(Piece(blocks, 0, ids, [DRAW])).double()
    theirs = reference_logits(path, ids)[-1:]
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("compute", ["f32", "bf16"])
async def test_it_talks_sense(path: Path, compute: str) -> None:
    load = Load(MODEL, "smollm2", gguf_file(path), "", "", 2, 512, 0, [])
    engine = open_served(load, Machine(choose("cpu", compute), "torch", 2), RowStore())
    heard: list[FromWorker] = []
    for task, messages in enumerate([QUESTION, [("user", "Name three fruits.")]]):
        add = Add(task, MODEL, b"", messages, "", [], Sampling(), bytes(32), 0, [], 24)
        engine.add(add, heard.append)
    while not engine.idle:
        engine.step(heard.append)
    assert sum(isinstance(event, Began) for event in heard) == 2
    said = [
        "".join(e.text for e in heard if isinstance(e, Progress) and e.task == t) for t in (0, 1)
    ]
    assert "Paris" in said[0]
    assert "\ufffd" not in "".join(said)
    assert any(fruit in said[1].lower() for fruit in ("banana", "apple", "orange"))
