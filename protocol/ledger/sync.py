"""What nodes say on `/ayni/ledger/1`: one request frame, one answer frame, each with its bound.

None is signed as a whole: the stream says who asks, and whatever matters carries signatures.
"""

from collections.abc import Iterable
from typing import Annotated, Final, TypeVar

from msgspec import Meta, Struct

from protocol.envelope import Signed
from protocol.errors import Code, RemoteError
from protocol.ids import MessageIdField, NodeIdField, OptionalDigestField
from protocol.ledger.certificate import Certified
from protocol.ledger.checkpoint import (
    CHECKPOINT_MESSAGE_BYTES_MAX,
    AskCheckpoint,
    AskHoldings,
    CheckpointVote,
    HoldingsPage,
)
from protocol.ledger.decoder import Decoder, packed
from protocol.ledger.entry import SeqField
from protocol.ledger.proof import Breach, Contradiction, Proof
from protocol.ledger.statement import PrepareCertificate, ReportShown, Settlement
from protocol.limits import (
    ACCOUNTS_PAGE_MAX,
    CERTIFIED_BYTES_MAX,
    CLAIM_SOURCES_MAX,
    FRAME_BYTES_MAX,
    HEADS_MAX,
    INSTANCE_BYTES,
    KEY_BYTES,
    PREPARED_BYTES_MAX,
    PROOFS_PAGE_MAX,
    RANGE_ENTRIES_MAX,
    RETRY_MS_MAX,
    SENTENCE_BYTES_MAX,
    SEQ_MAX,
    TOPUPS_SHOWN_MAX,
    WITNESSES_MAX,
)
from protocol.units import CountField

LEDGER_PROTOCOL: Final = "/ayni/ledger/1"

InstanceField = Annotated[bytes, Meta(min_length=INSTANCE_BYTES, max_length=INSTANCE_BYTES)]
"""Random at each start of a daemon, so that two with one key are told apart."""
Several = Annotated[tuple[Certified, ...], Meta(max_length=RANGE_ENTRIES_MAX)]


class Submit(Struct, frozen=True, array_like=True, tag="submit", forbid_unknown_fields=True):
    """Asks a witness for its vote. Answered by Voted or Refusal."""

    entry: Signed
    proofs: Annotated[tuple[Certified, ...], Meta(max_length=CLAIM_SOURCES_MAX)]
    """The certified sources of a claim, pays, opens and entries that bear a fee: beside the
    entry, not in it."""
    settlements: Annotated[tuple[Settlement, ...], Meta(max_length=CLAIM_SOURCES_MAX)]
    """Of the settled channels that it claims from."""
    instance: InstanceField


class Announce(Struct, frozen=True, array_like=True, tag="announce", forbid_unknown_fields=True):
    """Hands a certified entry on. Answered by Accepted or Refusal (MISSING: send those before)."""

    certified: Certified


class AskAccounts(
    Struct, frozen=True, array_like=True, tag="ask-accounts", forbid_unknown_fields=True
):
    """Which accounts have entries, in order, after one (empty: from the first)."""

    after: OptionalDigestField


class AskHeads(Struct, frozen=True, array_like=True, tag="ask-heads", forbid_unknown_fields=True):
    """The last certified entries of accounts."""

    accounts: Annotated[tuple[NodeIdField, ...], Meta(min_length=1, max_length=HEADS_MAX)]


class AskRange(Struct, frozen=True, array_like=True, tag="ask-range", forbid_unknown_fields=True):
    """Certified entries of one account from a seq on, as many as fit or `limit`."""

    account: NodeIdField
    first_seq: SeqField
    limit: Annotated[int, Meta(ge=1, le=RANGE_ENTRIES_MAX)]


class AskEntries(
    Struct, frozen=True, array_like=True, tag="ask-entries", forbid_unknown_fields=True
):
    """Certified entries by their ids: the sources of a claim."""

    ids: Annotated[tuple[MessageIdField, ...], Meta(min_length=1, max_length=CLAIM_SOURCES_MAX)]


class AskOwn(Struct, frozen=True, array_like=True, tag="ask-own", forbid_unknown_fields=True):
    """What a witness knows of the asker's own account, before its first signature."""

    account: NodeIdField
    instance: InstanceField


class AskProofs(Struct, frozen=True, array_like=True, tag="ask-proofs", forbid_unknown_fields=True):
    """Known proofs of contradictions and breaches, after so many."""

    skip: CountField


class AskReport(Struct, frozen=True, array_like=True, tag="ask-report", forbid_unknown_fields=True):
    """Asks a witness for its report of a turn. Answered by Reported, Settled or Refusal."""

    ask: Signed
    """A TurnAsk of the turn's owner."""
    open: Certified


class Propose(Struct, frozen=True, array_like=True, tag="propose", forbid_unknown_fields=True):
    """Asks a witness to prepare a value. Answered by Prepared, Settled or Refusal."""

    proposal: Signed
    open: Certified
    topups: Annotated[tuple[Certified, ...], Meta(max_length=TOPUPS_SHOWN_MAX)]
    """As many as it takes to cover the voucher."""
    voucher: Signed | None
    """For the value; none where that is 0, or where the reports force it."""
    reports: Annotated[tuple[ReportShown, ...], Meta(max_length=WITNESSES_MAX)]
    """Of this turn, from q witnesses; none for the first turn."""


class Lock(Struct, frozen=True, array_like=True, tag="lock", forbid_unknown_fields=True):
    """Asks a witness to hold a prepared value. Answered by Committed, Settled or Refusal."""

    certificate: PrepareCertificate
    open: Certified


class AskSettlement(
    Struct, frozen=True, array_like=True, tag="ask-settlement", forbid_unknown_fields=True
):
    """How a channel was settled. Answered by Settled, or by Refusal NOT_FOUND."""

    channel: MessageIdField


class TellSettlement(
    Struct, frozen=True, array_like=True, tag="tell-settlement", forbid_unknown_fields=True
):
    """Hands a settlement on. Answered by Accepted or Refusal."""

    settlement: Settlement
    open: Certified


class AskVoucher(
    Struct, frozen=True, array_like=True, tag="ask-voucher", forbid_unknown_fields=True
):
    """A payer asks the payee for the highest voucher that it holds. Answered by VoucherHeld, or by
    Refusal NO_CHANNEL."""

    channel: MessageIdField


class WantSettlement(
    Struct, frozen=True, array_like=True, tag="want-settlement", forbid_unknown_fields=True
):
    """A payer asks the payee to settle now. Answered by Accepted or Refusal NO_CHANNEL."""

    channel: MessageIdField


class Reported(Struct, frozen=True, array_like=True, tag="reported", forbid_unknown_fields=True):
    """A witness's report of the turn asked for."""

    shown: ReportShown


class Prepared(
    Struct, frozen=True, array_like=True, tag="prepare-vote", forbid_unknown_fields=True
):
    """A witness's signed Prepare."""

    vote: Signed


class Committed(
    Struct, frozen=True, array_like=True, tag="commit-vote", forbid_unknown_fields=True
):
    """A witness's signed Commit."""

    vote: Signed


class Settled(Struct, frozen=True, array_like=True, tag="settled", forbid_unknown_fields=True):
    """The channel has its settlement: a witness that holds it answers everything with it."""

    settlement: Settlement


class VoucherHeld(
    Struct, frozen=True, array_like=True, tag="voucher-held", forbid_unknown_fields=True
):
    """The highest voucher of a channel that its payee has on disk."""

    voucher: Signed | None


class Voted(Struct, frozen=True, array_like=True, tag="voted", forbid_unknown_fields=True):
    """A witness's signed vote."""

    vote: Signed


class Accepted(Struct, frozen=True, array_like=True, tag="accepted", forbid_unknown_fields=True):
    """The certified entry is stored, or was before."""


class Accounts(Struct, frozen=True, array_like=True, tag="accounts", forbid_unknown_fields=True):
    """Accounts that have entries, in order; none after the last."""

    accounts: Annotated[tuple[NodeIdField, ...], Meta(max_length=ACCOUNTS_PAGE_MAX)]


class Entries(Struct, frozen=True, array_like=True, tag="entries", forbid_unknown_fields=True):
    """Certified entries: the heads, the range or the ids asked for, as far as they are here."""

    entries: Several


class OwnState(Struct, frozen=True, array_like=True, tag="own-state", forbid_unknown_fields=True):
    """What a witness knows of an account: its head, the entry voted for next, another's asking."""

    head: Certified | None
    voted: Signed | None
    other_ms_ago: CountField | None
    """How long ago another instance asked or submitted for the account: a hint only."""


class Proofs(Struct, frozen=True, array_like=True, tag="proofs", forbid_unknown_fields=True):
    """Proofs, in the order in which they became known here; none after the last."""

    proofs: Annotated[tuple[Proof, ...], Meta(max_length=PROOFS_PAGE_MAX)]


class Refusal(Struct, frozen=True, array_like=True, tag="refusal", forbid_unknown_fields=True):
    """No, with a stable code, a sentence, and what it takes to go on."""

    code: Annotated[str, Meta(max_length=32)]
    sentence: Annotated[str, Meta(max_length=SENTENCE_BYTES_MAX)]
    retry_ms: Annotated[int, Meta(ge=0, le=RETRY_MS_MAX)] = 0  # BUSY.
    missing_seq: Annotated[int, Meta(ge=0, le=SEQ_MAX)] = 0  # MISSING: send from this one on.
    needs: Annotated[tuple[MessageIdField, ...], Meta(max_length=CLAIM_SOURCES_MAX)] = ()
    shown: Certified | Signed | Breach | None = None
    """PAST: the certified entry. VOTED_OTHER: the other entry. HALTED: the proof."""


SettlementAsk = AskReport | Propose | Lock | AskSettlement | TellSettlement
ChannelAsk = AskVoucher | WantSettlement
CheckpointAsk = AskCheckpoint | AskHoldings
Ask = (
    Submit
    | Announce
    | AskAccounts
    | AskHeads
    | AskRange
    | AskEntries
    | AskOwn
    | AskProofs
    | SettlementAsk
    | ChannelAsk
    | CheckpointAsk
)
SettlementAnswer = Reported | Prepared | Committed | Settled
Answer = (
    Voted
    | Accepted
    | Accounts
    | Entries
    | OwnState
    | Proofs
    | SettlementAnswer
    | VoucherHeld
    | CheckpointVote
    | HoldingsPage
    | Refusal
)

MESSAGE_BYTES_MAX: Final[dict[type[Struct], int]] = {
    **CHECKPOINT_MESSAGE_BYTES_MAX,
    Submit: FRAME_BYTES_MAX,
    Announce: CERTIFIED_BYTES_MAX + 16,
    AskAccounts: 64,
    AskHeads: 64 + HEADS_MAX * (KEY_BYTES + 2),
    AskRange: 96,
    AskEntries: 64 + CLAIM_SOURCES_MAX * (KEY_BYTES + 2),
    AskOwn: 96,
    AskProofs: 32,
    AskReport: CERTIFIED_BYTES_MAX + 512,
    Propose: FRAME_BYTES_MAX,
    Lock: CERTIFIED_BYTES_MAX + PREPARED_BYTES_MAX,
    AskSettlement: 64,
    TellSettlement: CERTIFIED_BYTES_MAX + PREPARED_BYTES_MAX,
    AskVoucher: 64,
    WantSettlement: 64,
    Reported: 512 + PREPARED_BYTES_MAX,
    Prepared: 320,
    Committed: 320,
    Settled: PREPARED_BYTES_MAX,
    VoucherHeld: 384,
    Voted: 256,
    Accepted: 16,
    Accounts: 64 + ACCOUNTS_PAGE_MAX * (KEY_BYTES + 2),
    Entries: FRAME_BYTES_MAX,
    OwnState: 2 * CERTIFIED_BYTES_MAX + 64,
    Proofs: FRAME_BYTES_MAX,
    Refusal: 2 * CERTIFIED_BYTES_MAX + CLAIM_SOURCES_MAX * (KEY_BYTES + 2) + 1024,
}
_PAGE_HEAD_BYTES: Final = 32  # Tag and array heads of a page.

_ASKS: Decoder[Ask] = Decoder(Ask, FRAME_BYTES_MAX)  # type: ignore[arg-type]
_ANSWERS: Decoder[Answer] = Decoder(Answer, FRAME_BYTES_MAX)  # type: ignore[arg-type]

Message = TypeVar("Message", bound=Struct)


def ask_decoded(data: bytes) -> Ask:
    """A request frame. Raises RemoteError TOO_LARGE, BAD_ENCODING or BAD_MESSAGE."""
    ask = _ASKS.decode(data)
    _check_size(ask, data)
    return ask


def answer_decoded(data: bytes) -> Answer:
    """An answer frame. Raises RemoteError TOO_LARGE, BAD_ENCODING or BAD_MESSAGE."""
    answer = _ANSWERS.decode(data)
    _check_size(answer, data)
    return answer


def message_encoded(message: Ask | Answer) -> bytes:
    """The frame of a message of ours."""
    data = packed(message)
    assert len(data) <= MESSAGE_BYTES_MAX[type(message)], type(message)
    return data


def entries_page(entries: Iterable[Certified]) -> Entries:
    """As many of these, from the first on, as one answer holds; the asker asks again after it."""
    return Entries(tuple(_fitting(entries, RANGE_ENTRIES_MAX)))


def proofs_page(proofs: Iterable[Contradiction | Breach]) -> Proofs:
    """As many of these, from the first on, as one answer holds."""
    return Proofs(tuple(_fitting(proofs, PROOFS_PAGE_MAX)))


def refusal(error: RemoteError) -> Refusal:
    """An error as an answer."""
    sentence = error.sentence.encode()[:SENTENCE_BYTES_MAX].decode(errors="ignore")
    return Refusal(error.code, sentence, min(max(0, error.retry_ms), RETRY_MS_MAX))


def _fitting(items: Iterable[Message], count_max: int) -> list[Message]:
    page: list[Message] = []
    left = FRAME_BYTES_MAX - _PAGE_HEAD_BYTES
    for item in items:
        left -= len(packed(item))
        if left < 0 or len(page) == count_max:
            break
        page.append(item)
    return page


def _check_size(message: Ask | Answer, data: bytes) -> None:
    size_max = MESSAGE_BYTES_MAX[type(message)]
    if len(data) > size_max:
        tag = message.__struct_config__.tag
        raise RemoteError(
            Code.TOO_LARGE, f"A message {tag} of {len(data)} bytes came; at most {size_max} fit."
        )
