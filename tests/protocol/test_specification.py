"""SPEC.md is true: it has every message, field, bound, code and limit, and its examples are those
of the vectors."""

import ast
import re
from pathlib import Path

import pytest
from msgspec import Struct, inspect

import protocol.limits
from protocol import codec, messages
from protocol.capacity import Device, ModelOffer
from protocol.errors import Code
from protocol.job.logprob import Logprob
from protocol.job.sampling import Sampling
from protocol.job.terms import Message, Prompt
from protocol.ledger.genesis import Allocation
from scripts.record_vectors import SPECIFICATION, example, with_examples
from tests.protocol.samples import MESSAGES

TEXT = SPECIFICATION.read_text(encoding="utf-8")
SOURCES = Path(protocol.limits.__file__).parent
INNER: list[type[Struct]] = [
    Sampling,
    Logprob,
    Prompt,
    Message,
    Device,
    ModelOffer,
    Allocation,
]
STRUCTS = {type(value) for value in MESSAGES.values()} | set(INNER)


def title(kind: type[Struct]) -> str:
    """What the specification calls a message: its tag, or for an inner struct its name."""
    tag = kind.__struct_config__.tag
    return tag if isinstance(tag, str) else re.sub(r"(?<!^)([A-Z])", r" \1", kind.__name__).lower()


def form(info: inspect.Type) -> str:
    """A type and its bounds as the specification writes them."""
    match info:
        case inspect.IntType(ge=low, le=high):
            return f"integer {low}..{high}"
        case inspect.StrType(min_length=low, max_length=high):
            return f"text {low}..{high}" if low else f"text ≤ {high}"
        case inspect.BytesType(min_length=low, max_length=high):
            return f"bytes {high}" if low == high else f"bytes ≤ {high}"
        case inspect.LiteralType(values=words):
            return " or ".join(f'"{word}"' for word in sorted(words))
        case inspect.VarTupleType(item_type=item, max_length=high):
            return f"array ≤ {high} of {form(item)}"
        case inspect.TupleType(item_types=items):
            return f"[{', '.join(form(item) for item in items)}]"
        case inspect.StructType(cls=kind):
            return title(kind)
        case inspect.UnionType(types=kinds):
            return " or ".join(form(kind) for kind in kinds)
        case inspect.NoneType():
            return "none"
    raise AssertionError(f"the wire has no such type: {info}")


def section(heading: str) -> str:
    """The text under a heading, up to the next heading."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, f"SPEC.md has no section {heading!r}"
    return found.group(1)


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("kind", sorted(STRUCTS, key=title), ids=title)
def test_every_field_stands_there_in_order_with_its_bounds(kind):
    said = [(cells[0].strip("`"), cells[1]) for cells in rows(section(f"`{title(kind)}`"))]
    fields = [(field.name, form(field.type)) for field in inspect.type_info(kind).fields]
    assert said == fields
    assert all(cells[2] for cells in rows(section(f"`{title(kind)}`")))


def test_every_code_stands_there_once():
    codes = [cells[0].strip("`") for cells in rows(section("Codes"))]
    assert sorted(codes) == sorted(code.value for code in Code)
    assert all(len(cells) == 3 and all(cells) for cells in rows(section("Codes")))


def limits_of_the_protocol() -> set[str]:
    """The names that the rules and messages themselves take from limits.py."""
    found: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "protocol.limits":
                found |= {alias.name for alias in node.names}
    return found


def test_every_limit_that_binds_the_other_side_stands_there_with_its_value():
    table = {cells[0].strip("`"): int(cells[1]) for cells in rows(section("Limits"))}
    assert limits_of_the_protocol() <= set(table)
    assert table == {name: getattr(protocol.limits, name) for name in table}


def test_the_size_of_every_signed_message_stands_there():
    table = {cells[0].strip("`"): int(cells[1]) for cells in rows(section("Sizes"))}
    assert table == {title(kind): size for kind, size in messages.BODY_BYTES_MAX.items()}


def test_every_example_is_that_of_the_vectors():
    shown = re.findall(r"```vector (\w+)\n(.*?)\n```", TEXT, re.DOTALL)
    assert {name for name, _ in shown} == set(MESSAGES)
    for name, text in shown:
        assert text == example(name), f"SPEC.md shows another {name} than the vectors"
    assert with_examples(TEXT) == TEXT


def test_small_examples_are_whole():
    for name in ("started", "delta", "chunk", "receipt", "refuse", "cancel"):
        assert codec.encode(MESSAGES[name]).hex() in TEXT


@pytest.mark.parametrize(
    "word",
    [
        messages.JOB_PROTOCOL,
        messages.ADVERTS_PROTOCOL,
        messages.ADVERTS_ASKED.decode(),
        "/capacity/1",
        "ayni-stop-1",
        "ayni-seed-user-1",
        "ayni-gumbel-1",
        "ayni-network 1",
        "0x9E3779B97F4A7C15",
    ],
)
def test_every_name_on_the_wire_stands_there(word):
    assert word in TEXT
