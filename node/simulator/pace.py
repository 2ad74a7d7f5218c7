"""How fast a simulated world lives: what takes days in a real one takes hours or minutes."""

from dataclasses import dataclass
from typing import Final

from node.channels.policy import Limits
from node.ledger.audit import Settings as AuditSettings
from node.ledger.journal import Settings as JournalSettings
from node.ledger.service import Settings as LedgerSettings

HURRIED_HOURS: Final = 3.0
SKEW_MS_MAX: Final = 1_000
"""By which honest clocks are off while none jumps: a turn bears 5 delays and 4 of these."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The lengths of time of a genesis, of channels, and of the ledger's background work."""

    grace_ms: int
    window_ms: int
    limits: Limits
    ledger: LedgerSettings
    check_seconds: float
    """Between two checks of all that honest nodes hold."""


_HURRIED: Final = Pace(
    grace_ms=6_000,
    window_ms=40_000,
    limits=Limits(life_ms=600_000, idle_ms=600_000, deposit_percent=10, locked_percent=60),
    ledger=LedgerSettings(
        JournalSettings(claim_sources=3, claim_seconds=20, agree_seconds=2),
        AuditSettings(round_seconds=180, check_seconds=900),
    ),
    check_seconds=60,
)
_SLOW: Final = Pace(
    grace_ms=60_000,
    window_ms=120_000,
    limits=Limits(life_ms=14_400_000, idle_ms=14_400_000, deposit_percent=10, locked_percent=60),
    ledger=LedgerSettings(
        JournalSettings(claim_seconds=600, agree_seconds=5),
        AuditSettings(round_seconds=1800, check_seconds=7200),
    ),
    check_seconds=900,
)


def pace_for(hours: float) -> Pace:
    """Whoever lives through little time does by the minute what others do by the hour."""
    return _HURRIED if hours <= HURRIED_HOURS else _SLOW
