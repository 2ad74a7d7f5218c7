"""What a chat request may hold: taken, neutral, ignored, and refused by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.chat_request import chat_request
from node.api.failures import BadParameter
from node.api.providers import provider_chosen
from protocol.errors import Code
from protocol.job.sampling import Sampling

USER = {"role": "user", "content": "Why?"}


def parsed(**fields):
    return chat_request(json.dumps({"model": "m", "messages": [USER], **fields}).encode())


def content(value):
    return {"messages": [{"role": "user", "content": value}]}


def test_absent_parameters_mean_openais_defaults():
    asked = parsed()
    assert asked.job.sampling == Sampling(temperature_millionths=1_000_000)
    assert (asked.stream, asked.include_usage, asked.notices) == (False, False, False)
    assert asked.job.output_tokens_max is None
    assert asked.job.seed is None
    assert asked.job.stop == ()


def test_every_number_becomes_the_integer_that_the_wire_has():
    job = parsed(
        temperature=0.7,
        top_p=0.9,
        min_p=0.05,
        top_k=40,
        repetition_penalty=1.1,
        frequency_penalty=-0.5,
        presence_penalty=2,
        seed=2**64 - 1,
        max_tokens=5,
        max_completion_tokens=5,
        stop="\n",
        ayni={"cost_max_microcredits": 12, "checkable_only": True},
    ).job
    assert job.sampling == Sampling(700_000, 900_000, 50_000, 40, 1_100_000, -500_000, 2_000_000)
    assert (job.seed, job.output_tokens_max, job.stop) == (2**64 - 1, 5, ("\n",))
    assert job.cost_max_microcredits == 12
    assert job.checkable_only


def test_biases_become_pairs_in_rising_order_without_those_of_nothing():
    bias = {"70": -100, "5": 0.5, "6": 0, "0": 1}
    assert parsed(logit_bias=bias).job.sampling.bias == (
        (0, 1_000_000),
        (5, 500_000),
        (70, -100_000_000),
    )


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, 0),
        ({"logprobs": False, "top_logprobs": 0}, 0),
        ({"logprobs": True}, 1),
        ({"logprobs": True, "top_logprobs": 20}, 21),
    ],
)
def test_the_network_counts_the_token_itself_among_those_told(fields, told):
    assert parsed(**fields).job.sampling.logprobs == told


def test_a_top_p_of_nothing_keeps_the_likeliest_token():
    assert parsed(top_p=0).job.sampling.top_p_millionths == 1


def test_auto_and_no_model_mean_any():
    assert parsed(model="auto").job.model == ""
    assert chat_request(json.dumps({"messages": [USER]}).encode()).job.model == ""


def test_roles_and_text_parts_become_pairs():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    echoed = {"role": "assistant", "content": "c", "refusal": None, "tool_calls": None}
    messages = [{"role": "developer", "content": "s"}, {"role": "user", "content": parts}, echoed]
    assert parsed(messages=messages).job.messages == (
        ("system", "s"),
        ("user", "ab"),
        ("assistant", "c"),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logprobs": False, "response_format": {"type": "text"}, "tools": []},
        {"user": "me", "metadata": {"a": "b"}, "store": False, "tool_choice": None},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
)
def test_what_asks_for_nothing_is_taken(fields):
    assert parsed(**fields).job == parsed().job


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"sky": 1}}, "logit_bias"),
        ({"logit_bias": {"05": 1}}, "logit_bias"),
        ({"logit_bias": {"-5": 1}}, "logit_bias"),
        ({"logit_bias": {str(2**31): 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"5": True}}, "logit_bias.5"),
        ({"logit_bias": [5]}, "logit_bias"),
        ({"logit_bias": {str(token): 1 for token in range(301)}}, "logit_bias"),
        ({"temprature": 1}, "temprature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_k": 1.5}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 9}, "stop"),
        ({"stop": "é" * 129}, "stop"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options"),
        ({"ayni": {"x": 1}}, "ayni"),
        ({"ayni": []}, "ayni"),
        ({"model": 5}, "model"),
        ({"model": "m" * 65}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [USER] * 513}, "messages"),
        ({"messages": ["Why?"]}, "messages[0]"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": [], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{**USER, "name": "x"}]}, "messages[0].name"),
        ({"messages": [{**USER, "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        (content([{"type": "image_url"}]), "messages[0].content[0]"),
        (content([{"type": "text"}]), "messages[0].content[0].text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_name(fields, parameter):
    with pytest.raises(BadParameter) as refused:
        parsed(**fields)
    assert refused.value.parameter == parameter
    assert refused.value.code == Code.BAD_REQUEST


def test_a_prompt_may_be_large_and_not_larger():
    assert parsed(messages=[{"role": "user", "content": "x" * (256 << 10)}])
    with pytest.raises(BadParameter) as refused:
        parsed(messages=[{"role": "user", "content": "é" * (129 << 10)}])
    assert refused.value.code == Code.TOO_LARGE


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b'"x"', b"{", b'{"messages": NaN}', b"\xff", b"[" * 100_000, b'{"a":' * 100_000,
        b'{"messages": [{"role": "user", "content": "SECRET \\ud800"}]}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_refused_without_its_words(body):
    with pytest.raises(BadParameter) as refused:
        chat_request(body)
    assert refused.value.parameter == "body"
    assert "SECRET" not in str(refused.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
names = st.sampled_from(
    [
        *("model", "messages", "stream", "stream_options", "temperature", "top_p", "top_k", "stop"),
        *("max_tokens", "seed", "n", "tools", "ayni", "user", "response_format"),
    ]
)
messages = st.lists(
    st.dictionaries(st.sampled_from(["role", "content", "name"]), json_values, max_size=3),
    max_size=3,
)


@given(st.dictionaries(names | st.text(), json_values), messages | st.just([USER]))
def test_any_json_is_a_job_within_bounds_or_a_named_refusal(fields, chat):
    body = json.dumps({"messages": chat, **fields}).encode(errors="replace")
    try:
        asked = chat_request(body)
    except BadParameter as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert len(refused.parameter) < 100
        assert refused.sentence
        return
    assert 1 <= len(asked.job.messages) <= 512
    assert 0 <= asked.job.sampling.temperature_millionths <= 2_000_000
    assert 1 <= asked.job.sampling.top_p_millionths <= 1_000_000
    assert asked.job.output_tokens_max is None or asked.job.output_tokens_max > 0


NODES = [("12D3KooWaaaaBBBB", "maize"), ("12D3KooWccccDDDD", "potato"), ("12D3KooWeeee", "potato")]


def test_a_provider_is_found_by_id_end_or_unique_name():
    assert provider_chosen("maize", NODES) == "12D3KooWaaaaBBBB"
    assert provider_chosen("12D3KooWeeee", NODES) == "12D3KooWeeee"
    assert provider_chosen("DDDD", NODES) == "12D3KooWccccDDDD"


@pytest.mark.parametrize("text", ["potato", "12D3KooW", "rye", "DDD", ""])
def test_a_provider_that_is_none_or_several_is_refused(text):
    with pytest.raises(BadParameter) as refused:
        provider_chosen(text, NODES)
    assert refused.value.code == Code.NOT_FOUND
