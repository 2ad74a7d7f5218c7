"""Each deliberate mistake of facts 3 in the rule that settles channels: a Rule with one fault."""

from dataclasses import replace

import msgspec

from node.simulator.settling import Rule
from protocol.envelope import unseal
from protocol.errors import Code, RemoteError
from protocol.ledger.agreement import STATEMENT_BYTES_MAX, prepare_of, report_checked
from protocol.ledger.settlement import Decision, Seat, on_ask, on_lock, on_propose
from protocol.ledger.statement import Commit, Proposal, Report

changed = msgspec.structs.replace


def two_prepares(ask, channel, seat, clock, charter):
    """A second value of a turn is prepared, too."""
    return on_propose(ask, channel, changed(seat, prepared=None), clock, charter)


def by_locks(choose, is_proven):
    """Proposals whose value is forced by another lock than the highest one that is proven."""

    def propose(ask, channel, seat, clock, charter):
        proposal = unseal(ask.proposal, charter.network, Proposal, STATEMENT_BYTES_MAX).value
        if proposal.turn == 1:
            return on_propose(ask, channel, seat, clock, charter)
        if proposal.turn < seat.promised:
            raise RemoteError(Code.OLD_TURN, "")
        prepare = prepare_of(proposal)
        if seat.prepared is not None and seat.prepared.turn == proposal.turn:
            if seat.prepared != prepare:
                raise RemoteError(Code.VOTED_OTHER, "")
            return Decision(seat, prepare, fresh=False)
        if len({shown.report.signer for shown in ask.reports}) < charter.quorum:
            raise RemoteError(Code.BAD_PROOF, "")
        if is_proven:
            shown = [report_checked(one, channel.id, proposal.turn, charter) for one in ask.reports]
            locks = [one.locked for one in shown]
        else:
            network = charter.network
            locks = [
                unseal(one.report, network, Report, STATEMENT_BYTES_MAX).value.locked
                for one in ask.reports
            ]
        known = [lock for lock in locks if lock is not None]
        if known and choose(known, key=lambda lock: lock.turn).value != proposal.value:
            raise RemoteError(Code.BAD_PROOF, "")
        after = changed(seat, promised=proposal.turn, prepared=prepare)
        return Decision(after, prepare)

    return propose


def hidden_lock(ask, channel, seat, clock, charter):
    """The report says that there is no lock."""
    decision = on_ask(ask, channel, changed(seat, lock=None), clock, charter)
    return replace(decision, seat=changed(decision.seat, lock=seat.lock))


def late_commit(certificate, channel, seat, charter):
    """A commit for a turn that is over, by a later promise."""
    decision = on_lock(certificate, channel, changed(seat, promised=1), charter)
    promised = max(seat.promised, decision.seat.promised)
    return replace(decision, seat=changed(decision.seat, promised=promised))


def promise_lost(before: Seat, decision: Decision) -> Seat:
    """What was reported and promised is not on disk."""
    return before if isinstance(decision.statement, Report) else decision.seat


def lock_lost(before: Seat, decision: Decision) -> Seat:
    """What was committed is not on disk."""
    return before if isinstance(decision.statement, Commit) else decision.seat


MISTAKES = {
    "reports from q - 1": Rule(reports_missing=1),
    "a prepare certificate of q - 1": Rule(prepares_missing=1),
    "two prepares in a turn": Rule(on_propose=two_prepares),
    "a lock believed without its certificate": Rule(on_propose=by_locks(max, is_proven=False)),
    "the lowest lock": Rule(on_propose=by_locks(min, is_proven=True)),
    "a report that hides the lock": Rule(on_ask=hidden_lock),
    "a commit below the promise": Rule(on_lock=late_commit),
    "a promise lost in a crash": Rule(kept=promise_lost),
    "a lock lost in a crash": Rule(kept=lock_lost),
    "one phase only": Rule(is_one_phase=True),
}
