"""How a channel is settled: payee and payer take turns at naming what the payee gets (facts 1.4).

One small agreement for each channel, of two phases and without a leader, a timer or a word between
witnesses. Safe with lying clocks and f lying witnesses; live as soon as messages and clocks behave
for one window of an honest party. The proof is in protocol/SPEC.md. Build exactly this: each
simpler rule was shown to mint credits or to wedge.
"""

from dataclasses import dataclass

import msgspec
from msgspec import Struct

from protocol.envelope import Signed, unseal
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId
from protocol.ledger.agreement import (
    STATEMENT_BYTES_MAX,
    commit_of,
    highest_lock,
    prepare_of,
    prepared_checked,
)
from protocol.ledger.certificate import EPOCH
from protocol.ledger.channel import Channel, funding_shown
from protocol.ledger.charter import Charter
from protocol.ledger.decoder import Decoder
from protocol.ledger.statement import (
    Commit,
    Locked,
    Prepare,
    PrepareCertificate,
    Proposal,
    Report,
    TurnAsk,
    TurnField,
)
from protocol.ledger.sync import Propose
from protocol.ledger.voucher import voucher_opened
from protocol.limits import PREPARED_BYTES_MAX, TURN_MAX

# Turns.


def turn(expiry_ms: int, now_ms: int, charter: Charter) -> int:
    """The turn of a channel at a time: 1 until GRACE after the expiry, then one each WINDOW."""
    past_ms = now_ms - expiry_ms - charter.grace_ms
    return 1 if past_ms < 0 else min(2 + past_ms // charter.window_ms, TURN_MAX)


def turn_begins_ms(expiry_ms: int, turn: int, charter: Charter) -> int:
    """When a turn from the second on begins; a turn ends where the next begins."""
    assert turn >= 2
    return expiry_ms + charter.grace_ms + (turn - 2) * charter.window_ms


def owner_is_payee(turn: int) -> bool:
    """Odd turns are the payee's, even ones the payer's."""
    return turn % 2 == 1


def owner(channel: Channel, turn: int) -> NodeId:
    """Who may ask and propose in a turn."""
    return channel.payee if owner_is_payee(turn) else channel.payer


# The witness.


class Seat(Struct, frozen=True, array_like=True, tag="seat", forbid_unknown_fields=True):
    """What a witness keeps of a channel that settles; of one size, however many turns it takes.

    It is on disk before the answer that it goes with leaves.
    """

    promised: TurnField = 1
    """No turn before this one is answered any more."""
    report: Report | None = None
    backing: PrepareCertificate | None = None
    """The certificate of the lock in `report`; a later lock may have taken its place since."""
    prepared: Prepare | None = None
    lock: PrepareCertificate | None = None


_SEATS = Decoder(Seat, 2 * PREPARED_BYTES_MAX + 4 * STATEMENT_BYTES_MAX)


def seat_decoded(data: bytes) -> Seat:
    """A stored seat, from the bytes that `decoder.packed` gave. Raises RemoteError."""
    return _SEATS.decode(data)


@dataclass(frozen=True, slots=True)
class Clock:
    """What a witness's clock says. It gates turns from the second on, and only ever refuses."""

    now_ms: int
    is_trusted: bool = True
    """False while it differs by more than a minute from the median of the other witnesses': then
    no turn after the first is begun, for a promise of a far turn cannot be taken back."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Store `seat` if it is `fresh`, fsync, then sign and answer the statement."""

    seat: Seat
    statement: Report | Prepare | Commit
    backing: PrepareCertificate | None = None
    """Goes with a report: the certificate of its lock."""
    fresh: bool = True
    """False: the statement was given before, and is given again with the same bytes."""


def on_ask(ask: Signed, channel: Channel, seat: Seat, clock: Clock, charter: Charter) -> Decision:
    """The report of a turn: from now on this witness answers no earlier turn.

    Raises RemoteError: WRONG_SIGNER, NOT_THIS_TURN, OLD_TURN, and what `unseal` raises.
    """
    asked = unseal(ask, charter.network, TurnAsk, STATEMENT_BYTES_MAX).value
    _owned(asked, ask.signer, channel)
    if asked.turn < 2:
        raise RemoteError(Code.NOT_THIS_TURN, "The first turn needs no reports; propose at once.")
    if seat.report is not None and seat.report.turn == asked.turn:
        return Decision(seat, seat.report, seat.backing, fresh=False)
    _is_now(asked.turn, channel, clock, charter)
    if asked.turn <= seat.promised:
        raise _old_turn(asked.turn, seat)
    lock = seat.lock
    locked = None if lock is None else Locked(lock.turn, lock.value)
    report = Report(EPOCH, channel.id, asked.turn, locked)
    after = msgspec.structs.replace(seat, promised=asked.turn, report=report, backing=lock)
    return Decision(after, report, lock)


def on_propose(
    ask: Propose, channel: Channel, seat: Seat, clock: Clock, charter: Charter
) -> Decision:
    """The prepare for a turn's value, one value a turn.

    Turn 1 reads no clock: it stays open until a later turn was promised.
    Raises RemoteError: WRONG_SIGNER, OLD_TURN, NOT_THIS_TURN, VOTED_OTHER for a second value, what
    `value_checked` raises, and what `unseal` raises.
    """
    signed = ask.proposal
    proposal = unseal(signed, charter.network, Proposal, STATEMENT_BYTES_MAX).value
    _owned(proposal, signed.signer, channel)
    if proposal.turn < seat.promised:
        raise _old_turn(proposal.turn, seat)
    if proposal.turn > 1:
        _is_now(proposal.turn, channel, clock, charter)
    prepare = prepare_of(proposal)
    if seat.prepared is not None and seat.prepared.turn == proposal.turn:
        if seat.prepared != prepare:
            raise RemoteError(
                Code.VOTED_OTHER,
                f"In turn {proposal.turn} this witness prepared {seat.prepared.value}, and no "
                "second value.",
            )
        return Decision(seat, prepare, fresh=False)
    value_checked(ask, proposal, channel, charter)
    after = msgspec.structs.replace(seat, promised=proposal.turn, prepared=prepare)
    return Decision(after, prepare)


def on_lock(
    certificate: PrepareCertificate, channel: Channel, seat: Seat, charter: Charter
) -> Decision:
    """The commit to what q witnesses prepared, from whomever it comes and whatever the clock says.

    Raises RemoteError: UNEXPECTED for another channel's, OLD_TURN, BAD_CERTIFICATE; VOTED_OTHER for
    a second value of one turn, which more than f witnesses must have lied for.
    """
    if certificate.channel != channel.id:
        raise RemoteError(Code.UNEXPECTED, "The prepare certificate is of another channel.")
    if certificate.turn < seat.promised:
        raise _old_turn(certificate.turn, seat)
    commit, lock = commit_of(certificate), seat.lock
    if lock is not None and commit_of(lock) == commit:
        return Decision(seat, commit, fresh=False)
    prepared_checked(certificate, charter)
    if lock is not None and lock.turn >= certificate.turn:
        raise RemoteError(
            Code.VOTED_OTHER, f"This witness holds {lock.value} for turn {lock.turn} already."
        )
    after = msgspec.structs.replace(seat, promised=certificate.turn, lock=certificate)
    return Decision(after, commit)


def value_checked(ask: Propose, proposal: Proposal, channel: Channel, charter: Charter) -> None:
    """Whether the value of a proposal is one that its turn allows, by what is shown with it.

    From turn 2 on q reports; the highest lock in them forces the value. Where none does, 0 needs
    nothing and more needs the payer's voucher for exactly that, covered by the funding shown.
    Raises RemoteError: BAD_PROOF, BAD_VOUCHER, OVERDRAWN, and what `highest_lock`,
    `voucher_opened` and `funding_shown` raise.
    """
    if proposal.turn > 1:
        locked = highest_lock(ask.reports, channel.id, proposal.turn, charter)
        if locked is not None:
            if locked.value != proposal.value:
                raise RemoteError(
                    Code.BAD_PROOF,
                    f"The reports force {locked.value}, locked in turn {locked.turn}; "
                    f"{proposal.value} is proposed.",
                )
            return
    if not proposal.value:
        return
    if ask.voucher is None:
        raise RemoteError(
            Code.BAD_VOUCHER, f"{proposal.value} microcredits are proposed without a voucher."
        )
    voucher = voucher_opened(ask.voucher, channel.payer, charter.network).value
    if (voucher.channel, voucher.cumulative) != (channel.id, proposal.value):
        raise RemoteError(
            Code.BAD_VOUCHER,
            f"The voucher is not for {proposal.value} microcredits of this channel.",
        )
    funding = funding_shown(channel, ask.topups, charter)
    if proposal.value > funding:
        raise RemoteError(
            Code.OVERDRAWN,
            f"{proposal.value} microcredits are proposed; the deposit and the top-ups shown are "
            f"{funding}.",
        )


def _owned(asked: TurnAsk | Proposal, signer: NodeId, channel: Channel) -> None:
    if asked.channel != channel.id:
        raise RemoteError(Code.UNEXPECTED, "The open that is shown is of another channel.")
    if signer != owner(channel, asked.turn):
        whose = "payee" if owner_is_payee(asked.turn) else "payer"
        raise RemoteError(Code.WRONG_SIGNER, f"Turn {asked.turn} is the {whose}'s.")


def _is_now(asked: int, channel: Channel, clock: Clock, charter: Charter) -> None:
    now = turn(channel.expiry_ms, clock.now_ms, charter)
    if asked != now:
        raise RemoteError(
            Code.NOT_THIS_TURN, f"Turn {asked} is asked for; by this witness's clock it is {now}."
        )
    if not clock.is_trusted:
        raise RemoteError(
            Code.NOT_THIS_TURN,
            "The clock of this witness differs from the others'; it begins no turn until then.",
        )


def _old_turn(turn: int, seat: Seat) -> RemoteError:
    return RemoteError(
        Code.OLD_TURN, f"Turn {turn} is over here: turn {seat.promised} was promised."
    )
