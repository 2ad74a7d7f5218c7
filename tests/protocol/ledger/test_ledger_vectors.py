"""The ledger's golden vectors, computed again by other means than the code's where it can be."""

import json
from hashlib import blake2b

import msgpack
import pytest
from nacl.signing import SigningKey, VerifyKey

from protocol import codec
from protocol.envelope import Signed, unseal
from protocol.ledger import sync
from protocol.ledger.agreement import prepared_checked, report_checked, settlement_checked
from protocol.ledger.audit import Depth, audit
from protocol.ledger.certificate import certified_checked, certified_decoded
from protocol.ledger.charter import charter
from protocol.ledger.entry import entry_opened
from protocol.ledger.genesis import Genesis
from protocol.ledger.proof import (
    breach_checked,
    breach_decoded,
    contradiction_checked,
    contradiction_decoded,
)
from protocol.ledger.settlement import seat_decoded
from protocol.ledger.statement import Locked, PrepareCertificate, ReportShown, Settlement
from scripts.record_ledger_vectors import RECORDED
from scripts.vector_text import VECTORS, text_of
from tests.protocol.ledger.ledger_samples import ENTRIES, EXPORTS, MESSAGES, PROOFS, SIGNED


def load(name: str):
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def packed(value) -> bytes:
    """The canonical bytes of a vector's value, by msgpack and the form of its JSON alone."""

    def plain(part):
        match part:
            case dict():
                return [plain(each) for each in part.values()]
            case list():
                return [plain(each) for each in part]
            case str() if part.startswith("0x"):
                return bytes.fromhex(part[2:])
        return part

    return msgpack.packb(plain(value))


def id_of(data: bytes) -> str:
    return blake2b(data, digest_size=32).hexdigest()


@pytest.fixture(scope="module")
def rules():
    """The network of the vectors, from their bytes."""
    return charter(codec.decode(packed(load("ledger_entries")["genesis"]), Genesis))


@pytest.mark.parametrize("name", RECORDED)
def test_nothing_has_changed_since_they_were_recorded(name):
    recorded = (VECTORS / f"{name}.json").read_text(encoding="utf-8")
    assert text_of(RECORDED[name]()) == recorded, (
        "wire bytes have changed: if that is meant, change the specification and the version too, "
        "and run scripts/record_ledger_vectors.py"
    )


def check_envelope(vector, network: bytes) -> None:
    body, kind = bytes.fromhex(vector["bytes"]), vector["domain"].encode()
    signed_bytes = b"ayni" + bytes([len(kind)]) + kind + network + body
    signature = bytes.fromhex(vector["signature"])
    assert vector["signed_bytes"] == signed_bytes.hex()
    assert vector["id"] == id_of(body)
    VerifyKey(bytes.fromhex(vector["signer"])).verify(signed_bytes, signature)
    envelope = ["signed", bytes.fromhex(vector["signer"]), body, signature]
    assert vector["envelope"] == msgpack.packb(envelope).hex()


def test_keys_are_those_of_their_seeds(rules):
    vectors = load("ledger_entries")
    assert vectors["network"] == id_of(packed(vectors["genesis"])) == rules.network.hex()
    for key in [*vectors["witnesses"], *vectors["accounts"]]:
        assert bytes(SigningKey(bytes.fromhex(key["seed"])).verify_key).hex() == key["node"]
    assert [key["node"] for key in vectors["witnesses"]] == [one.hex() for one in rules.witnesses]


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_its_bytes_and_its_signature(name, rules):
    vector = load("ledger_entries")["entries"][name]
    assert packed(vector["value"]).hex() == vector["bytes"]
    assert vector["domain"] == "entry/1"
    check_envelope(vector, rules.network)
    signed = codec.decode(bytes.fromhex(vector["envelope"]), Signed)
    assert entry_opened(signed, rules.network).value == ENTRIES[name][0].value


def test_chains_link_by_ids_and_add_up():
    vectors = load("ledger_entries")
    entries = vectors["entries"]
    network = "0x" + vectors["network"]
    assert [entries[name]["value"]["prev"] for name in ("pay", "claim", "claim_of_two")] == (
        [network] * 3
    )
    assert entries["pay_with_reference"]["value"]["prev"] == "0x" + entries["pay"]["id"]
    assert entries["claim"]["value"]["body"]["sources"][0]["id"] == "0x" + entries["pay"]["id"]
    assert [entry["value"]["balance"] for entry in entries.values()] == [
        *(70, 50, 70, 0, 90),
        *(60, 50, 65, 75),
    ]


def test_votes_and_certificates(rules):
    vectors, entries = load("ledger_certificates"), load("ledger_entries")["entries"]
    assert vectors["quorum"] == 3
    assert vectors["vote"] == {"type": "vote", "epoch": 0, "entry": "0x" + entries["pay"]["id"]}
    for vote, witness in zip(vectors["votes"], rules.witnesses, strict=True):
        assert (vote["signer"], vote["domain"]) == (witness.hex(), "vote/1")
        assert vote["bytes"] == packed(vectors["vote"]).hex()
        check_envelope(vote, rules.network)
    seals = vectors["certified"]["pay"]["certificate"]["seals"]
    assert [seal["signature"][2:] for seal in seals] == [
        vote["signature"] for vote in vectors["votes"][:3]
    ]
    for name, vector in vectors["certified"].items():
        certificate = bytes.fromhex(vector["bytes"])
        assert packed(vector["certificate"]) == certificate
        envelope = bytes.fromhex(entries[name]["envelope"])
        whole = bytes.fromhex(vector["certified"])
        assert whole == b"\x93\xa9certified" + envelope + certificate
        certified = certified_decoded(whole)
        assert certified_checked(certified, rules).value == ENTRIES[name][0].value


@pytest.mark.parametrize("name", PROOFS)
def test_proofs(name, rules):
    vector = load("ledger_proofs")[name]
    data = bytes.fromhex(vector["bytes"])
    assert packed(vector["value"]) == data
    if name == "contradiction":
        contradiction_checked(contradiction_decoded(data), rules)
    else:
        breach_checked(breach_decoded(data), rules)


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(name):
    vector = load("ledger_messages")[name]
    data = bytes.fromhex(vector["bytes"])
    assert packed(vector["value"]) == data
    asked = type(MESSAGES[name]) in sync.Ask.__args__
    decode = sync.ask_decoded if asked else sync.answer_decoded
    assert decode(data) == MESSAGES[name]


@pytest.mark.parametrize("name", SIGNED)
def test_vouchers_and_statements(name, rules):
    vector = load("ledger_settlement")["signed"][name]
    kind, signed = SIGNED[name]
    assert packed(vector["value"]).hex() == vector["bytes"]
    assert vector["domain"] == f"{vector['value']['type']}/1"
    check_envelope(vector, rules.network)
    said = codec.decode(bytes.fromhex(vector["envelope"]), Signed)
    assert unseal(said, rules.network, kind, 256).value == codec.decode(signed.body, kind)


def test_what_settles_a_channel(rules):
    made = load("ledger_settlement")["certificates"]
    for name, vector in made.items():
        assert packed(vector["value"]).hex() == vector["bytes"], name
    lock = codec.decode(bytes.fromhex(made["prepared"]["bytes"]), PrepareCertificate)
    prepared_checked(lock, rules)
    final = codec.decode(bytes.fromhex(made["settlement"]["bytes"]), Settlement)
    settlement_checked(final, rules)
    shown = codec.decode(bytes.fromhex(made["reportshown"]["bytes"]), ReportShown)
    held = report_checked(shown, final.channel, 2, rules)
    assert (held.witness, held.locked) == (1, Locked(1, 35))
    assert seat_decoded(bytes.fromhex(made["seat"]["bytes"])).lock == lock
    # A seal of each is the witness's signature over the statement, as recorded by itself.
    signed = load("ledger_settlement")["signed"]
    for whole, statement in (("prepared", "prepare"), ("settlement", "commit")):
        seal = made[whole]["value"]["seals"][0]
        assert seal == {"witness": 0, "signature": "0x" + signed[statement]["signature"]}


def test_every_message_has_a_vector():
    assert {type(one) for one in MESSAGES.values()} == set(sync.MESSAGE_BYTES_MAX)


@pytest.mark.parametrize("name", EXPORTS)
def test_exports(name, rules):
    vector = load("ledger_export")[name]
    pieces = [bytes.fromhex(vector["file"])]
    full, heads = (audit(rules, lambda: pieces, depth) for depth in Depth)
    assert full.ok
    assert heads.ok
    assert (full.signatures, heads.signatures) == (
        vector["signatures"],
        vector["signatures_heads"],
    )
    assert {node.hex(): amount for node, amount in full.balances.items()} == vector["balances"]
    for figure in ("entries", "pays_unclaimed", "channels", "fees", "complete"):
        assert getattr(full, figure) == vector[figure], figure
