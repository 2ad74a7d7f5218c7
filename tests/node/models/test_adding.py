"""From files that a person has to an entry of the catalogue, or a sentence that says why not."""

import hashlib
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.models.adding import Wanted, add, described
from node.models.cache import ModelCache
from node.models.catalogue import Model, load_catalogue, model_id
from node.models.headers import FAMILIES, check_safetensors, config_facts, gguf_facts
from node.worker import encoder_shape, gguf_shape
from protocol.errors import Code, LocalError
from tests.node.models.hub_fake import COMMIT, REPOSITORY, cached
from tests.tiny_model import tiny_gguf

HEADER = tiny_gguf(1)[:4000]
CONFIG = {"model_type": "llama", "max_position_embeddings": 2048}


def safetensors(dtype: str = "BF16") -> bytes:
    head = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "w": {"dtype": dtype, "shape": [2], "data_offsets": [0, 4]},
        }
    ).encode()
    return struct.pack("<Q", len(head)) + head + bytes(4)


def parts(**changes: bytes | None) -> dict[str, bytes]:
    """The files of a model; a `__` in a name is a dot."""
    files: dict[str, bytes | None] = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": safetensors(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
        "README.md": b"---\nlicense: apache-2.0\n---\nA model.",
    }
    files |= {name.replace("__", "."): data for name, data in changes.items()}
    return {name: data for name, data in files.items() if data is not None}


def folder_of(tmp_path: Path, files: dict[str, bytes]) -> Path:
    folder = tmp_path / "Quinoa 1B"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def entry(place: Path | str, tmp_path: Path, **wanted: str) -> Model:
    asked = Wanted(str(place), **wanted)
    return described(asked, tmp_path / "hub", tmp_path / "records", lambda done: None)


def refused(place: Path | str, tmp_path: Path, code: Code = Code.BAD_MODEL) -> str:
    with pytest.raises(LocalError) as caught:
        entry(place, tmp_path)
    assert caught.value.code == code
    return caught.value.sentence


def roles(model: Model) -> list[tuple[str, str]]:
    return [(file.role, file.name) for file in model.files]


def test_a_gguf(tmp_path: Path) -> None:
    file = tmp_path / "Tiny Model.gguf"
    file.write_bytes(tiny_gguf(1))
    with pytest.raises(LocalError, match="No entry can be made"):
        entry(file, tmp_path)
    file = file.rename(tmp_path / "Tiny-Model.gguf")
    model = entry(file, tmp_path, licence="MIT")
    assert (model.name, model.licence) == ("tiny-model", "MIT")
    assert roles(model) == [("weights", "Tiny-Model.gguf")]
    assert model.context_tokens == gguf_facts(file).context_tokens > 0
    digest = hashlib.sha256(file.read_bytes()).digest()
    assert model.model_id == model_id([("weights", digest)])


def test_a_folder_of_safetensors(tmp_path: Path) -> None:
    model = entry(folder_of(tmp_path, parts()), tmp_path)
    assert (model.name, model.licence, model.context_tokens) == ("quinoa-1b", "apache-2.0", 2048)
    assert roles(model) == [
        ("weights", "model.safetensors"),
        ("tokenizer", "tokenizer.json"),
        ("config", "config.json"),
        ("template", "tokenizer_config.json"),
    ]


def test_another_config_is_another_model(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, parts())
    before = entry(folder, tmp_path).model_id
    (folder / "config.json").write_text(json.dumps({**CONFIG, "rope_theta": 7}))
    assert entry(folder, tmp_path).model_id != before


def test_a_template_of_its_own_goes_before_the_tokenizers(tmp_path: Path) -> None:
    model = entry(folder_of(tmp_path, parts(chat_template__jinja=b"{{ x }}")), tmp_path)
    assert roles(model)[-1] == ("template", "chat_template.jinja")


def test_a_template_in_a_large_tokenizer_config_is_found(tmp_path: Path) -> None:
    """Those of Gemma 3 name some 6,000 tokens that mean nothing, in 1.2 MB."""
    large = json.dumps({"added_tokens_decoder": "x" * 1_200_000, "chat_template": "{{ x }}"})
    model = entry(folder_of(tmp_path, parts(tokenizer_config__json=large.encode())), tmp_path)
    assert roles(model)[-1] == ("template", "tokenizer_config.json")


def test_a_tokenizer_config_without_a_template_is_none(tmp_path: Path) -> None:
    model = entry(folder_of(tmp_path, parts(tokenizer_config__json=b"{}")), tmp_path)
    assert "template" not in dict(roles(model))


def test_an_encoder_brings_what_its_vectors_depend_on(tmp_path: Path) -> None:
    config = json.dumps({"model_type": "bert", "max_position_embeddings": 512}).encode()
    folder = folder_of(tmp_path, parts(config__json=config, sentence_bert_config__json=b"{}"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert roles(entry(folder, tmp_path)) == [
        ("weights", "model.safetensors"),
        ("tokenizer", "tokenizer.json"),
        ("config", encoder_shape.MODEL),
        ("config", encoder_shape.SENTENCES),
        ("config", encoder_shape.POOLING),
    ]


def sharded(**changes: bytes | None) -> dict[str, bytes]:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[0]}}
    files = parts(model__safetensors=None, **changes)
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    return {**files, **{name: safetensors() + name.encode() for name in names}}


def test_weights_in_parts(tmp_path: Path) -> None:
    model = entry(folder_of(tmp_path, sharded()), tmp_path)
    assert [file.name for file in model.files if file.role == "weights"] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, sharded())
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "has no model-00002-of-00002.safetensors" in refused(folder, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config__json": None}, "has no config.json"),
        ({"tokenizer__json": None}, "has no tokenizer.json"),
        ({"model__safetensors": None}, "has no model.safetensors"),
        ({"config__json": b"{"}, "cannot be read as JSON"),
        ({"config__json": b'{"model_type": "mamba"}'}, "of the family 'mamba'"),
        ({"config__json": b'{"model_type": "llama"}'}, "how long its context is"),
        (
            {"config__json": json.dumps({**CONFIG, "quantization_config": {"bits": 4}}).encode()},
            "quantised by another program",
        ),
        ({"model__safetensors": safetensors("F8_E4M3")}, "of the type F8_E4M3"),
        ({"model__safetensors": b"\xff" * 100}, "cannot be read as safetensors"),
        ({"model__safetensors": b""}, "cannot be read as safetensors"),
    ],
)
def test_what_the_engine_would_not_run_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    assert words in refused(folder_of(tmp_path, parts(**changes)), tmp_path)


def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    files = sharded()
    files["model.safetensors.index.json"] = b'{"weight_map": {"a": "../../etc/passwd"}}'
    assert "no file here" in refused(folder_of(tmp_path, files), tmp_path)


def test_several_ggufs_are_a_choice(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"a.gguf": b"", "b.gguf": b""})
    assert "a.gguf, b.gguf. Name the file of one" in refused(folder, tmp_path)


def test_a_repository_in_the_cache_can_be_fetched_by_others_too(tmp_path: Path) -> None:
    files = parts()
    cached(tmp_path / "hub", {**files, "1_Pooling/config.json": b"{}"})
    model = entry(REPOSITORY, tmp_path)
    assert model.name == "quinoa-1b"
    for file in model.files:
        (source,) = file.sources
        assert source.hub is not None
        assert (source.hub.repository, source.hub.revision) == (REPOSITORY, COMMIT)
        assert source.hub.file == file.name.replace("pooling", "1_Pooling/config")
    folder = folder_of(tmp_path, files)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_bytes(b"{}")
    assert entry(folder, tmp_path).model_id == model.model_id


def test_what_is_not_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    sentence = refused("andes/oca", tmp_path, Code.NOT_FOUND)
    assert "hf download andes/oca" in sentence
    assert "models--andes--oca" in sentence
    assert "no file or folder" in refused("/no/such/place", tmp_path, Code.NOT_FOUND)


async def test_an_entry_is_written_read_and_served_from(tmp_path: Path) -> None:
    own = tmp_path / "home" / "models.toml"
    await trio.to_thread.run_sync(own.parent.mkdir)
    own.write_text("# Mine.\n")
    model = entry(folder_of(tmp_path, parts()), tmp_path)
    add(own, model)
    assert own.read_text().startswith("# Mine.\n\n[[models]]\n")
    found = load_catalogue(own).find("quinoa-1b")
    assert found == model
    ready = await ModelCache(tmp_path / "cache", tmp_path).find(found)
    assert ready is not None
    assert ready.model == model.model_id
    assert [(file.role, file.name) for file in ready.files] == roles(model)
    with pytest.raises(LocalError, match="has a model quinoa-1b already") as caught:
        add(own, model)
    assert caught.value.code == Code.BAD_CONFIG
    assert [one.name for one in tmp_path.joinpath("home").iterdir()] == ["models.toml"]


def test_the_first_entry_makes_the_file(tmp_path: Path) -> None:
    own = tmp_path / "new" / "models.toml"
    model = entry(folder_of(tmp_path, parts()), tmp_path, name="mine")
    add(own, model)
    assert load_catalogue(own).find("mine") == model


def test_a_catalogue_that_is_no_text_is_left_alone_and_named(tmp_path: Path) -> None:
    model = entry(folder_of(tmp_path, parts()), tmp_path)
    own = tmp_path / "models.toml"
    own.write_bytes(b"\xff\xfe")
    with pytest.raises(LocalError, match="is no text in UTF-8") as caught:
        add(own, model)
    assert caught.value.code == Code.BAD_CONFIG
    assert own.read_bytes() == b"\xff\xfe"


def test_the_families_are_those_of_the_engine() -> None:
    assert {*gguf_shape.FAMILIES, "bert"} == set(FAMILIES)


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_header_is_refused_and_nothing_else(data: bytes, place: int, byte: int) -> None:
    whole = bytearray(HEADER)
    whole[place] = byte
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model"
        for text, read in (
            (whole, gguf_facts),
            (whole[:place] + data, gguf_facts),
            (data, config_facts),
            (data, check_safetensors),
            (struct.pack("<Q", len(data)) + data, check_safetensors),
        ):
            file.write_bytes(text)
            assert refusal_of(read, file) in (None, Code.BAD_MODEL)


def refusal_of(read: Callable[[Path], object], file: Path) -> Code | None:
    try:
        read(file)
    except LocalError as refusal:
        return refusal.code
    return None
