"""Whether a witness's seat knows of what the witness has signed: one from an old copy does not.

A seat is on disk before anything that follows from it leaves, so a statement of our own that it
does not know of shows that the store is older than we are. Then others' seats may be too old as
well, and a witness that goes on regardless is one of the f that may do anything.
"""

from protocol.envelope import Signed
from protocol.ledger.agreement import STATEMENT_BYTES_MAX, prepare_of
from protocol.ledger.decoder import Decoder
from protocol.ledger.settlement import Seat
from protocol.ledger.statement import PrepareCertificate, Report, Seals, Settlement

_REPORTS = Decoder(Report, STATEMENT_BYTES_MAX)


def remembers_report(seat: Seat, report: Signed) -> bool:
    """Whether it has promised the turn of a report that was checked, and is ours."""
    return seat.promised >= _REPORTS.decode(report.body).turn


def remembers_prepare(seat: Seat, certificate: PrepareCertificate, number: int | None) -> bool:
    """Whether it knows of our seal in a certificate that was checked, if there is one."""
    if not _has_sealed(certificate.seals, number) or seat.promised > certificate.turn:
        return True
    is_locked = seat.lock is not None and seat.lock.turn >= certificate.turn
    return is_locked or seat.prepared == prepare_of(certificate)


def remembers_commit(seat: Seat, settlement: Settlement, number: int | None) -> bool:
    """As `remembers_prepare`, of a settlement."""
    if not _has_sealed(settlement.seals, number):
        return True
    return seat.lock is not None and seat.lock.turn >= settlement.turn


def _has_sealed(seals: Seals, number: int | None) -> bool:
    return any(seal.witness == number for seal in seals)
