"""What is signed while a channel settles, and the certificates that q witnesses make of it.

The owner of a turn signs TurnAsk and Proposal, witnesses sign Report, Prepare and Commit, each
under its own tag. The rule is `protocol.ledger.settlement`'s.
"""

from typing import Annotated

from msgspec import Meta, Struct

from protocol.envelope import Signed
from protocol.ids import MessageIdField
from protocol.ledger.certificate import EpochField, Seal
from protocol.limits import TURN_MAX, WITNESSES_MAX
from protocol.units import MicrocreditsField

TurnField = Annotated[int, Meta(ge=1, le=TURN_MAX)]
"""Odd turns are the payee's, even ones the payer's."""
Seals = Annotated[tuple[Seal, ...], Meta(max_length=WITNESSES_MAX)]


class TurnAsk(Struct, frozen=True, array_like=True, tag="turn-ask", forbid_unknown_fields=True):
    """The owner of a turn, from the second on, asks a witness for its report."""

    channel: MessageIdField
    turn: TurnField


class Proposal(Struct, frozen=True, array_like=True, tag="proposal", forbid_unknown_fields=True):
    """The owner of a turn names what the payee is to get."""

    channel: MessageIdField
    turn: TurnField
    value: MicrocreditsField


class Locked(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The highest turn for which a witness has seen a prepare certificate, and its value."""

    turn: TurnField
    value: MicrocreditsField


class Report(Struct, frozen=True, array_like=True, tag="report", forbid_unknown_fields=True):
    """A witness's word, once a turn: from now on it answers no earlier one, and this it knows."""

    epoch: EpochField
    channel: MessageIdField
    turn: TurnField
    locked: Locked | None


class Prepare(Struct, frozen=True, array_like=True, tag="prepare", forbid_unknown_fields=True):
    """A witness's word, once a turn: this value and no other."""

    epoch: EpochField
    channel: MessageIdField
    turn: TurnField
    value: MicrocreditsField


class Commit(Struct, frozen=True, array_like=True, tag="commit", forbid_unknown_fields=True):
    """A witness's word that it has seen a prepare certificate for this and holds it."""

    epoch: EpochField
    channel: MessageIdField
    turn: TurnField
    value: MicrocreditsField


class PrepareCertificate(
    Struct, frozen=True, array_like=True, tag="prepared", forbid_unknown_fields=True
):
    """Seals of q or more witnesses over one Prepare, in the order of their numbers."""

    epoch: EpochField
    channel: MessageIdField
    turn: TurnField
    value: MicrocreditsField
    seals: Seals


class Settlement(
    Struct, frozen=True, array_like=True, tag="settlement", forbid_unknown_fields=True
):
    """Seals of q or more witnesses over one Commit: the payee gets `value`, the payer the rest.
    It is final, whatever its turn."""

    epoch: EpochField
    channel: MessageIdField
    turn: TurnField
    value: MicrocreditsField
    seals: Seals


class ReportShown(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A witness's signed Report, with the certificate that its lock is."""

    report: Signed
    lock: PrepareCertificate | None
