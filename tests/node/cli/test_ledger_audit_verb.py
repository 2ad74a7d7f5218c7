"""`ayni ledger audit`: coverage, findings and proofs, in plain words and as JSON."""

import json

import msgspec
from msgspec.structs import replace

from node.api.audit_views import AuditFinding, LedgerAudit
from node.api.ledger_views import ShownProof
from protocol.errors import Code
from protocol.ledger.proof import breach_made
from tests.node.api.wallet_samples import CONTRADICTION, RIVALS, SHOWING, party
from tests.protocol.ledger.chains import ANNA, BRUNO, CHARTER

AUDIT = LedgerAudit(
    keeps="all",
    is_behind=False,
    accounts=4,
    accounts_audited=3,
    entries=200,
    entries_audited=150,
    entries_pulled=90,
    signatures=800,
    faults={},
    checkpoints=0,
    entries_pruned=0,
    findings=(
        AuditFinding(
            account=party(ANNA.node), seq=120, peers=3, code="HOLDS", sentence="", at_ms=1_000
        ),
    ),
    proofs=(),
)
LIED_TO = AuditFinding(
    account=party(BRUNO.node),
    seq=7,
    peers=2,
    code=Code.UNEXPECTED.value,
    sentence="Entry 8 of this account is another one here.",
    at_ms=2_000,
)


def shown(proof) -> ShownProof:
    assert proof is not None
    return SHOWING.proof(proof)


async def told(command, backend, audit: LedgerAudit, *arguments: str):
    backend.ledger.audited = audit
    async with command.served(backend):
        return await command.called("ledger", "audit", *arguments)


async def test_coverage_is_told_in_plain_words(command, backend) -> None:
    done = await told(command, backend, AUDIT)
    words = " ".join(done.stdout.split())
    assert done.exit_code == 0
    for part in (
        "All that was verified holds.",
        "keeps: the whole chains of all accounts",
        "verified anew: 3 of 4 accounts, 150 of 200 entries (75 %)",
        "since the start: 90 entries pulled, 800 signatures checked",
        "shown by peers and wrong: nothing",
        "all holds",
        "3 nodes",
    ):
        assert part in words
    assert "pruned" not in words


async def test_what_does_not_hold_comes_with_its_proof(command, backend) -> None:
    audit = replace(
        AUDIT,
        is_behind=True,
        faults={"BAD_CERTIFICATE": 2},
        findings=(LIED_TO, *AUDIT.findings),
        proofs=(shown(CONTRADICTION),),
        checkpoints=1,
        entries_pruned=30,
        keeps="recent",
    )
    words = " ".join((await told(command, backend, audit)).stdout.split())
    for part in (
        "1 account shown in a way that does not hold; 1 proof.",
        "up to date: no, it is catching up",
        "shown by peers and wrong: 2 x BAD_CERTIFICATE",
        "UNEXPECTED: Entry 8 of this account is another one here.",
        "contradiction of anna",
        "It signed two entries for seq 1.",
        "pruned: 30 entries before 1 checkpoint",
    ):
        assert part in words


async def test_a_breach_is_said_first(command, backend) -> None:
    audit = replace(AUDIT, proofs=(shown(breach_made(RIVALS, CHARTER)),))
    done = await told(command, backend, audit)
    assert done.stdout.startswith("Witnesses have certified what excludes itself")
    assert "This ledger has halted." in " ".join(done.stdout.split())


async def test_as_json_it_is_what_the_node_says(command, backend) -> None:
    done = await told(command, backend, AUDIT, "--json")
    assert msgspec.convert(json.loads(done.stdout), LedgerAudit) == AUDIT
