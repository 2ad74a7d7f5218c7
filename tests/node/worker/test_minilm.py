"""A real encoder: all-MiniLM-L6-v2 from the cache, or fetched into it. Slow."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from node.config import load as load_config
from node.models.cache import ModelCache
from node.models.catalogue import load_catalogue
from node.worker.encoder_shape import encoder_shape
from node.worker.engine.rows import RowStore
from node.worker.engine.serving import Machine, open_served
from node.worker.pipe import File, Load
from node.worker.wordpiece import TextTokenizer
from tests.node.worker.test_embedding import (
    BF16,
    F32,
    MODEL,
    by_transformers,
    embedded,
    numbers,
)
from tests.pages import README

pytestmark = pytest.mark.slow


@pytest.fixture
async def files() -> Sequence[File]:
    paths, _ = load_config(None)
    cache = ModelCache(paths.models_folder, paths.config_folder)
    ready = await cache.get(load_catalogue().find("all-minilm-l6-v2"))
    return [File(file.role, file.name, str(file.path)) for file in ready.files]


def texts() -> list[str]:
    """Paragraphs, a word, and a text of which the end is not read."""
    paragraphs = [" ".join(one.split()) for one in README.split("\n\n")]
    return [*[one for one in paragraphs if one][:48], "a", "word " * 400]


async def test_vectors_agree_with_transformers_in_f32_and_in_bf16(files, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file.name).symlink_to(file.path)
    shape = encoder_shape(files)
    ids = TextTokenizer(files, shape.tokens_max, shape.vocabulary).encode(texts())
    assert max(map(len, ids)) == shape.tokens_max == 256
    expected = by_transformers(tmp_path, ids)
    for device, cosine in ((F32, 0.999999), (BF16, 0.999)):
        load = Load(MODEL, "minilm", list(files), "", "", 1, 0, 0, [])
        engine = open_served(load, Machine(device, "auto", 1), RowStore())
        found = numbers(embedded(engine, texts()))
        assert found.shape == (50, 384)
        assert (found * expected).sum(-1).min() > cosine


async def test_what_means_the_same_is_near(files) -> None:
    load = Load(MODEL, "minilm", list(files), "", "", 1, 0, 0, [])
    engine = open_served(load, Machine(F32, "auto", 1), RowStore())
    rows = numbers(embedded(engine, ["a cat sleeps", "a kitten naps", "the tax form is late"]))
    near, far = (torch.dot(rows[0], other).item() for other in rows[1:])
    assert near > 0.5 > 0.2 > far
