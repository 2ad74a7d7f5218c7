"""Record the golden vectors of the protocol, and the examples in SPEC.md that are taken from them.

`python -m scripts.record_vectors`, in the root of the checkout, and only when a change of wire
bytes is meant: then specification, vectors and version change together. Tests never record.
"""

import json
import re

from protocol import codec
from protocol.capacity import capacity_topic
from protocol.envelope import domain, seal
from protocol.identity import digest
from protocol.ids import NodeId, node_text
from protocol.job import commitment, rows
from protocol.job.seed import order_seed, seed_commitment, share_of_user_seed
from protocol.ledger.genesis import network_file_text, network_id
from protocol.limits import MICROCREDITS_MAX, PRICE_MAX
from protocol.pricing import cost, cost_of_part, output_tokens_affordable, prompt_prepaid
from protocol.units import credits_text
from scripts.vector_text import ROOT, VECTORS, Json, readable, text_of
from tests.protocol import samples

SPECIFICATION = ROOT / "protocol" / "SPEC.md"
SHOWN_WHOLE_DIGITS = 320  # What a reader still compares by eye.
SHOWN_DIGITS = 48  # Of a longer run of hex digits, at each end.


def messages() -> Json:
    """Every message: its value and its canonical bytes."""
    return {
        name: {"value": readable(value), "bytes": codec.encode(value).hex()}
        for name, value in samples.MESSAGES.items()
    }


def signatures() -> Json:
    """Every signed message in its envelope and its frame."""
    recorded: Json = {}
    for name, (identity, value) in samples.SIGNERS.items():
        signed = seal(identity, samples.NETWORK, value)
        tag = domain(type(value))
        envelope = codec.encode(signed)
        recorded[name] = {
            "signer": signed.signer.hex(),
            "domain": tag,
            "id": signed.id.hex(),
            "signed_bytes": (
                b"ayni" + bytes([len(tag)]) + tag.encode() + samples.NETWORK + signed.body
            ).hex(),
            "signature": signed.signature.hex(),
            "envelope": envelope.hex(),
            "frame": (len(envelope).to_bytes(4, "big") + envelope).hex(),
        }
    keys = {
        name: {"seed": seed.hex(), "node": identity.node.hex(), "text": node_text(identity.node)}
        for name, seed, identity in (
            ("requester", samples.REQUESTER_SEED, samples.REQUESTER),
            ("provider", samples.PROVIDER_SEED, samples.PROVIDER),
        )
    }
    return {"network": samples.NETWORK.hex(), "keys": keys, "messages": recorded}


def commitments() -> Json:
    """Each hash that binds words to signatures, with all that goes into it."""
    deal = samples.DEAL
    texts = [("", ()), ("The sky", samples.ANSWER_IDS[:2]), ("¡Ñandú! 🌍", (0, (1 << 31) - 1))]
    previous, first_t, hashes = commitment.RUNNING_START, 0, []
    for text, ids in texts:
        running = commitment.running_hash(previous, first_t, ids, text)
        hashes.append(
            {
                "previous": previous.hex(),
                "first_t": first_t,
                "ids": list(ids),
                "text": text,
                "running": running.hex(),
            }
        )
        previous, first_t = running, first_t + len(ids)
    shares = (samples.SHARE, samples.SHARE_PROVIDER)
    user_seeds = (0, 42, (1 << 64) - 1)
    return {
        "prompt": {
            "salt": samples.SALT.hex(),
            "value": readable(samples.PROMPT),
            "bytes": codec.encode(samples.PROMPT).hex(),
            "size": commitment.prompt_size(samples.PROMPT),
            "commitment": commitment.prompt_commitment(samples.SALT, samples.PROMPT).hex(),
        },
        "stop": {
            "salt": samples.SALT.hex(),
            "stop": list(samples.STOP),
            "digest": commitment.stop_digest(samples.SALT, samples.STOP).hex(),
            "digest_of_none": commitment.stop_digest(samples.SALT, ()).hex(),
        },
        "prompt_ids": {
            "ids": list(samples.PROMPT_IDS),
            "bytes": commitment.ids_bytes(samples.PROMPT_IDS).hex(),
            "digest": commitment.prompt_ids_digest(samples.PROMPT_IDS).hex(),
        },
        "terms": {
            "request": deal.request_id.hex(),
            "quote": deal.quote_id.hex(),
            "terms": deal.terms.hex(),
        },
        "running": hashes,
        "running_vectors": {
            "previous": previous.hex(),
            "first_t": 32,
            "vectors": [vector.hex() for vector in samples.EMBEDDED],
            "running": commitment.running_hash_vectors(previous, 32, samples.EMBEDDED).hex(),
        },
        "rows": row_trees(),
        "seed_drawn": {
            "r": shares[0].hex(),
            "commitment": seed_commitment(shares[0]).hex(),
            "p": shares[1].hex(),
            "terms": deal.terms.hex(),
            "seed": order_seed("drawn", *shares, deal.terms).hex(),
        },
        "seed_user": [
            {
                "user_seed": number,
                "r": share_of_user_seed(number).hex(),
                "seed": order_seed("user", share_of_user_seed(number), shares[1], deal.terms).hex(),
            }
            for number in user_seeds
        ],
    }


def row_trees() -> Json:
    """The roots over the hidden rows of chunks of one to five tokens, and a path to each leaf."""
    hidden = [bytes([t] * 6) for t in range(5)]
    leaves = [rows.leaf(7 + t, row) for t, row in enumerate(hidden)]
    return {
        "first_t": 7,
        "rows": [row.hex() for row in hidden],
        "leaves": [each.hex() for each in leaves],
        "roots": [rows.root(leaves[:count]).hex() for count in range(6)],
        "paths_of_five": [[node.hex() for node in rows.path(leaves, at)] for at in range(5)],
    }


def genesis() -> Json:
    """The network, what follows from its id, and nodes as text."""
    network = network_id(samples.GENESIS)
    nodes = [NodeId(bytes(32)), NodeId(b"\xff" * 32), samples.REQUESTER.node, samples.PROVIDER.node]
    return {
        "value": readable(samples.GENESIS),
        "bytes": codec.encode(samples.GENESIS).hex(),
        "network": network.hex(),
        "topic": capacity_topic(network),
        "file": network_file_text(samples.NETWORK_FILE),
        "file_value": readable(samples.NETWORK_FILE),
        "nodes": [{"node": node.hex(), "text": node_text(node)} for node in nodes],
        "digest_of_nothing": digest().hex(),
    }


def pricing() -> Json:
    """Costs at the edges of rounding, and what is affordable."""
    costs = [
        (0, 0, 0, 0),
        (1, 0, 1, 0),
        (0, 1, 0, 1_000_000),
        (7, 4, 2_000_000, 6_000_000),
        (999_999, 0, 1, 0),
        (1_000_000, 0, 1, 0),
        (1_000_001, 0, 1, 0),
        (333, 333, 1_500_000, 1_500_001),
        (262_400, 32_768, PRICE_MAX, PRICE_MAX),
    ]
    affordable = [
        (0, 0, 0, 1),
        (13, 7, 2_000_000, 6_000_000),
        (14, 7, 2_000_000, 6_000_000),
        (20, 7, 2_000_000, 6_000_000),
        (1, 0, 0, 3),
        (MICROCREDITS_MAX, 1 << 31, PRICE_MAX, PRICE_MAX),
    ]
    prompts = [(1, 1), (6, 1_000_000), (7, 1_000_000), (27, 2_000_000), (262_144, PRICE_MAX)]
    parts = [
        (0, 0, 3),
        (10, 0, 3),
        (10, 1, 3),
        (10, 2, 3),
        (10, 3, 3),
        (MICROCREDITS_MAX, 511, 512),
    ]
    amounts = [0, 1, 1_000_000, 1_234_567, MICROCREDITS_MAX]
    names = ("input_tokens", "output_tokens", "price_in", "price_out")
    return {
        "cost": [dict(zip(names, each, strict=True)) | {"cost": cost(*each)} for each in costs],
        "affordable": [
            dict(zip(("cost_max", "input_tokens", "price_in", "price_out"), each, strict=True))
            | {"output_tokens": output_tokens_affordable(*each)}
            for each in affordable
        ],
        "prompt_prepaid": [
            {"prompt_bytes": size, "price_in": price, "cost": prompt_prepaid(size, price)}
            for size, price in prompts
        ],
        "parts": [
            {"whole": whole, "part": part, "parts": count, "cost": cost_of_part(whole, part, count)}
            for whole, part, count in parts
        ],
        "credits": [{"amount": amount, "text": credits_text(amount)} for amount in amounts],
    }


RECORDED = {
    "messages": messages,
    "signatures": signatures,
    "commitments": commitments,
    "genesis": genesis,
    "pricing": pricing,
}


def shortened(digits: str) -> str:
    """The ends of a long run of hex digits, which a reader checks at a glance."""
    if len(digits) <= SHOWN_WHOLE_DIGITS:
        return digits
    return f"{digits[:SHOWN_DIGITS]}…{digits[-SHOWN_DIGITS:]}"


def example(name: str) -> str:
    """What stands in the specification between the fences of `vector NAME`."""
    message = messages()[name]
    assert isinstance(message, dict)
    value = json.dumps(message["value"], ensure_ascii=False)
    value = re.sub(r"0x[0-9a-f]+", lambda found: "0x" + shortened(found.group()[2:]), value)
    lines = [f"value     {value}", f"bytes     {shortened(message['bytes'])}"]
    signed = signatures()["messages"]
    assert isinstance(signed, dict)
    if name in signed:
        lines += [
            f"domain    {signed[name]['domain']}",
            f"id        {signed[name]['id']}",
            f"signer    {signed[name]['signer']}",
            f"signature {signed[name]['signature']}",
        ]
    return "\n".join(lines)


def with_examples(specification: str) -> str:
    """The specification with each of its examples as the vectors now are."""
    return re.sub(
        r"```vector (\w+)\n.*?```",
        lambda found: f"```vector {found.group(1)}\n{example(found.group(1))}\n```",
        specification,
        flags=re.DOTALL,
    )


def main() -> None:
    for name, record in RECORDED.items():
        (VECTORS / f"{name}.json").write_text(text_of(record()), encoding="utf-8")
    specification = with_examples(SPECIFICATION.read_text(encoding="utf-8"))
    SPECIFICATION.write_text(specification, encoding="utf-8")


if __name__ == "__main__":
    main()
