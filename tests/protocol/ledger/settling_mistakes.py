"""The mistakes of the facts (section 3): witnesses that leave out one part of the rule each."""

from dataclasses import replace

import msgspec

from protocol.ledger.settlement import on_lock, on_propose
from tests.protocol.ledger.settling import Rules


class ReportsShort(Rules):
    """Takes q - 1 reports."""

    reports_short = 1

    def propose(self, seat, turn, value, reports, clock):
        ask = self.proposal(turn, value, reports)
        short = replace(self.charter, quorum=self.charter.quorum - 1)
        return on_propose(ask, self.channel, seat, clock, short)


class PreparesShort(Rules):
    """Takes a certificate of q - 1 prepares."""

    prepares_short = 1

    def propose(self, seat, turn, value, reports, clock):
        ask = self.proposal(turn, value, reports)
        short = replace(self.charter, quorum=self.charter.quorum - 1)
        return on_propose(ask, self.channel, seat, clock, short)

    def lock(self, seat, turn, value):
        short = replace(self.charter, quorum=self.charter.quorum - 1)
        return on_lock(self.prepared(turn, value), self.channel, seat, short)


class PreparesTwice(Rules):
    """Forgets what it has prepared in a turn."""

    def propose(self, seat, turn, value, reports, clock):
        return super().propose(
            msgspec.structs.replace(seat, prepared=None), turn, value, reports, clock
        )


class TakesUnprovenLocks(Rules):
    """Believes a lock without its certificate."""

    def propose(self, seat, turn, value, reports, clock):
        believed = tuple(one._replace(is_backed=True) for one in reports)
        return super().propose(seat, turn, value, believed, clock)


class LowestLock(Rules):
    """Is bound by the lowest lock that is reported."""

    def propose(self, seat, turn, value, reports, clock):
        if all(one.is_backed for one in reports):
            lowest = min((one.lock for one in reports if one.lock), default=None)
            reports = tuple(one._replace(lock=lowest) for one in reports)
        return super().propose(seat, turn, value, reports, clock)


class HidesLock(Rules):
    """Reports no lock."""

    def ask(self, seat, turn, clock):
        decision = super().ask(msgspec.structs.replace(seat, lock=None), turn, clock)
        return replace(decision, seat=msgspec.structs.replace(decision.seat, lock=seat.lock))


class CommitsBelowPromise(Rules):
    """Commits to a turn older than the one that it promised."""

    def lock(self, seat, turn, value):
        bare = msgspec.structs.replace(seat, promised=1, lock=None)
        decision = super().lock(bare, turn, value)
        kept = seat.lock if seat.lock and seat.lock.turn >= turn else decision.seat.lock
        after = msgspec.structs.replace(seat, promised=max(seat.promised, turn), lock=kept)
        return replace(decision, seat=after)


class LosesPromise(Rules):
    """Does not store what it promised."""

    def crashed(self, seat):
        return msgspec.structs.replace(seat, promised=1, report=None, backing=None)


class OnePhase(Rules):
    """Settles by prepares alone; what a witness prepared is its lock."""

    def propose(self, seat, turn, value, reports, clock):
        believed = tuple(one._replace(is_backed=True) for one in reports)
        decision = super().propose(seat, turn, value, believed, clock)
        lock = self.prepared(turn, value)
        return replace(decision, seat=msgspec.structs.replace(decision.seat, lock=lock))

    def outcome(self, prepared, committed):
        return prepared >= self.charter.quorum


MISTAKES = {
    "reports from q - 1": ReportsShort,
    "prepare certificate of q - 1": PreparesShort,
    "two prepares a turn": PreparesTwice,
    "lock claimed without certificate": TakesUnprovenLocks,
    "lowest instead of highest lock": LowestLock,
    "report hides the lock": HidesLock,
    "commit below the promise": CommitsBelowPromise,
    "promise lost in a crash": LosesPromise,
    "one phase only": OnePhase,
}
NEED_THREE_TURNS = ("lock claimed without certificate", "lowest instead of highest lock")
