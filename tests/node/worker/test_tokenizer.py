"""Prompts to ids: templates in their sandbox, and nobody but the template writes control tokens."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.worker.gguf import read_gguf
from node.worker.template import ChatTemplate
from node.worker.tokenizer import ModelTokenizer, gguf_tokenizer
from protocol.errors import Code, LocalError
from tests.tiny_model import CONTROL, tiny_gguf, vocabulary

BEGIN, END = 1, 2


def made(tmp_path: Path, template: str = "", **changes: object) -> ModelTokenizer:
    path = tmp_path / "tokenizer.gguf"
    path.write_bytes(tiny_gguf(changes={k.replace("__", "."): v for k, v in changes.items()}))
    return gguf_tokenizer(read_gguf(path), template)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    return made(tmp_path_factory.mktemp("tokenizer"))


def said(tokenizer: ModelTokenizer, ids: list[int]) -> str:
    stream = tokenizer.stream([])
    return "".join(stream.push(token) for token in ids) + stream.finish()


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_text_comes_back_and_holds_no_control_token(tokenizer: ModelTokenizer, text: str) -> None:
    ids = tokenizer.text(text)
    assert said(tokenizer, ids) == text
    assert min(ids, default=3) >= 3


def test_merges_and_the_beginning(tmp_path: Path, tokenizer: ModelTokenizer) -> None:
    tokens, _ = vocabulary()
    assert [tokens[n] for n in tokenizer.text("in the other 12")] == [
        *("in", "Ġthe", "Ġ", "o", "the", "r"), *("Ġ", "1", "2"),
    ]  # fmt: skip
    begins = made(tmp_path, tokenizer__ggml__add_bos_token=True)
    assert begins.text("in")[0] == BEGIN
    assert begins.ends == frozenset({0, END})


def test_a_chat_has_the_templates_control_tokens(tokenizer: ModelTokenizer) -> None:
    ids = tokenizer.chat([("system", "be brief"), ("user", "hi")])
    assert [n for n in ids if n < 3] == [BEGIN, END, BEGIN, END, BEGIN]
    assert said(tokenizer, ids) == "system\nbe brief\nuser\nhi\nassistant\n"


pieces = st.sampled_from(
    [*CONTROL, "<", "|", ">", "<|im_", "end|>", "im_start", " \n", "\U000f0000", "\U000f0001", "é"]
)
contents = st.lists(pieces, max_size=6).map("".join)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), contents), max_size=4))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_nobody_writes_a_control_token(
    tokenizer: ModelTokenizer, messages: list[tuple[str, str]]
) -> None:
    ids = tokenizer.chat(messages)
    assert [n for n in ids if n < 3] == [BEGIN, END] * len(messages) + [BEGIN]
    expected = "".join(f"{role}\n{text}\n" for role, text in messages) + "assistant\n"
    assert said(tokenizer, ids) == expected


def test_no_control_token_grows_between_template_and_content(tmp_path: Path) -> None:
    hostile = made(tmp_path, "<{{ messages[0].content }}{{ messages[1].content }}>")
    ids = hostile.chat([("user", "|im_"), ("user", "end|")])
    assert said(hostile, ids) == "<|im_end|>"
    for template, content in (("<{{m}}", "|im_end|>"), ("{{m}}|im_end|>", "<")):
        edge = made(tmp_path, template.replace("m}", "messages[0].content}"))
        ids = edge.chat([("user", content)])
        assert said(edge, ids) == "<|im_end|>"


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(2000) %}{% for b in range(2000) %}{% endfor %}{% endfor %}",
        "{% for a in range(2000) %}{% for b in range(2000) %}0123456789{% endfor %}{% endfor %}",
        "{% for a in range(99999999) %}{% endfor %}",
        "{{ 'a' * 1000000000 }}",
        "{{ '%01000000000d' % 1 }}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ nothing.at.all }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ raise_exception('no ' + messages[0].content) }}",
    ],
)
def test_a_bad_template_fails_by_code_and_quotes_nobody(tmp_path: Path, template: str) -> None:
    with pytest.raises(LocalError) as caught:
        made(tmp_path, template).chat([("user", "a secret word")])
    assert caught.value.code == Code.BAD_REQUEST
    assert "secret" not in caught.value.sentence


def test_a_template_may_say_why_in_its_own_words() -> None:
    template = ChatTemplate("{{ raise_exception('Roles must alternate') }}", {}, [])
    with pytest.raises(LocalError, match="Roles must alternate"):
        template.render([("user", "x")])


def test_what_published_templates_use(tmp_path: Path) -> None:
    template = (
        "{{ bos_token }}{% set ns = namespace(n=0) %}{% for m in messages %}"
        "{% if loop.index0 % 2 == 0 %}{% set ns.n = ns.n + 1 %}{% endif %}"
        "{% if m.role == 'tool' %}{% continue %}{% endif %}"
        "{% generation %}{{ m.content | trim }}{% endgeneration %}{% endfor %}"
        "{{ ns.n }}{{ {'a': 'é'} | tojson }}{{ eos_token }}"
    )
    ids = made(tmp_path, template).chat([("user", " a "), ("tool", "b"), ("user", "c")])
    assert [n for n in ids if n < 3] == [BEGIN, END]
    assert said(made(tmp_path), ids) == 'ac2{"a": "é"}'


def test_an_unknown_role_is_refused(tokenizer: ModelTokenizer) -> None:
    with pytest.raises(LocalError, match="unknown role"):
        tokenizer.chat([("endoftext", "x")])


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer__ggml__pre": "mystery"},
        {"tokenizer__ggml__model": "llama"},
        {"tokenizer__ggml__model": "t5"},
        {"tokenizer__ggml__merges": ["x y z", "th e"]},
        {"tokenizer__ggml__merges": ["q q"]},
        {"tokenizer__ggml__token_type": [1, 2, 3]},
        {"tokenizer__ggml__eos_token_id": 99999},
        {"tokenizer__ggml__tokens": ["a", "a"]},
        {"tokenizer__chat_template": "{% for %}"},
    ],
)
def test_an_inconsistent_tokenizer_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(LocalError) as caught:
        made(tmp_path, **changes)
    assert caught.value.code == Code.BAD_MODEL


def test_without_a_template_there_is_no_chat(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no chat template"):
        made(tmp_path, tokenizer__chat_template=None).chat([("user", "x")])


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2", "default"])
def test_other_kinds_split_text_without_loss(tmp_path: Path, pre: str) -> None:
    other = made(tmp_path, tokenizer__ggml__pre=pre, tokenizer__ggml__add_bos_token=None)
    text = "Don't  panic: 12345 llamas\n\n  🦙 çà"
    ids = other.text(text)
    assert said(other, ids) == text
    assert (ids[0] == BEGIN) == (pre == "llama-bpe")
