"""Checkpoints: what a certified chain adds up to at one place, sealed by q witnesses.

With one the entries before it can go: whoever has the state that it names can check all that comes
after it. A chain has one entry in each place, so all honest witnesses make the same statement of
it; signing one binds nobody to anything, and needs no journal.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Final

from msgspec import Meta, Struct

from protocol.envelope import Signed
from protocol.errors import Code, RemoteError
from protocol.identity import Identity, digest
from protocol.ids import DigestField, MessageId, MessageIdField, NodeIdField
from protocol.ledger.account import Account
from protocol.ledger.certificate import (
    EPOCH,
    EpochField,
    Seal,
    seals_checked,
    seals_ordered,
    statement_seal,
    statement_signed,
)
from protocol.ledger.charter import Charter
from protocol.ledger.decoder import Decoder, packed
from protocol.ledger.entry import SOURCE_KINDS, SeqField, SourceKey
from protocol.ledger.statement import Seals
from protocol.limits import CHECKPOINT_BYTES_MAX, CHECKPOINT_PAGE_HOLDINGS, SOURCE_KIND_BYTES_MAX
from protocol.units import CountField, MicrocreditsField

OPENED: Final = "open"
"""The kind of a holding that is a channel of the account's own; the others are what it claimed."""


class Holding(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One thing that a chain says beyond its head, and that its later entries depend on."""

    kind: Annotated[str, Meta(min_length=1, max_length=SOURCE_KIND_BYTES_MAX)]
    id: MessageIdField
    amount: MicrocreditsField
    """What was claimed, or what was moved into the channel: microcredits."""


class Checkpoint(
    Struct, frozen=True, array_like=True, tag="checkpoint", forbid_unknown_fields=True
):
    """A witness's word on what a chain adds up to after entry `seq`, whose id is `head`."""

    epoch: EpochField
    account: NodeIdField
    seq: SeqField
    head: MessageIdField
    balance: MicrocreditsField
    holdings: DigestField
    """`holdings_digest` of all holdings."""


class Checkpointed(
    Struct, frozen=True, array_like=True, tag="checkpointed", forbid_unknown_fields=True
):
    """Seals of q or more witnesses over one Checkpoint, in the order of their numbers."""

    checkpoint: Checkpoint
    seals: Seals


class AskCheckpoint(
    Struct, frozen=True, array_like=True, tag="ask-checkpoint", forbid_unknown_fields=True
):
    """Asks a witness what a chain adds up to after entry `seq`. Answered by CheckpointVote or by
    Refusal."""

    account: NodeIdField
    seq: SeqField


class AskHoldings(
    Struct, frozen=True, array_like=True, tag="ask-holdings", forbid_unknown_fields=True
):
    """Asks for the checkpoint from which on a node has a chain, and its holdings after so many.
    Answered by HoldingsPage, or by Refusal NOT_FOUND."""

    account: NodeIdField
    skip: CountField


class CheckpointVote(
    Struct, frozen=True, array_like=True, tag="checkpoint-vote", forbid_unknown_fields=True
):
    """A witness's signed Checkpoint."""

    vote: Signed


class HoldingsPage(
    Struct, frozen=True, array_like=True, tag="holdings", forbid_unknown_fields=True
):
    """Holdings of a checkpoint in order; none after the last."""

    checkpointed: Checkpointed
    holdings: Annotated[tuple[Holding, ...], Meta(max_length=CHECKPOINT_PAGE_HOLDINGS)]


CHECKPOINT_MESSAGE_BYTES_MAX: Final[dict[type[Struct], int]] = {
    AskCheckpoint: 96,
    AskHoldings: 96,
    CheckpointVote: 448,
    HoldingsPage: CHECKPOINT_BYTES_MAX + 96 * CHECKPOINT_PAGE_HOLDINGS,
}

_DECODER = Decoder(Checkpointed, CHECKPOINT_BYTES_MAX)


def checkpointed_decoded(data: bytes) -> Checkpointed:
    """The form only. Raises RemoteError TOO_LARGE, BAD_ENCODING or BAD_MESSAGE."""
    return _DECODER.decode(data)


def holdings_digest(holdings: Iterable[Holding]) -> bytes:
    """Of all holdings of a chain, in the order of kind and id: 32 bytes, chained from page to page,
    so that they need never be in memory at once.

    Raises RemoteError BAD_PROOF where they are out of order or of a kind that is none.
    """
    state = bytes(32)
    for page in _pages(_ordered(holdings)):
        state = digest(state, b"".join(packed(one) for one in page))
    return state


def _ordered(holdings: Iterable[Holding]) -> Iterator[Holding]:
    last = ("", b"")
    for one in holdings:
        if one.kind != OPENED and one.kind not in SOURCE_KINDS:
            raise RemoteError(Code.BAD_PROOF, f"No account holds a {one.kind[:16]}.")
        if (one.kind, one.id) <= last:
            raise RemoteError(Code.BAD_PROOF, "Holdings stand in order, each once.")
        last = (one.kind, one.id)
        yield one


def _pages(holdings: Iterable[Holding]) -> Iterator[Sequence[Holding]]:
    left = iter(holdings)
    while page := list(islice(left, CHECKPOINT_PAGE_HOLDINGS)):
        yield page


def checkpoint_of(account: Account, holdings: Iterable[Holding]) -> Checkpoint:
    """What an honest witness says of a chain that it has. Raises as `holdings_digest`."""
    return Checkpoint(
        EPOCH,
        account.account,
        account.seq,
        MessageId(account.head),
        account.balance,
        holdings_digest(holdings),
    )


def checkpoint_signed(identity: Identity, checkpoint: Checkpoint, charter: Charter) -> Signed:
    """A witness's signed statement."""
    return statement_signed(identity, checkpoint, charter.network)


def checkpoint_seal(signed: Signed, checkpoint: Checkpoint, charter: Charter) -> Seal:
    """The seal that a witness's answer is. Raises RemoteError as `statement_seal`."""
    return statement_seal(signed, checkpoint, charter)


def checkpointed_made(
    checkpoint: Checkpoint, seals: Iterable[Seal], charter: Charter
) -> Checkpointed | None:
    """The certificate that these seals, each from `checkpoint_seal`, make; None while they are too
    few."""
    ordered = seals_ordered(seals, charter)
    return None if ordered is None else Checkpointed(checkpoint, ordered)


def checkpointed_checked(checkpointed: Checkpointed, charter: Charter) -> Account:
    """The account as a checkpoint whose seals hold has it. Raises RemoteError BAD_CERTIFICATE."""
    checkpoint = checkpointed.checkpoint
    seals_checked(checkpoint, checkpoint.epoch, checkpointed.seals, charter)
    return Account(checkpoint.account, checkpoint.seq, checkpoint.head, checkpoint.balance)


@dataclass(slots=True)
class Holdings:
    """A `Past` made of holdings: from a checkpoint on a chain can be followed with it."""

    seq: int = 0  # Of the checkpoint: where a claim stands before it is not known.
    claimed: dict[SourceKey, int] = field(default_factory=dict)
    funded: dict[MessageId, int] = field(default_factory=dict)

    def add(self, holding: Holding) -> None:
        """Take in one of them."""
        if holding.kind == OPENED:
            self.funded[holding.id] = holding.amount
        else:
            self.claimed[holding.kind, holding.id] = self.seq

    def claimed_at(self, source: SourceKey) -> int | None:
        """As `Past`."""
        return self.claimed.get(source)

    def funding(self, channel: MessageId) -> int | None:
        """As `Past`."""
        return self.funded.get(channel)


def holdings_checked(
    checkpointed: Checkpointed, holdings: Iterable[Holding], charter: Charter
) -> tuple[Account, Holdings]:
    """A state to go on from, whose seals and digest hold.

    Raises RemoteError BAD_CERTIFICATE, and BAD_PROOF where these are not the holdings sealed.
    """
    account = checkpointed_checked(checkpointed, charter)
    past = Holdings(account.seq)

    def kept() -> Iterator[Holding]:
        for one in holdings:
            past.add(one)
            yield one

    if holdings_digest(kept()) != checkpointed.checkpoint.holdings:
        raise RemoteError(
            Code.BAD_PROOF, "What is shown with the checkpoint is not what the witnesses sealed."
        )
    return account, past
