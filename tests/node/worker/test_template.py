"""Chat templates: what published ones do is done, and no hostile one reaches out or goes on."""

import pytest

from node.worker.template import ChatTemplate
from node.worker.template_sandbox import SECONDS_MAX, WORK_MAX
from protocol.errors import Code, LocalError

LONG = "x" * 100_000
DOUBLED = "{% for i in range(40) %}{% set n.x = STEP %}{% endfor %}{{ n.x | length }}"
ASKED = [("user", "a secret word")]

# Written for these tests in the manner of the families that the engine runs.
SYSTEM_FIRST = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] | trim %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{%- if not date is defined %}{%- if strftime_now is defined %}{%- set date = "
    "strftime_now('%d %b %Y') %}{%- else %}{%- set date = '26 Jul 2024' %}{%- endif %}{%- endif %}"
    "{{ '<|start|>system\n' + date + '\n' + system + '<|end|>' }}"
    "{% for turn in turns %}{% set content = '<|start|>' + turn['role'] + '\n' + "
    "turn['content'] | trim + '<|end|>' %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
ALTERNATING = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}"
    "{% set role = message['role'] %}{% endif %}"
    "{{ '<turn>' + role + '\n' + message['content'] | trim + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
THINKING = (
    "{%- set ns = namespace(last=messages | length - 1, seen=false) %}"
    "{%- for m in messages[::-1] %}{%- if not ns.seen and m.role == 'user' and "
    "m.content is string %}{%- set ns.seen = true %}"
    "{%- set ns.last = messages | length - 1 - loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- set content = m.content %}{%- if m.role == 'assistant' and "
    "'</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\n') %}"
    "{%- endif %}{{- '<|im_start|>' ~ m.role ~ '\n' ~ content ~ '<|im_end|>\n' }}"
    "{%- if m.tool_calls is defined %}{{- m.tool_calls | tojson(indent=2) }}{%- endif %}"
    "{%- endfor %}{{- '<|im_start|>assistant\n' }}"
)


def rendered(source: str, messages: list[tuple[str, str]]) -> str:
    text, mark = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}, []).render(
        messages
    )
    return text.replace(mark, "")


def test_a_system_turn_and_a_date_that_is_the_same_on_every_day() -> None:
    assert rendered(SYSTEM_FIRST, [("system", " be brief "), ("user", "hi")]) == (
        "<s><|start|>system\n26 Jul 2024\nbe brief<|end|><|start|>user\nhi<|end|>"
        "<|start|>assistant\n"
    )


def test_turns_alternate_and_a_system_turn_is_refused_in_the_templates_words() -> None:
    chat = [("user", "hi"), ("assistant", "no"), ("user", "é")]
    assert rendered(ALTERNATING, chat) == (
        "<s><turn>user\nhi<end>\n<turn>model\nno<end>\n<turn>user\né<end>\n<turn>model\n"
    )
    with pytest.raises(LocalError, match="System role not supported"):
        rendered(ALTERNATING, [("system", "x"), ("user", "y")])
    with pytest.raises(LocalError, match="roles must alternate"):
        rendered(ALTERNATING, chat[1:])


def test_what_was_thought_is_left_out() -> None:
    chat = [("user", "hi"), ("assistant", "<think>\nhm\n</think>\n\nno"), ("user", "so")]
    assert rendered(THINKING, chat) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nno<|im_end|>\n"
        "<|im_start|>user\nso<|im_end|>\n<|im_start|>assistant\n"
    )


def test_json_has_the_arguments_of_transformers() -> None:
    source = "{{ {'b': 'é<', 'a': [1, none]} | tojson(sort_keys=true, separators=(',', ':')) }}"
    assert rendered(source, ASKED) == '{"a":[1,null],"b":"é<"}'
    assert rendered("{{ ['a'] | tojson(indent=1) }}", ASKED) == '[\n "a"\n]'


@pytest.mark.parametrize(
    "source",
    [
        # Loops that multiply, and what never ends.
        "{% for a in range(2000) %}{% for b in range(2000) %}{% endfor %}{% endfor %}",
        "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
        "{{ m(40) }}",
        "{% for a in [[[1]]] recursive %}{{ loop([[[1]]]) }}{% endfor %}",
        "{% for a in range(10 ** 9) %}{% endfor %}",
        "{{ range(2000) | map('string') | list | length }}{% for a in range(999999) %}{% endfor %}",
        # Texts that double.
        *(
            "{% set n = namespace(x='" + "a" * 64 + "') %}" + DOUBLED.replace("STEP", step)
            for step in (
                "n.x + n.x", "n.x ~ n.x", "n.x.replace('a', 'aa')", "n.x | replace('a', 'aa')",
                "n.x.join([n.x, n.x])", "[n.x, n.x] | join", "'{0}{0}'.format(n.x)",
                "[n.x, n.x]", "(n.x, n.x)", "{'a': n.x, 'b': n.x}", "dict(a=n.x, b=n.x)",
            )
        ),
        "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set t %}{{ n.x }}{{ n.x }}"
        "{% endset %}{% set n.x = t %}{% endfor %}",
        "{% set n = namespace(x='a') %}{% macro m() %}{{ n.x }}{{ n.x }}{% endmacro %}"
        "{% for i in range(40) %}{% set n.x = m() %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(40) %}"
        "{% set n.x = n.x + n.x %}{% endfor %}",
        # One operation that makes much of little.
        "{{ 'a' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ '%01000000000d' % 1 }}",
        "{{ '{:1000000000d}'.format(1) }}",
        "{{ '{:{}}'.format(1, 1000000000) }}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ 'a'.center(1000000000) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ '1'.zfill(1000000000) }}",
        "{{ '\t'.expandtabs(1000000000) }}",
        "{{ [[1]] | tojson(indent=1000000000) }}",
        "{{ range(2000) | join(" + repr(LONG) + ") }}",
        # Reaching out.
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__'].__mro__ }}",
        "{{ ('' | attr('__class__')) }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(a=1) }}",
        "{{ '{0.__class__}'.format(1) | length + nothing.x }}",
        "{% include 'a' %}",
        "{% import 'a' as a %}",
        "{{ nothing.at.all }}",
        "{{ lipsum(1000) }}",
    ],
)  # fmt: skip
def test_a_hostile_template_is_refused_by_code_and_quotes_nobody(source: str) -> None:
    with pytest.raises(LocalError) as caught:
        rendered(source, ASKED)
    assert caught.value.code in (Code.BAD_REQUEST, Code.BAD_MODEL)
    assert "secret" not in caught.value.sentence


@pytest.mark.parametrize(
    "source",
    [
        "x" * (129 << 10),
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% if x %}" * 500 + "{% endif %}" * 500,
        "{{ 2.5 | round(1000000000, 'ceil') }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 'a' | indent(1000000000) }}",
        "{% for %}",
        "{{ " + "9" * 10_000 + " }}",
    ],
)
def test_one_that_cannot_be_compiled_is_a_bad_model(source: str) -> None:
    with pytest.raises(LocalError) as caught:
        ChatTemplate(source, {}, [])
    assert caught.value.code == Code.BAD_MODEL


def test_a_long_chat_is_far_from_the_bounds() -> None:
    chat = [("user" if n % 2 == 0 else "assistant", "word " * 80) for n in range(255)]
    assert len(rendered(THINKING, chat)) > 100_000
    assert (WORK_MAX, SECONDS_MAX) == (200_000, 5.0)
