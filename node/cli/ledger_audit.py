"""`ayni ledger audit`: what this node has verified of the others, and what it found."""

from typing import Final

import click

from node.api.audit_views import AuditFinding, Keeps, LedgerAudit
from node.cli.client import connect
from node.cli.ledger_words import party_words
from node.cli.session import Session, Verb
from node.cli.words import count_words, time_words

HOLDS: Final = "HOLDS"
KEEPS: Final[dict[Keeps, str]] = {
    "all": "the whole chains of all accounts",
    "recent": "all accounts from their checkpoints on",
    "own": "this node's own chain, its channels and all proofs",
}


@click.command(cls=Verb, example="ayni ledger audit")
@click.pass_obj
def audit(session: Session) -> None:
    """Show how much of the others' chains was verified, what was found last, and every proof.

    A node verifies each entry when it comes, and all the time pulls some account's chain anew from
    several nodes and verifies it from the genesis on.
    """
    found = connect(session.paths).get("/ayni/v1/ledger/audit", LedgerAudit)
    if session.output.as_json:
        session.output.json(found)
        return
    session.output.facts(_headline(found), _facts(found))
    if found.findings:
        columns = ("account", "verified up to>", "shown by>", "when", "found")
        rows = [_row(one) for one in found.findings]
        session.output.table("Last verified anew", columns, rows)
    for proof in found.proofs:
        session.output.line(f"{proof.kind} of {party_words(proof.account)}: {proof.sentence}")
    if found.proofs:
        session.output.remark("`ayni ledger proofs` shows the signed entries themselves.")


def _headline(found: LedgerAudit) -> str:
    breaches = sum(proof.kind == "breach" for proof in found.proofs)
    if breaches:
        return "Witnesses have certified what excludes itself: no payment here can be trusted."
    wrong = sum(one.code != HOLDS for one in found.findings)
    if wrong or found.proofs:
        proofs = count_words(len(found.proofs), "proof")
        return f"{count_words(wrong, 'account')} shown in a way that does not hold; {proofs}."
    return "All that was verified holds."


def _facts(found: LedgerAudit) -> list[tuple[str, str]]:
    accounts = f"{found.accounts_audited} of {found.accounts}"
    entries = f"{found.entries_audited} of {found.entries}"
    faults = ", ".join(f"{count} x {code}" for code, count in found.faults.items())
    facts = [
        ("keeps", KEEPS[found.keeps]),
        ("up to date", "no, it is catching up" if found.is_behind else "yes, as far as peers say"),
        ("verified anew", f"{accounts} accounts, {entries} entries{_share(found)}"),
        (
            "since the start",
            f"{found.entries_pulled} entries pulled, {found.signatures} signatures checked",
        ),
        ("shown by peers and wrong", faults or "nothing"),
    ]
    if found.checkpoints:
        pruned = count_words(found.entries_pruned, "entry", "entries")
        facts.append(("pruned", f"{pruned} before {count_words(found.checkpoints, 'checkpoint')}"))
    return facts


def _share(found: LedgerAudit) -> str:
    if not found.entries:
        return ""
    return f" ({100 * found.entries_audited // found.entries} %)"


def _row(one: AuditFinding) -> tuple[str, ...]:
    holds = "all holds" if one.code == HOLDS else f"{one.code}: {one.sentence}"
    nodes = count_words(one.peers, "node")
    return party_words(one.account), str(one.seq), nodes, time_words(one.at_ms), holds
