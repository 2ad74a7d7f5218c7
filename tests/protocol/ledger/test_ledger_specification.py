"""The specification's chapters on the ledger are true: every struct, field, bound, size and code,
every rule in its order, and examples that are the vectors'."""

import ast
import json
import re
from pathlib import Path

import msgpack
import pytest
from msgspec import Struct, inspect

import protocol.ledger.sync as sync
from protocol.envelope import Signed
from protocol.errors import Code, RemoteError
from protocol.identity import digest
from protocol.ledger.certificate import Certificate, Certified, Seal, Vote, certified_decoded
from protocol.ledger.charter import quorum
from protocol.ledger.checkpoint import Checkpoint, Checkpointed, Holding
from protocol.ledger.entry import LATER_KINDS, Claim, Entry, Open, Pay, Source, TopUp, entry_read
from protocol.ledger.export import Header, Shown, frame_decoded
from protocol.ledger.proof import Breach, Contradiction, breach_decoded, contradiction_decoded
from protocol.ledger.resumed import Held, Kept, Resumed
from protocol.ledger.settlement import Seat
from protocol.ledger.statement import (
    Commit,
    Locked,
    Prepare,
    PrepareCertificate,
    Proposal,
    Report,
    ReportShown,
    Settlement,
    TurnAsk,
)
from protocol.ledger.voucher import Voucher
from protocol.limits import CODEC_DEPTH_MAX
from scripts.ledger_examples import parts, with_examples
from scripts.vector_text import VECTORS
from tests.protocol.ledger.chains import ANNA, CHARTER

SOURCES = Path(sync.__file__).parent
TEXT = (SOURCES.parent / "SPEC.md").read_text(encoding="utf-8")
INNER: list[type[Struct]] = [
    *(Entry, Pay, Open, TopUp, Claim, Source),
    *(Vote, Seal, Certificate, Certified),
    *(Contradiction, Breach),
    *(Header, Shown),
    *(Voucher, TurnAsk, Proposal, Report, Locked, Prepare, Commit),
    *(PrepareCertificate, Settlement, ReportShown, Seat),
    *(Holding, Checkpoint, Checkpointed, Resumed, Held, Kept),
]
STRUCTS = [*INNER, *sync.MESSAGE_BYTES_MAX]
WIRE = "20. The ledger on the wire"


def title(kind: type[Struct]) -> str:
    """What the specification calls a message: its tag, or for an inner struct its name."""
    tag = kind.__struct_config__.tag
    return tag if isinstance(tag, str) else kind.__name__.lower()


def form(info: inspect.Type) -> str:
    """A type and its bounds as the specification writes them."""
    match info:
        case inspect.IntType(ge=low, le=high, lt=below):
            return f"integer {low}..{high if below is None else below - 1}"
        case inspect.StrType(min_length=low, max_length=high):
            return f"text {low}..{high}" if low else f"text ≤ {high}"
        case inspect.BytesType(min_length=low, max_length=high):
            return f"bytes {high}" if low == high else f"bytes ≤ {high}"
        case inspect.VarTupleType(item_type=item, min_length=low, max_length=high):
            return f"array {low or 0}..{high} of {form(item)}"
        case inspect.StructType(cls=kind):
            return title(kind)
        case inspect.UnionType(types=types):
            return " or ".join(sorted(form(one) for one in types))
        case inspect.NoneType():
            return "nil"
    raise AssertionError(f"the ledger has no such type: {info}")


def section(heading: str) -> str:
    """The text under a heading, up to the next heading."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, f"SPEC.md has no section {heading!r}"
    return found.group(1)


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def structs_of_the_ledger() -> set[str]:
    """The names of all structs that the ledger's modules define; §11 has those of the genesis."""
    found: set[str] = set()
    for path in SOURCES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and path.name != "genesis.py":
                found |= {node.name for base in node.bases if ast.unparse(base) == "Struct"}
    return found


def test_no_struct_is_left_out():
    assert {kind.__name__ for kind in STRUCTS} == structs_of_the_ledger()


@pytest.mark.parametrize("kind", STRUCTS, ids=title)
def test_every_field_stands_there_in_order_with_its_bounds(kind):
    table = rows(section(f"`{title(kind)}`"))
    fields = [(f"`{one.name}`", form(one.type)) for one in inspect.type_info(kind).fields]
    assert [(cells[0], cells[1]) for cells in table] == fields
    assert all(len(cells) == 3 and cells[2] for cells in table)


def test_the_genesis_has_what_the_ledger_reads():
    fields = [cells[0] for cells in rows(section("`genesis`"))]
    assert fields[-2:] == ["`grace_ms`", "`window_ms`"]
    read = ("supply", "allocations", "witnesses", "entry_fee", "pay_min", "grace_ms", "window_ms")
    for name in read:
        assert f"`{name}`" in section("What the genesis fixes")
        assert f"`{name}`" in fields


def test_quorums():
    table = [[int(cell) for cell in cells] for cells in rows(section("Quorums"))]
    assert {cells[0] for cells in table} >= set(range(11))
    for witnesses, faulty_max, seals_min in table:
        assert quorum(witnesses) == (faulty_max, seals_min)


def test_every_size_of_a_message_stands_there():
    table = {cells[0].strip("`"): int(cells[1]) for cells in rows(section("Sizes on the ledger"))}
    assert table == {title(kind): size for kind, size in sync.MESSAGE_BYTES_MAX.items()}


DECODERS = {
    "`entry`": lambda data: entry_read(Signed(ANNA.node, data, bytes(64)), CHARTER.network),
    "`certified`": certified_decoded,
    "`contradiction`": contradiction_decoded,
    "`breach`": breach_decoded,
    "frame of an export": frame_decoded,
}


def test_every_size_of_a_form_stands_there():
    table = rows(section("Sizes of what stands in them"))
    assert [cells[0] for cells in table] == list(DECODERS)
    for name, size in table:
        for length, code in ((int(size), Code.BAD_ENCODING), (int(size) + 1, Code.TOO_LARGE)):
            with pytest.raises(RemoteError) as refused:
                DECODERS[name](bytes(length))
            assert refused.value.code is code, name
    assert f"of {table[0][1][:-3]},{table[0][1][-3:]} bytes at most" in section(
        "The rules of an account"
    )


def test_how_deep_messages_nest_stands_there():
    assert f"nested deeper than {CODEC_DEPTH_MAX} levels" in section("1. Bytes")


def codes_of_the_ledger() -> set[str]:
    """What the rules and messages of the ledger refuse with; making a genesis is apart."""
    found = {"BAD_ENCODING"}  # The decoder's, which is that of every message.
    for path in SOURCES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_code = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Code"
            if is_code and path.name != "genesis.py":
                found.add(node.attr)
    return found


def test_every_code_stands_there_with_what_to_do():
    table = rows(section("What refusals mean here"))
    codes = [cells[0].strip("`") for cells in table]
    assert len(set(codes)) == len(codes)
    assert set(codes) == codes_of_the_ledger()
    assert all(len(cells) == 3 and all(cells) for cells in table)


def test_every_question_has_its_answer():
    table = {cells[0].strip("`"): cells[1].strip("`") for cells in rows(section(WIRE))}
    assert list(table) == [title(kind) for kind in sync.Ask.__args__]
    answers = {title(kind) for kind in sync.Answer.__args__}
    assert set(table.values()) | {"refusal"} == answers


def test_names_on_the_wire_and_later_kinds_stand_there():
    assert f"`{sync.LEDGER_PROTOCOL}`" in section(WIRE)
    assert f"`{sync.LEDGER_PROTOCOL}`" in section("4. Frames and streams")
    assert "`/ayni/<net>/proofs/1`" in section("Proofs by gossip")
    for kind in LATER_KINDS:
        assert f"`{kind}`" in section("Kinds of later versions")


# Examples.

EXAMPLES = dict(re.findall(r"^```ledger (\w+)\n(.*?)\n```", TEXT, re.DOTALL | re.MULTILINE))


def load(name: str):
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def plain(part, names):
    """The value of an example as MessagePack takes it, with what ⟨its names⟩ stand for."""
    match part:
        case dict():
            return [plain(each, names) for each in part.values()]
        case list():
            return [plain(each, names) for each in part]
        case str() if part.startswith("⟨"):
            return plain(names[part.strip("⟨⟩")], names)
        case str() if part.startswith("0x"):
            return bytes.fromhex(part[2:])
    return part


def lines_of(example: str) -> dict[str, str]:
    return {line[:10].strip(): line[10:] for line in example.splitlines()}


def test_examples_are_those_of_the_vectors():
    assert with_examples(TEXT) == TEXT


def test_every_message_proof_and_form_has_its_example():
    proofs, messages = load("ledger_proofs"), load("ledger_messages")
    settlement = load("ledger_settlement")
    assert set(EXAMPLES) >= {*proofs, *messages, *settlement["signed"], *settlement["certificates"]}
    shown = {json.loads(lines_of(EXAMPLES[name])["value"])["type"] for name in messages}
    assert shown == {title(kind) for kind in sync.MESSAGE_BYTES_MAX}
    assert set(EXAMPLES) >= {"genesis", "pay", "claim", "vote", "certificate", "certified"}


@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - {"genesis", "one_chain"}))
def test_the_value_of_an_example_packs_to_its_bytes(name):
    lines = lines_of(EXAMPLES[name])
    data = msgpack.packb(plain(json.loads(lines["value"]), parts()))
    first, _, last = lines["bytes"].partition("…")
    assert data.hex().startswith(first)
    assert data.hex().endswith(last)
    assert last or data.hex() == first
    if "id" in lines:
        assert lines["id"] == digest(data).hex()


def test_the_examples_are_of_the_network_that_is_shown():
    genesis = json.loads(lines_of(EXAMPLES["genesis"])["value"])
    network = digest(msgpack.packb(plain(genesis, {}))).hex()
    assert lines_of(EXAMPLES["genesis"])["network"] == network == CHARTER.network.hex()
    for name in ("pay", "claim"):
        assert json.loads(lines_of(EXAMPLES[name])["value"])["network"] == "0x" + network


def test_the_export_shown_is_whole_frames():
    file = load("ledger_export")["one_chain"]["file"]
    for line in EXAMPLES["one_chain"].splitlines():
        length, frame = line.split()
        size = 2 * int(length, 16)
        assert file.startswith(length)
        first, _, last = frame.partition("…")
        whole = file[8 : 8 + size]
        assert whole.startswith(first)
        assert whole.endswith(last)
        assert last or whole == first
        file = file[8 + size :]
    assert not file
