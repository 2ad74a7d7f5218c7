"""Files that lie are refused in words, by code, in bounded memory and time, and nobody else falls.

Each goes the whole way: header, shape, tokenizer, and both engines, which a file whose lie does no
harm may pass; then it must write a token.
"""

import json
import random
import resource
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import pytest

from node.worker.engine.device import choose
from node.worker.engine.engine import Engine
from node.worker.engine.rows import RowStore
from node.worker.engine.serving import Machine, open_served
from node.worker.pipe import Add, File, Load
from protocol.errors import Code, LocalError
from protocol.ids import ModelId
from protocol.job.sampling import Sampling
from tests.node.worker.malformed import (
    lying_keys,
    mutated,
    mutated_json,
    tiny_header_bytes,
)
from tests.node.worker.tiny_families import FAMILIES, save
from tests.node.worker.tiny_tokenizer import SAID, byte_level, write_tokenizer
from tests.tiny_model import tiny_gguf

MODEL = ModelId(bytes(32))
CPU = choose("cpu", "f32")
MEMORY_BYTES_MAX = 256 << 20
REFUSALS = (Code.BAD_MODEL, Code.UNAVAILABLE)


def tried(files: list[File], engine: str) -> str:
    """The refusal's sentence, or "" for a model that opened and wrote."""
    load = Load(MODEL, "tiny", files, "", "", 1, 64, MEMORY_BYTES_MAX, [])
    refusal: LocalError | None = None
    try:
        served = open_served(load, Machine(CPU, engine, 1), RowStore())
    except LocalError as error:
        refusal = error
    if refusal is not None:
        assert refusal.code in REFUSALS, refusal.sentence
        assert len(refusal.sentence) < 600
        return refusal.sentence
    assert isinstance(served, Engine)
    told: list[object] = []
    add = Add(1, MODEL, b"", [], "in the", [], Sampling(), bytes(32), 0, [], 2)
    # Weights that are none give numbers that are none, and a lie may leave no token or no room for
    # the prompt: that job fails, and no other.
    with suppress(LocalError):
        served.add(add, told.append)
        while not served.idle:
            served.step(told.append)
    return ""


def gguf(folder: Path, data: bytes) -> list[File]:
    path = folder / "odd.gguf"
    path.write_bytes(data)
    return [File("weights", path.name, str(path))]


def chance_of(*parts: object) -> random.Random:
    return random.Random(blake2b(repr(parts).encode()).digest())


def try_mutations(folder: Path, seeds: range) -> int:
    """How many were refused."""
    whole = tiny_gguf()
    header = tiny_header_bytes(whole)
    refused = 0
    for seed in seeds:
        chance = chance_of("gguf", seed)
        data = mutated(whole, chance, header)
        refused += bool(tried(gguf(folder, data), chance.choice(("auto", "torch"))))
    return refused


def try_folders(folder: Path, seeds: range) -> int:
    """The same for safetensors, config.json and tokenizer.json."""
    config = FAMILIES["llama"] | {"vocab_size": 280, "num_hidden_layers": 1}
    files = [*save(folder, config), *write_tokenizer(folder, byte_level(), said=SAID)]
    names = ("config.json", "tokenizer.json", "tokenizer_config.json")
    texts = {name: json.loads((folder / name).read_text()) for name in names}
    weights = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + size])
    refused = 0
    for seed in seeds:
        chance = chance_of("folder", seed)
        name = chance.choice((*names, "model.safetensors"))
        if name in texts:
            (folder / name).write_text(json.dumps(mutated_json(texts[name], chance)))
        else:
            head = json.dumps(mutated_json(header, chance)).encode()
            data = len(head).to_bytes(8, "little") + head + weights[8 + size :]
            if chance.randrange(2):
                data = mutated(weights, chance, 8 + size)
            (folder / name).write_bytes(data)
        refused += bool(tried(files, chance.choice(("auto", "torch"))))
        for each in texts:
            (folder / each).write_text(json.dumps(texts[each]))
        (folder / "model.safetensors").write_bytes(weights)
    return refused


def test_headers_that_were_changed(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert try_mutations(tmp_path, range(40)) > 10
    assert try_folders(tmp_path / "folder", range(40)) > 10
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < 2 * MEMORY_BYTES_MAX


@pytest.mark.slow
def test_very_many_headers_that_were_changed(tmp_path: Path) -> None:
    assert try_mutations(tmp_path, range(1000, 3000)) > 500
    assert try_folders(tmp_path / "folder", range(1000, 3000)) > 500


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_every_key_with_every_odd_value(tmp_path: Path, engine: str) -> None:
    refused = sum(
        bool(tried(gguf(tmp_path, tiny_gguf(changes=changes)), engine)) for changes in lying_keys()
    )
    assert refused > 100


@pytest.mark.parametrize(
    "changes",
    [
        {"llama.attention.head_count": 0},
        {"llama.block_count": 0},
        {"llama.block_count": (1 << 32) - 1},
        {"llama.embedding_length": 0},
        {"llama.rope.freq_base": float("nan")},
        {"llama.rope.freq_base": float("inf")},
        {"llama.attention.layer_norm_rms_epsilon": float("nan")},
        {"llama.attention.layer_norm_rms_epsilon": -1.0},
        {"llama.context_length": 0},
        {"tokenizer.ggml.tokens": ["a", "b"]},
        {"tokenizer.ggml.token_type": [1.5, 2.5]},
    ],
)
@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_a_header_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, object], engine: str
) -> None:
    assert "cannot be used" in tried(gguf(tmp_path, tiny_gguf(changes=changes)), engine)
