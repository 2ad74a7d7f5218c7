"""Raw verification and the audit of an export, in turns, in one process.

Both only compute, so both are timed in seconds of the processor: those of other programs on the
machine do not count.
"""

import statistics
import time
from collections.abc import Callable
from random import Random
from typing import Any

from bench_ledger_world import NO_REFERENCE, Chain, certified_of, charter_of, identity_of, witnesses
from nacl.signing import SigningKey

from protocol.identity import Identity
from protocol.ids import MessageId
from protocol.ledger.audit import Depth, Report, audit
from protocol.ledger.certificate import Certified
from protocol.ledger.charter import Charter
from protocol.ledger.entry import PAY, Claim, Pay, Source
from protocol.ledger.export import export_header, framed

ACCOUNTS = 20
CLAIM_SOURCES = 16  # As many as the journal waits for before it claims.
RAW_SECONDS = 0.5
RAW_BYTES = 248  # What is signed for a pay: its 200 bytes and the domain and network before them.
ROUNDS = 5
FULL_GOAL = 0.8  # Of raw / (1 + q) entries a second.
HEADS_GOAL = 0.7  # Of raw, in signatures a second.


def raw_rate(seconds: float = RAW_SECONDS) -> float:
    """PyNaCl's `VerifyKey.verify` a second, on one core."""
    key = SigningKey(bytes(32))
    signed = [key.sign(number.to_bytes(RAW_BYTES, "big")) for number in range(100)]
    verify, count, began = key.verify_key.verify, 0, time.process_time()
    while (passed := time.process_time() - began) < seconds:
        for one in signed:
            verify(one.message, one.signature)
        count += len(signed)
    return count / passed


def export_accounts() -> list[Identity]:
    """Whose chains the files are of."""
    return [identity_of("account", number) for number in range(ACCOUNTS)]


def export_of(entries: int, *, with_claims: bool) -> tuple[Charter, bytes, dict[str, int]]:
    """A file of so many entries of twenty accounts, whose pays are claimed sixteen at a time or
    not at all; and how many are pays and claims."""
    chance = Random(0)
    identities = export_accounts()
    rules, sealers = charter_of(identities), witnesses()
    chains = [Chain(identity, rules) for identity in identities]
    files: list[list[Certified]] = [[] for _ in chains]
    owed: list[list[tuple[MessageId, int]]] = [[] for _ in chains]
    claims = 0
    for number in range(entries):
        which = number % ACCOUNTS
        if with_claims and len(owed[which]) >= CLAIM_SOURCES:
            sources = [Source(PAY, *owed[which].pop()) for _ in range(CLAIM_SOURCES)]
            signed = chains[which].signed(Claim(tuple(sources)))
            claims += 1
        else:
            other = (which + chance.randrange(1, ACCOUNTS)) % ACCOUNTS
            pay = Pay(identities[other].node, chance.randrange(1, 100), NO_REFERENCE)
            signed = chains[which].signed(pay)
            owed[other].append((signed.id, pay.amount))
        files[which].append(certified_of(signed, sealers, rules))
    order = sorted(range(ACCOUNTS), key=lambda which: identities[which].node)
    frames = [framed(certified) for which in order for certified in files[which]]
    data = export_header(rules, shown=0, entries=entries) + b"".join(frames)
    return rules, data, {"pays": entries - claims, "claims": claims}


def in_pieces(data: bytes) -> Callable[[], list[bytes]]:
    """As a file is read: 64 KiB at a time."""
    pieces = [data[start : start + (1 << 16)] for start in range(0, len(data), 1 << 16)]
    return lambda: pieces


def verify_figures(entries: int, rounds: int = ROUNDS) -> dict[str, Any]:
    """Each depth and each mix, with raw verification measured around each turn."""
    figures: dict[str, Any] = {"entries": entries, "signatures_per_entry": 0, "files": []}
    for with_claims in (False, True):
        rules, data, mix = export_of(entries, with_claims=with_claims)
        figures["signatures_per_entry"] = 1 + rules.quorum
        for depth in Depth:
            turns = [_turn(rules, data, depth) for _ in range(rounds)]
            report = turns[0][0]
            seconds = statistics.median(turn[1] for turn in turns)
            figures["files"].append(
                {
                    **mix,
                    "bytes": len(data),
                    "depth": depth.value,
                    "signatures": report.signatures,
                    "seconds": round(seconds, 3),
                    "entries_per_second": round(report.entries / seconds),
                    "signatures_per_second": round(report.signatures / seconds),
                    "raw_per_second": round(statistics.median(turn[2] for turn in turns)),
                    "signatures_to_raw": _ratio(turns, report.signatures),
                    "entries_to_raw": _ratio(turns, report.entries),
                }
            )
    return figures


def _turn(rules: Charter, data: bytes, depth: Depth) -> tuple[Report, float, float]:
    """The report, its seconds, and raw verifications a second just before and after."""
    before = raw_rate(RAW_SECONDS / 2)
    began = time.process_time()
    report = audit(rules, in_pieces(data), depth)
    seconds = time.process_time() - began
    assert report.ok, report.faults
    return report, seconds, (before + raw_rate(RAW_SECONDS / 2)) / 2


def _ratio(turns: list[tuple[Report, float, float]], count: int) -> float:
    return round(statistics.median(count / seconds / raw for _, seconds, raw in turns), 3)


def verify_lines(figures: dict[str, Any]) -> list[str]:
    """For people."""
    lines = []
    each = figures["signatures_per_entry"]
    for file in figures["files"]:
        if file["depth"] == Depth.FULL.value:
            goal = f"{round(file['entries_to_raw'] * each, 3)} of raw / {each} (goal: {FULL_GOAL})"
        else:
            goal = f"{file['signatures_to_raw']} of raw in signatures (goal: {HEADS_GOAL})"
        lines.append(
            f"{file['pays']} pays and {file['claims']} claims, {file['depth']}: "
            f"{file['entries_per_second']} entries/s, {file['signatures_per_second']} signatures/s "
            f"({file['signatures']} of them), raw {file['raw_per_second']}/s: {goal}; "
            f"{file['entries_to_raw']} of raw in entries"
        )
    return lines
