"""From what the continuous audit has done to what the API shows of it."""

from collections.abc import Sequence

from node.api.audit_views import AuditFinding, Keeps, LedgerAudit
from node.api.ledger_shown import Showing
from node.api.ledger_views import ShownProof
from node.ledger.audit import Figures
from node.storage.audits import Coverage, Finding
from node.storage.checkpoints import Pruned


def audit_shown(
    figures: Figures,
    coverage: Coverage,
    pruned: Pruned,
    *,
    keeps: Keeps,
    proofs: Sequence[ShownProof],
    showing: Showing,
) -> LedgerAudit:
    return LedgerAudit(
        keeps=keeps,
        is_behind=figures.is_behind,
        accounts=coverage.accounts,
        accounts_audited=coverage.audited,
        entries=coverage.entries,
        entries_audited=coverage.entries_audited,
        entries_pulled=figures.entries,
        signatures=figures.signatures,
        faults={code.value: count for code, count in sorted(figures.faults.items())},
        checkpoints=pruned.checkpoints,
        entries_pruned=pruned.entries_pruned,
        findings=tuple(_finding(one, showing) for one in coverage.last),
        proofs=tuple(proofs),
    )


def _finding(one: Finding, showing: Showing) -> AuditFinding:
    return AuditFinding(
        account=showing.party(one.account),
        seq=one.seq,
        peers=one.peers,
        code=one.code,
        sentence=one.sentence,
        at_ms=one.at_ms,
    )
