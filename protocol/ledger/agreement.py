"""Checking and making what a settlement is agreed by: reports, prepares, commits (facts 1.4).

Witnesses check what the owner of a turn shows; the owner checks what witnesses answer. Both by
these functions.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from protocol.envelope import Signed, unseal
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId
from protocol.ledger.certificate import EPOCH, Seal, seals_checked, seals_ordered, statement_seal
from protocol.ledger.charter import Charter
from protocol.ledger.statement import (
    Commit,
    Locked,
    Prepare,
    PrepareCertificate,
    Proposal,
    Report,
    ReportShown,
    Settlement,
)

STATEMENT_BYTES_MAX = 128
"""Of a TurnAsk, Proposal, Report, Prepare or Commit: a channel, three numbers and a tag."""


@dataclass(frozen=True, slots=True)
class ReportHeld:
    """A report whose signature holds and whose lock is backed."""

    witness: int
    locked: Locked | None


def report_checked(
    shown: ReportShown, channel: MessageId, turn: int, charter: Charter
) -> ReportHeld:
    """One witness's report for a turn, as it answered it or as a proposal shows it.

    Raises RemoteError: NOT_WITNESS, UNEXPECTED where it is of another channel or turn, BAD_PROOF
    for a lock without its prepare certificate of an earlier turn, and what `unseal` and
    `prepared_checked` raise.
    """
    number = charter.number(shown.report.signer)
    if number is None:
        raise RemoteError(Code.NOT_WITNESS, "A report is signed by no witness of this network.")
    report = unseal(shown.report, charter.network, Report, STATEMENT_BYTES_MAX).value
    if (report.epoch, report.channel, report.turn) != (EPOCH, channel, turn):
        raise RemoteError(
            Code.UNEXPECTED, f"The report of witness {number} is of another channel or turn."
        )
    locked, lock = report.locked, shown.lock
    backing = None if lock is None else (lock.channel, Locked(lock.turn, lock.value))
    if backing != (None if locked is None else (channel, locked)):
        raise RemoteError(
            Code.BAD_PROOF, f"The lock that witness {number} reports comes without its certificate."
        )
    if lock is not None:
        if lock.turn >= turn:
            raise RemoteError(Code.BAD_PROOF, "A report shows a lock of no earlier turn.")
        prepared_checked(lock, charter)
    return ReportHeld(number, locked)


def highest_lock(
    reports: Iterable[ReportShown], channel: MessageId, turn: int, charter: Charter
) -> Locked | None:
    """What q reports force: the value of the highest lock in them; None: the owner is free.

    Raises RemoteError: BAD_PROOF with fewer than q witnesses' reports or two of one, and what
    `report_checked` raises: one bad report among them is enough to refuse.
    """
    locks: list[Locked] = []
    witnesses: set[int] = set()
    for shown in reports:
        reported = report_checked(shown, channel, turn, charter)
        if reported.witness in witnesses:
            raise RemoteError(Code.BAD_PROOF, "Two reports of one witness are shown.")
        witnesses.add(reported.witness)
        if reported.locked is not None:
            locks.append(reported.locked)
    if len(witnesses) < charter.quorum:
        raise RemoteError(
            Code.BAD_PROOF,
            f"{len(witnesses)} reports of turn {turn} are shown; it takes {charter.quorum}.",
        )
    return max(locks, key=lambda lock: lock.turn, default=None)


def prepare_of(proposal: Proposal | PrepareCertificate) -> Prepare:
    """What a witness signs for a proposal, and what a prepare certificate seals."""
    return Prepare(EPOCH, proposal.channel, proposal.turn, proposal.value)


def commit_of(certificate: PrepareCertificate | Settlement) -> Commit:
    """What a witness signs for a prepare certificate, and what a settlement seals."""
    return Commit(EPOCH, certificate.channel, certificate.turn, certificate.value)


def prepare_seal(vote: Signed, proposal: Proposal, charter: Charter) -> Seal:
    """The seal that a witness's Prepare is. Raises RemoteError as `statement_seal`."""
    return statement_seal(vote, prepare_of(proposal), charter)


def commit_seal(vote: Signed, certificate: PrepareCertificate, charter: Charter) -> Seal:
    """The seal that a witness's Commit is. Raises RemoteError as `statement_seal`."""
    return statement_seal(vote, commit_of(certificate), charter)


def prepared_made(
    proposal: Proposal, seals: Iterable[Seal], charter: Charter
) -> PrepareCertificate | None:
    """The certificate that these seals, each from `prepare_seal`, make; None while too few."""
    ordered = seals_ordered(seals, charter)
    if ordered is None:
        return None
    return PrepareCertificate(EPOCH, proposal.channel, proposal.turn, proposal.value, ordered)


def settlement_made(
    certificate: PrepareCertificate, seals: Iterable[Seal], charter: Charter
) -> Settlement | None:
    """The settlement that these seals, each from `commit_seal`, make; None while too few."""
    ordered = seals_ordered(seals, charter)
    if ordered is None:
        return None
    return Settlement(EPOCH, certificate.channel, certificate.turn, certificate.value, ordered)


def prepared_checked(certificate: PrepareCertificate, charter: Charter) -> None:
    """Raises RemoteError BAD_CERTIFICATE unless q witnesses or more prepared it."""
    seals_checked(prepare_of(certificate), certificate.epoch, certificate.seals, charter)


def settlement_checked(settlement: Settlement, charter: Charter) -> None:
    """Raises RemoteError BAD_CERTIFICATE unless q witnesses or more committed it."""
    seals_checked(commit_of(settlement), settlement.epoch, settlement.seals, charter)
