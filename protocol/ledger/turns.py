"""A witness's part in settling channels, around the rule of `protocol.ledger.settlement`."""

from dataclasses import dataclass
from typing import assert_never

from protocol.errors import RemoteError
from protocol.identity import Identity
from protocol.ids import NodeId
from protocol.ledger.certificate import statement_signed
from protocol.ledger.channel import channel_checked
from protocol.ledger.charter import Charter
from protocol.ledger.seat import remembers_prepare, remembers_report
from protocol.ledger.settlement import Clock, Decision, Seat, on_ask, on_lock, on_propose
from protocol.ledger.statement import Commit, Prepare, Report, ReportShown
from protocol.ledger.sync import (
    AskReport,
    Committed,
    Lock,
    Prepared,
    Propose,
    Refusal,
    Reported,
    Settled,
    refusal,
)
from protocol.ledger.witness import Chains, VotesLost, not_witness_error, stopped_refusal


@dataclass(frozen=True, slots=True)
class Forgotten:
    """We are shown what we have signed of a channel and do not remember: our store is an old copy.

    Store that votes were lost, and the seat, so that it is told of once; sign nothing.
    """

    seat: Seat
    answer: Refusal


class Turns:
    """Answers the owners of turns; it holds no state of its own."""

    def __init__(self, charter: Charter, node: NodeId) -> None:
        self.charter = charter
        self.number = charter.number(node)

    def answer(
        self, ask: AskReport | Propose | Lock, chains: Chains, clock: Clock
    ) -> Decision | Settled | Forgotten | Refusal:
        """What to answer, with `chains` read for the channel `ask.open.entry.id`.

        A witness that holds the settlement answers everything with it. The seat of a fresh
        Decision is stored, with fsync, under that id before `turn_answer` signs it.
        """
        stopped = chains.stopped()
        if stopped is not None:
            return stopped_refusal(stopped)
        try:
            if self.number is None:
                raise not_witness_error()
            settlement = chains.settlement(ask.open.entry.id)
            if settlement is not None:
                return Settled(settlement)
            channel = channel_checked(ask.open, self.charter)
            seat = chains.seat(channel.id)
            match ask:
                case AskReport():
                    return on_ask(ask.ask, channel, seat, clock, self.charter)
                case Propose():
                    decision = on_propose(ask, channel, seat, clock, self.charter)
                case Lock():
                    decision = on_lock(ask.certificate, channel, seat, self.charter)
                case _:
                    assert_never(ask)
        except RemoteError as error:
            return refusal(error)
        # What a fresh decision was made on has all been checked.
        if decision.fresh and not self._remembers(ask, seat):
            return Forgotten(decision.seat, stopped_refusal(VotesLost()))
        return decision

    def _remembers(self, ask: Propose | Lock, seat: Seat) -> bool:
        """Whether the seat knows of all statements of ours that are shown."""
        if isinstance(ask, Lock):
            return remembers_prepare(seat, ask.certificate, self.number)
        witness = None if self.number is None else self.charter.witnesses[self.number]
        return all(
            (one.report.signer != witness or remembers_report(seat, one.report))
            and (one.lock is None or remembers_prepare(seat, one.lock, self.number))
            for one in ask.reports
        )


def turn_answer(
    decision: Decision, identity: Identity, charter: Charter
) -> Reported | Prepared | Committed:
    """A decision as the frame that answers it. Only ever after its seat is stored."""
    statement = decision.statement
    signed = statement_signed(identity, statement, charter.network)
    match statement:
        case Report():
            return Reported(ReportShown(signed, decision.backing))
        case Prepare():
            return Prepared(signed)
        case Commit():
            return Committed(signed)
        case _:
            assert_never(statement)
