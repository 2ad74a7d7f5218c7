"""What `ayni ledger audit` shows: plain values, as in `node.api.ledger_views`."""

from typing import Literal

from msgspec import Struct

from node.api.ledger_views import Party, ShownProof

Keeps = Literal["all", "recent", "own"]
"""Whole chains of everybody; everybody's from their checkpoints on; this node's own."""


class AuditFinding(Struct, frozen=True, kw_only=True):
    """One account's chain, pulled anew from `peers` nodes and verified from the genesis on, up to
    `seq`. `code` is HOLDS, or says what did not hold."""

    account: Party
    seq: int
    peers: int
    code: str
    sentence: str
    at_ms: int


class LedgerAudit(Struct, frozen=True, kw_only=True):
    """What this node has verified of the others, and what it found. Accounts and entries are those
    of others that are here; `faults` counts what peers showed that did not hold, since the start,
    by code; the newest findings come first, faults before all."""

    keeps: Keeps
    is_behind: bool
    accounts: int
    accounts_audited: int
    entries: int
    entries_audited: int
    entries_pulled: int
    signatures: int
    faults: dict[str, int]
    checkpoints: int
    entries_pruned: int
    findings: tuple[AuditFinding, ...]
    proofs: tuple[ShownProof, ...]
