"""Vocabularies from tokenizer.json and of SentencePiece's kind, against twins and the library."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from node.worker.gguf import read_gguf
from node.worker.tokenizer import ModelTokenizer, gguf_tokenizer, open_tokenizer
from protocol.errors import Code, LocalError
from tests.node.worker.tiny_tokenizer import (
    BYTES,
    SAID,
    byte_level,
    pieces,
    piecewise,
    special,
    write_tokenizer,
)
from tests.tiny_model import tiny_gguf

SPACE = "\u2581"
JINJA = "{% for m in messages %}{{ bos_token }}{{ m.content }}{{ eos_token }}{% endfor %}"
texts = st.text(st.sampled_from("aethrin  \n<s>/0xA1é🦙_\u2581"), max_size=40)


def opened(folder: Path, tokenizer: dict[str, Any], **more: Any) -> ModelTokenizer:
    return open_tokenizer(write_tokenizer(folder, tokenizer, **more))


def by_scores(folder: Path, **changes: object) -> ModelTokenizer:
    tokens, types, scores = pieces()
    path = folder / "scores.gguf"
    header: dict[str, object] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.add_bos_token": None,
        "tokenizer.chat_template": JINJA,
    }
    path.write_bytes(tiny_gguf(changes=header | changes))
    return gguf_tokenizer(read_gguf(path))


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    return by_scores(tmp_path_factory.mktemp("spm"))


@pytest.fixture(scope="module")
def from_json(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    said = {"chat_template": JINJA, "bos_token": "<s>", "eos_token": {"content": "</s>"}}
    return opened(tmp_path_factory.mktemp("json"), piecewise(), said=said)


def said(tokenizer: ModelTokenizer, ids: list[int]) -> str:
    stream = tokenizer.stream([])
    return "".join(stream.push(token) for token in ids) + stream.finish()


def twin(text: str) -> list[int]:
    """SentencePiece's rule in its own words: join the two neighbours whose whole has the highest
    score, the leftmost of equals, until none has one; spell the rest by its bytes."""
    tokens, types, scores = pieces()
    ids = {token: n for n, token in enumerate(tokens) if types[n] == 1}
    parts = list(SPACE + text.replace(" ", SPACE))
    while True:
        whole = [ids.get(parts[n] + parts[n + 1]) for n in range(len(parts) - 1)]
        ranked = [(-scores[one], n) for n, one in enumerate(whole) if one is not None]
        if not ranked:
            break
        _, at = min(ranked)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    raw = {token: n for n, token in enumerate(tokens) if types[n] == 6}
    return [
        number
        for part in parts
        for number in (
            [ids[part]] if part in ids else [raw[f"<0x{byte:02X}>"] for byte in part.encode()]
        )
    ]


@given(texts.filter(bool))
def test_pieces_are_joined_by_their_scores(spm: ModelTokenizer, text: str) -> None:
    ids = spm.text(text)
    assert ids == [1, *twin(text)]
    assert said(spm, ids) == " " + text.replace(SPACE, " ")


@given(texts, texts)
def test_a_tokenizer_json_gives_the_same(
    spm: ModelTokenizer, from_json: ModelTokenizer, first: str, second: str
) -> None:
    assert from_json.text(first) == spm.text(first)
    chat = [("user", first), ("assistant", second)]
    assert from_json.chat(chat) == spm.chat(chat)
    assert [n for n in from_json.chat(chat) if n < 3] == [1, 2, 1, 2]


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.data())
def test_a_letter_of_several_tokens_comes_whole(
    spm: ModelTokenizer, text: str, data: st.DataObject
) -> None:
    """Cut anywhere, what has come is always a beginning of the whole text."""
    ids = spm.text(text)
    whole = said(spm, ids)
    cut = data.draw(st.integers(0, len(ids)))
    assert whole.startswith(said(spm, ids[:cut]))
    assert "\ufffd" not in said(spm, ids[:cut]) or "\ufffd" in text


def test_flags_of_the_file(tmp_path: Path, spm: ModelTokenizer) -> None:
    bare = by_scores(
        tmp_path,
        **{"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_space_prefix": False},
    )
    assert said(bare, bare.text("the")) == "the"
    assert bare.text("the")[0] != 1
    assert spm.text("the")[0] == 1
    assert spm.ends == frozenset({2})


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_a_byte_level_tokenizer_json_is_the_librarys(text: str) -> None:
    ours, theirs = _byte_level()
    assert ours.text(text) == theirs.encode(text, add_special_tokens=False).ids
    assert said(ours, ours.text(text)) == text


_made: list[tuple[ModelTokenizer, Tokenizer]] = []


@pytest.fixture(scope="module", autouse=True)
def _both(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    ours = opened(folder, byte_level(), said=SAID)
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.encode_special_tokens = True
    _made.append((ours, theirs))


def _byte_level() -> tuple[ModelTokenizer, Tokenizer]:
    return _made[-1]


def test_ends_and_beginnings_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"eos_token_id": [0, 2], "bos_token_id": 1}')
    files = write_tokenizer(tmp_path, byte_level(), jinja=JINJA)
    config = files[0].__class__("config", "config.json", str(tmp_path / "config.json"))
    tokenizer = open_tokenizer([*files, config])
    assert tokenizer.ends == frozenset({0, 2})
    assert tokenizer.text("a")[0] > 2
    assert [n for n in tokenizer.chat([("user", "a")]) if n < 3] == [1, 0]
    begins = opened(tmp_path, byte_level(), said=SAID | {"add_bos_token": True})
    assert begins.text("a")[0] == 1


def test_control_tokens_that_the_weights_lack_may_not_be_written(tmp_path: Path) -> None:
    added = [*byte_level()["added_tokens"], special(267, "<picture>")]
    files = write_tokenizer(tmp_path, byte_level(added_tokens=added), jinja=f"{JINJA}<picture>")
    tokenizer = open_tokenizer(files)
    assert tokenizer.chat([("user", "a")])[-1] == 267
    tokenizer.check_fits(267)
    assert tokenizer.text("a")
    with pytest.raises(LocalError, match="writes a token 267") as caught:
        tokenizer.chat([("user", "a")])
    assert caught.value.code == Code.BAD_REQUEST
    with pytest.raises(LocalError, match="a token 266 and the weights have 266"):
        tokenizer.check_fits(266)


def test_weights_that_lack_the_token_of_every_beginning_are_refused(tmp_path: Path) -> None:
    added = [*byte_level()["added_tokens"], special(267, "<begin>")]
    said = SAID | {"add_bos_token": True, "bos_token": "<begin>"}
    tokenizer = opened(tmp_path, byte_level(added_tokens=added), said=said)
    assert tokenizer.text("a")[0] == 267
    tokenizer.check_fits(268)
    with pytest.raises(LocalError, match="a token 267 and the weights have 267") as caught:
        tokenizer.check_fits(267)
    assert caught.value.code == Code.BAD_MODEL


def test_the_default_of_several_templates(tmp_path: Path) -> None:
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    tokenizer = opened(tmp_path, byte_level(), said={"chat_template": several})
    assert said(tokenizer, tokenizer.chat([("user", "a")])) == "yes"
    with pytest.raises(LocalError, match="none of its chat templates is the default"):
        opened(tmp_path, byte_level(), said={"chat_template": several[:1]})


def test_only_the_first_word_of_a_prompt_has_a_space(tmp_path: Path) -> None:
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first",
                 "split": False}  # fmt: skip
    made = piecewise(normalizer=None, pre_tokenizer=metaspace)
    tokenizer = opened(tmp_path, made, jinja="{{ messages[0].content }}</s>in")
    assert said(tokenizer, tokenizer.chat([("user", "the")])) == " thein"


HUGE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
SLOW = {"type": "Split", "pattern": {"Regex": "(a*)*b"}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pre_tokenizer": SLOW}, "pre-tokenizer"),
        ({"pre_tokenizer": {"type": "Mystery"}}, "Mystery"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 99}}, "no short list"),
        ({"pre_tokenizer": 3}, "has no type"),
        ({"normalizer": HUGE}, "normaliser"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}}, "Precompiled"),
        ({"model__type": "Unigram"}, "Unigram"),
        ({"model__dropout": 0.5}, "without dropout"),
        ({"model__unk_token": "<none>"}, "unknown is no token"),
        ({"model__vocab": {}}, "empty"),
        ({"model__vocab": {"a": 1 << 40}}, "no tokenizer"),
        ({"model__vocab": {"a": -1}}, "no tokenizer"),
        ({"model__vocab": {"a": 1, "b": 1}}, "a number twice"),
        ({"model__merges": ["q qq"]}, "no tokenizer"),
        ({"model__merges": [[1, 2]]}, "no tokenizer"),
        ({"added_tokens": [special(99999, "<|im_end|>")]}, "twice"),
        ({"added_tokens": [special(99999, "<|new|>")]}, "another number"),
        ({"added_tokens": [special(7, "<|new|>")]}, "another token's"),
        ({"added_tokens": [special(5, "")]}, "no tokenizer"),
        ({"model": []}, "no tokenizer"),
    ],
)
def test_what_is_not_known_by_name_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(LocalError, match=words) as caught:
        opened(tmp_path, byte_level(**changes), said=SAID)
    assert caught.value.code == Code.BAD_MODEL


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer.ggml.scores": None},
        {"tokenizer.ggml.scores": [1.0]},
        {"tokenizer.ggml.scores": [float("nan")] * len(pieces()[0])},
        {"tokenizer.ggml.token_type": [1] * len(pieces()[0])},
    ],
)
def test_scores_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(LocalError) as caught:
        by_scores(tmp_path, **changes)
    assert caught.value.code == Code.BAD_MODEL


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-spm", "phi-3", "gpt-2", "llama-bpe", "qwen2"])
def test_published_vocabularies_give_the_ids_that_their_makers_recorded(name: str) -> None:
    """llama.cpp keeps these files, with ids that transformers made, in its folder `models`."""
    folder = Path(os.environ.get("AYNI_TEST_VOCABULARIES", "nowhere"))
    path = folder / f"ggml-vocab-{name}.gguf"
    if not path.exists():
        pytest.skip("AYNI_TEST_VOCABULARIES does not name llama.cpp's folder models")
    tokenizer = gguf_tokenizer(read_gguf(path))
    asked = Path(f"{path}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = Path(f"{path}.out").read_text().splitlines()
    recorded = [[int(n) for n in line.split()] for line in lines]
    begins = len(tokenizer.text("")) or None
    for text, ids in zip(asked, recorded, strict=False):
        assert tokenizer.text(text)[begins:] == ids
