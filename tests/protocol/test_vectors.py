"""The golden vectors: what was recorded is what the code says and takes, and nothing else.

Where it can be, each vector is computed again from its own JSON by other means than the code's.
"""

import json
from fractions import Fraction
from hashlib import blake2b
from math import ceil

import msgpack
import pytest
from nacl.signing import SigningKey, VerifyKey

from protocol import codec
from protocol.capacity import capacity_topic
from protocol.envelope import Signed, seal, unseal
from protocol.ids import node_parsed, node_text
from protocol.job import rows
from protocol.job.commitment import (
    prompt_commitment,
    running_hash,
    running_hash_vectors,
    stop_digest,
)
from protocol.job.seed import order_seed
from protocol.ledger.genesis import network_file_parsed, network_id
from protocol.limits import FRAME_BYTES_MAX
from protocol.messages import job_frame
from protocol.pricing import cost, cost_of_part, output_tokens_affordable, prompt_prepaid
from protocol.units import credits_parsed
from scripts.record_vectors import RECORDED, VECTORS, text_of
from tests.protocol.samples import MESSAGES, NETWORK, PROMPT, SIGNERS


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


def hash_of(*parts: bytes, **options) -> str:
    return blake2b(b"".join(parts), digest_size=32, **options).hexdigest()


@pytest.mark.parametrize("name", RECORDED)
def test_nothing_has_changed_since_they_were_recorded(name):
    recorded = (VECTORS / f"{name}.json").read_text(encoding="utf-8")
    assert text_of(RECORDED[name]()) == recorded, (
        "wire bytes have changed: if that is meant, change the specification and the version too, "
        "and run scripts/record_vectors.py"
    )


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_packs_to_its_bytes_and_comes_back(name):
    vector, kind = load("messages")[name], type(MESSAGES[name])
    data = bytes.fromhex(vector["bytes"])
    assert packed(vector["value"]) == data
    value = codec.decode(data, kind)
    assert value == MESSAGES[name]
    assert codec.encode(value) == data


def test_every_message_and_signer_has_a_vector():
    assert list(load("messages")) == list(MESSAGES)
    assert list(load("signatures")["messages"]) == list(SIGNERS)


@pytest.mark.parametrize("name", SIGNERS)
def test_a_signature_is_over_domain_network_and_bytes(name):
    vectors, (identity, value) = load("signatures"), SIGNERS[name]
    vector, body = vectors["messages"][name], codec.encode(value)
    network, tag = bytes.fromhex(vectors["network"]), vector["domain"].encode()
    signed_bytes = b"ayni" + bytes([len(tag)]) + tag + network + body
    assert signed_bytes.hex() == vector["signed_bytes"]
    seeds = {key["node"]: key["seed"] for key in vectors["keys"].values()}
    key = SigningKey(bytes.fromhex(seeds[vector["signer"]]))
    signature = bytes.fromhex(vector["signature"])
    assert key.sign(signed_bytes).signature == signature
    VerifyKey(identity.node).verify(signed_bytes, signature)
    assert vector["id"] == hash_of(body)
    assert vector["domain"] == f"{msgpack.unpackb(body)[0]}/1"


@pytest.mark.parametrize("name", SIGNERS)
def test_a_frame_holds_the_envelope_and_the_envelope_opens(name):
    vector, (identity, value) = load("signatures")["messages"][name], SIGNERS[name]
    envelope = bytes.fromhex(vector["envelope"])
    assert bytes.fromhex(vector["frame"]) == len(envelope).to_bytes(4, "big") + envelope
    signed = codec.decode(envelope, Signed)
    assert signed == seal(identity, NETWORK, value) == job_frame(envelope)
    assert unseal(signed, NETWORK, type(value), FRAME_BYTES_MAX).value == value


def test_keys_and_nodes_have_their_texts():
    for key in load("signatures")["keys"].values():
        node = SigningKey(bytes.fromhex(key["seed"])).verify_key
        assert bytes(node).hex() == key["node"]
        assert node_parsed(key["text"]).hex() == key["node"]
    for vector in load("genesis")["nodes"]:
        assert node_text(bytes.fromhex(vector["node"])) == vector["text"]
        assert node_parsed(vector["text"]).hex() == vector["node"]


def test_the_running_hash_is_what_the_specification_says():
    vectors = load("commitments")["running"]
    before = {"running": bytes(32).hex(), "first_t": 0, "ids": []}
    for vector in vectors:
        assert vector["previous"] == before["running"]
        assert vector["first_t"] == before["first_t"] + len(before["ids"])
        previous, ids = bytes.fromhex(vector["previous"]), vector["ids"]
        head = vector["first_t"].to_bytes(8, "little") + len(ids).to_bytes(4, "little")
        tokens = b"".join(token.to_bytes(4, "little") for token in ids)
        assert vector["running"] == hash_of(previous, head, tokens, vector["text"].encode())
        assert vector["running"] == (
            running_hash(previous, vector["first_t"], ids, vector["text"]).hex()
        )
        before = vector


def test_the_running_hash_of_vectors_is_what_the_specification_says():
    vector = load("commitments")["running_vectors"]
    previous = bytes.fromhex(vector["previous"])
    vectors = [bytes.fromhex(one) for one in vector["vectors"]]
    head = vector["first_t"].to_bytes(8, "little") + len(vectors).to_bytes(4, "little")
    assert vector["running"] == hash_of(previous, head, *vectors)
    found = running_hash_vectors(previous, vector["first_t"], vectors)
    assert vector["running"] == found.hex()


def test_the_roots_over_hidden_rows():
    vector = load("commitments")["rows"]
    leaves = [
        hash_of(bytes.fromhex(row), person=b"ayni-row-1", salt=t.to_bytes(8, "little"))
        for t, row in enumerate(vector["rows"], vector["first_t"])
    ]
    assert vector["leaves"] == leaves

    def node(left, right):
        return hash_of(bytes.fromhex(left), bytes.fromhex(right), person=b"ayni-node-1")

    one, two, three, four, five = leaves
    pair, other = node(one, two), node(three, four)
    roots = ["", one, pair, node(pair, three), node(pair, other), node(node(pair, other), five)]
    assert vector["roots"] == roots
    found = [rows.root([bytes.fromhex(each) for each in leaves[:n]]).hex() for n in range(6)]
    assert found == roots
    assert vector["paths_of_five"][0] == [two, other, five]
    assert vector["paths_of_five"][4] == [node(pair, other)]


def test_the_commitments_of_prompt_and_stop_strings():
    vectors = load("commitments")
    prompt, stop = vectors["prompt"], vectors["stop"]
    salt, data = bytes.fromhex(prompt["salt"]), bytes.fromhex(prompt["bytes"])
    assert packed(prompt["value"]) == data
    assert prompt["size"] == len(data)
    assert prompt["commitment"] == hash_of(data, key=salt)
    assert prompt["commitment"] == prompt_commitment(salt, PROMPT).hex()
    assert stop["digest"] == hash_of(packed(stop["stop"]), key=salt, person=b"ayni-stop-1")
    assert stop["digest_of_none"] == hash_of(packed([]), key=salt, person=b"ayni-stop-1")
    assert stop["digest"] == stop_digest(salt, stop["stop"]).hex()
    ids = vectors["prompt_ids"]
    tokens = b"".join(token.to_bytes(4, "little") for token in ids["ids"])
    assert (ids["bytes"], ids["digest"]) == (tokens.hex(), hash_of(tokens))


def test_terms_and_seeds():
    vectors, messages = load("commitments"), load("signatures")["messages"]
    terms = vectors["terms"]
    assert terms["request"] == messages["request"]["id"]
    assert terms["quote"] == messages["quote"]["id"]
    both = bytes.fromhex(terms["request"] + terms["quote"])
    assert terms["terms"] == hash_of(both)
    drawn = vectors["seed_drawn"]
    r, p, agreed = (bytes.fromhex(drawn[name]) for name in ("r", "p", "terms"))
    assert drawn["commitment"] == hash_of(r)
    assert drawn["seed"] == hash_of(r, p, agreed) == order_seed("drawn", r, p, agreed).hex()
    for user in vectors["seed_user"]:
        number = user["user_seed"].to_bytes(8, "little")
        assert user["r"] == (number + bytes(24)).hex()
        assert user["seed"] == hash_of(number, person=b"ayni-seed-user-1")


def test_the_genesis_names_its_network():
    vector = load("genesis")
    data = packed(vector["value"])
    assert data.hex() == vector["bytes"]
    assert vector["network"] == hash_of(data) == load("signatures")["network"]
    assert vector["topic"] == f"/ayni/{vector['network'][:16]}/capacity/1"
    file = network_file_parsed(vector["file"])
    assert network_id(file.genesis).hex() == vector["network"]
    assert capacity_topic(network_id(file.genesis)) == vector["topic"]
    assert codec.encode(file) == packed(vector["file_value"])


def test_prices():
    vectors = load("pricing")
    for each in vectors["cost"]:
        usage = each["input_tokens"], each["output_tokens"]
        prices = each["price_in"], each["price_out"]
        exact = Fraction(usage[0] * prices[0] + usage[1] * prices[1], 1_000_000)
        assert each["cost"] == ceil(exact) == cost(*usage, *prices)
    for each in vectors["affordable"]:
        found = output_tokens_affordable(
            each["cost_max"], each["input_tokens"], each["price_in"], each["price_out"]
        )
        assert found == each["output_tokens"]
    for each in vectors["prompt_prepaid"]:
        exact = Fraction(ceil(Fraction(each["prompt_bytes"], 6)) * each["price_in"], 1_000_000)
        found = prompt_prepaid(each["prompt_bytes"], each["price_in"])
        assert each["cost"] == ceil(exact) == found
    for each in vectors["parts"]:
        exact = Fraction(each["whole"] * each["part"], each["parts"])
        found = cost_of_part(each["whole"], each["part"], each["parts"])
        assert each["cost"] == ceil(exact) == found
    for each in vectors["credits"]:
        assert credits_parsed(each["text"]) == each["amount"]
