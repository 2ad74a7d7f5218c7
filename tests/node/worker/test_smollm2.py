"""A real model: SmolLM2-135M-Instruct from the cache, or fetched into it. Slow."""

import os
from pathlib import Path

import pytest
import torch

from node.config import load
from node.models.cache import ModelCache
from node.models.catalogue import load_catalogue
from node.worker.engine.architectures.llama import Llama, shape_of
from node.worker.engine.device import choose
from node.worker.engine.engine import Engine
from node.worker.engine.model import Draw, Piece
from node.worker.gguf import read_gguf
from node.worker.pipe import Add, Began, FromWorker, Load, Progress
from node.worker.tokenizer import ModelTokenizer
from node.worker.weights import Weights
from protocol.job.sampling import Sampling
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
    gguf = read_gguf(path)
    ids = ModelTokenizer(gguf).chat(QUESTION)
    # The ids that the model's publisher gives for this chat begin so: <|im_start|> system \n You.
    assert ids[:4] == [1, 9690, 198, 2683]
    draw = Draw(Sampling(), bytes(32), 0, [], [])
    with torch.inference_mode(), Weights(gguf) as weights:
        model = Llama(weights, shape_of(gguf), choose("cpu", "f32"), 1, 256)
        ours = model.logits(model.hidden([Piece(0, 0, ids, draw)])).double()
    theirs = reference_logits(path, ids)[-1:]
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("compute", ["f32", "bf16"])
async def test_it_talks_sense(path: Path, compute: str) -> None:
    engine = Engine(Load(MODEL, "smollm2", str(path), "", 2, 512), choose("cpu", compute))
    heard: list[FromWorker] = []
    for task, messages in enumerate([QUESTION, [("user", "Name three fruits.")]]):
        engine.add(
            Add(task, MODEL, messages, "", [], Sampling(), bytes(32), 0, [], 24), heard.append
        )
    while not engine.idle:
        engine.step(heard.append)
    assert sum(isinstance(event, Began) for event in heard) == 2
    said = [
        "".join(e.text for e in heard if isinstance(e, Progress) and e.task == t) for t in (0, 1)
    ]
    assert "Paris" in said[0]
    assert "\ufffd" not in "".join(said)
    assert any(fruit in said[1].lower() for fruit in ("banana", "apple", "orange"))
