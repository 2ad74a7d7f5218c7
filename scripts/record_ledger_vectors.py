"""Record the golden vectors of the ledger: entries, votes, certificates, proofs, settlement,
messages, export.

`python -m scripts.record_ledger_vectors`, in the root of the checkout, and only when a change of
wire bytes is meant: then specification, vectors and version change together. Tests never record.
"""

from protocol import codec
from protocol.envelope import Signed
from protocol.identity import Identity
from protocol.ledger.audit import Depth, audit
from protocol.ledger.certificate import Vote, vote_signed
from protocol.ledger.export import ExportFrame, Shown, export_header, framed
from scripts.vector_text import VECTORS, Json, readable, text_of
from tests.protocol.ledger import ledger_samples as samples


def enveloped(signed: Signed, kind: str) -> Json:
    """All that a signature hangs on."""
    head = b"ayni" + bytes([len(kind)]) + kind.encode()
    return {
        "signer": signed.signer.hex(),
        "domain": kind,
        "bytes": signed.body.hex(),
        "id": signed.id.hex(),
        "signed_bytes": (head + samples.CHARTER.network + signed.body).hex(),
        "signature": signed.signature.hex(),
        "envelope": codec.encode(signed).hex(),
    }


def entries() -> Json:
    """The network, its accounts and every entry, with the id that the next one links to."""
    return {
        "genesis": readable(samples.GENESIS),
        "network": samples.CHARTER.network.hex(),
        "witnesses": [_key(identity, seed) for identity, seed in samples.WITNESS_SEEDS],
        "accounts": [_key(identity, seed) for identity, seed in samples.ACCOUNT_SEEDS],
        "entries": {
            name: {"value": readable(opened.value)} | enveloped(certified.entry, "entry/1")
            for name, (opened, certified) in samples.ENTRIES.items()
        },
    }


def _key(identity: Identity, seed: bytes) -> Json:
    return {"seed": seed.hex(), "node": identity.node.hex()}


def certificates() -> Json:
    """The votes for one entry, and each certificate."""
    _, certified = samples.ENTRIES["pay"]
    votes = [
        vote_signed(identity, certified.entry.id, samples.CHARTER.network)
        for identity, _ in samples.WITNESS_SEEDS
    ]
    return {
        "quorum": samples.CHARTER.quorum,
        "vote": readable(Vote(0, certified.entry.id)),
        "votes": [enveloped(vote, "vote/1") for vote in votes],
        "certified": {
            name: {
                "certificate": readable(one.certificate),
                "bytes": codec.encode(one.certificate).hex(),
                "certified": codec.encode(one).hex(),
            }
            for name, (_, one) in samples.ENTRIES.items()
        },
    }


def proofs() -> Json:
    """A contradiction and each shape of a breach."""
    return {
        name: {"value": readable(proof), "bytes": codec.encode(proof).hex()}
        for name, proof in samples.PROOFS.items()
    }


def settlement() -> Json:
    """A voucher, every statement of a settlement, and what they make."""
    return {
        "signed": {
            name: {"value": readable(codec.decode(signed.body, kind))}
            | enveloped(signed, f"{kind.__struct_config__.tag}/1")
            for name, (kind, signed) in samples.SIGNED.items()
        },
        "certificates": {
            name: {"value": readable(one), "bytes": codec.encode(one).hex()}
            for name, one in (samples.CERTIFICATES | {"seat": samples.SEAT}).items()
        },
    }


def messages() -> Json:
    """Every message of the ledger's protocol."""
    return {
        name: {"value": readable(message), "bytes": codec.encode(message).hex()}
        for name, message in samples.MESSAGES.items()
    }


def exported() -> Json:
    """A whole town, one chain with what it shows, and what an audit says of them."""
    recorded: Json = {}
    for name, (shown, settlements, chains) in samples.EXPORTS.items():
        header = export_header(
            samples.CHARTER,
            shown=len(shown),
            settlements=len(settlements),
            entries=len(chains),
        )
        frames: list[ExportFrame] = [*map(Shown, shown), *settlements, *chains]
        data = header + b"".join(framed(frame) for frame in frames)
        full, heads = (audit(samples.CHARTER, lambda data=data: [data], depth) for depth in Depth)
        assert full.ok
        assert heads.ok
        recorded[name] = {
            "file": data.hex(),
            "entries": full.entries,
            "signatures": full.signatures,
            "signatures_heads": heads.signatures,
            "balances": {node.hex(): full.balances[node] for node in sorted(full.balances)},
            "pays_unclaimed": full.pays_unclaimed,
            "channels": full.channels,
            "fees": full.fees,
            "complete": full.complete,
        }
    return recorded


RECORDED = {
    "ledger_entries": entries,
    "ledger_certificates": certificates,
    "ledger_proofs": proofs,
    "ledger_settlement": settlement,
    "ledger_messages": messages,
    "ledger_export": exported,
}


def main() -> None:
    VECTORS.mkdir(exist_ok=True)
    for name, record in RECORDED.items():
        (VECTORS / f"{name}.json").write_text(text_of(record()), encoding="utf-8")


if __name__ == "__main__":
    main()
