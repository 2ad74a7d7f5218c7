"""An entry of an account's chain: what its owner signs, and how it is opened."""

from typing import Annotated, Final, assert_never

from msgspec import Meta, Struct

from protocol import codec
from protocol.envelope import Opened, Signed, domain
from protocol.errors import Code, RemoteError
from protocol.identity import holds, signed_bytes
from protocol.ids import (
    DigestField,
    MessageId,
    MessageIdField,
    NetworkId,
    NetworkIdField,
    NodeIdField,
)
from protocol.ledger.decoder import Decoder
from protocol.limits import (
    CLAIM_SOURCES_MAX,
    ENTRY_BYTES_MAX,
    MICROCREDITS_MAX,
    SEQ_MAX,
    SOURCE_KIND_BYTES_MAX,
)
from protocol.units import MicrocreditsField, TimestampField

AmountField = Annotated[int, Meta(ge=1, le=MICROCREDITS_MAX)]
SeqField = Annotated[int, Meta(ge=1, le=SEQ_MAX)]
"""The place of an entry in its chain; the first is 1."""
SourceKey = tuple[str, MessageId]
"""Which credit a claim takes: the kind of its source and the source's id."""

PAY: Final = "pay"
EARNED: Final = "earned"
REST: Final = "rest"
FEE: Final = "fee"
SOURCE_KINDS: Final = (PAY, EARNED, REST, FEE)
"""What a claim may take: a pay to us; what we earned in a settled channel; the rest of our own
settled channel; the fee of an entry whose number is ours. The id is that of the entry: the pay,
the open of the channel, or the entry that bears the fee."""
LATER_KINDS: Final = frozenset({"ballot", "unlock"})
"""Entries of a later version of the protocol: refused by name, so that people know why."""


class Pay(Struct, frozen=True, array_like=True, tag="pay", forbid_unknown_fields=True):
    """Debits an amount for `to`, who takes it by a claim."""

    to: NodeIdField
    amount: AmountField
    reference: DigestField
    """32 zero bytes, or the digest of the receipt or invoice that is paid."""


class Open(Struct, frozen=True, array_like=True, tag="open", forbid_unknown_fields=True):
    """Moves a deposit into a new channel to `payee`. The entry's id is the channel's."""

    payee: NodeIdField
    deposit: AmountField
    expiry_ms: TimestampField
    """When the turns of settling begin to count (protocol.ledger.settlement). No rule of an entry
    reads a clock, so any number is valid here."""


class TopUp(Struct, frozen=True, array_like=True, tag="topup", forbid_unknown_fields=True):
    """Moves more into an own channel."""

    channel: MessageIdField
    amount: AmountField


class Source(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One credit that a claim takes, with its amount, so that a chain sums by itself."""

    kind: Annotated[str, Meta(min_length=1, max_length=SOURCE_KIND_BYTES_MAX)]
    id: MessageIdField
    amount: AmountField

    @property
    def key(self) -> SourceKey:
        """What may be claimed once only."""
        return self.kind, self.id


class Claim(Struct, frozen=True, array_like=True, tag="claim", forbid_unknown_fields=True):
    """Credits what was set aside for this account, each once: SOURCE_KINDS says by what."""

    sources: Annotated[tuple[Source, ...], Meta(min_length=1, max_length=CLAIM_SOURCES_MAX)]


Body = Pay | Open | TopUp | Claim


class Entry(Struct, frozen=True, array_like=True, tag="entry", forbid_unknown_fields=True):
    """One step of a chain. The id of an entry is the id of its envelope."""

    network: NetworkIdField
    account: NodeIdField
    seq: SeqField
    prev: DigestField
    """The id of the entry before; of the first entry, the network id."""
    body: Body
    fee: MicrocreditsField
    balance: MicrocreditsField
    """What the account has after this entry."""


_DECODER = Decoder(Entry, ENTRY_BYTES_MAX)
_DOMAIN = domain(Entry)


def change(entry: Entry) -> int:
    """The microcredits by which an entry moves its account's balance, its fee included."""
    match entry.body:
        case Pay(_, amount) | TopUp(_, amount):
            return -amount - entry.fee
        case Open(_, deposit):
            return -deposit - entry.fee
        case Claim(sources):
            return sum(source.amount for source in sources) - entry.fee
        case _:
            assert_never(entry.body)


def sources_of(entry: Entry) -> tuple[Source, ...]:
    """What an entry claims."""
    return entry.body.sources if isinstance(entry.body, Claim) else ()


def entry_read(signed: Signed, network: NetworkId) -> Opened[Entry]:
    """The entry in an envelope, its author's signature not yet checked.

    Raises RemoteError: TOO_LARGE, BAD_ENCODING, BAD_MESSAGE; KIND_NOT_SERVED for a kind of a later
    version; WRONG_NETWORK; WRONG_SIGNER unless the account itself is the signer.
    """
    try:
        entry = _DECODER.decode(signed.body)
    except RemoteError as error:
        if error.code is Code.BAD_MESSAGE:
            _refuse_later_kind(signed.body)
        raise
    if entry.network != network:
        raise RemoteError(
            Code.WRONG_NETWORK,
            f"The entry is for network {entry.network.hex()[:16]}; this is {network.hex()[:16]}.",
        )
    if entry.account != signed.signer:
        raise RemoteError(
            Code.WRONG_SIGNER,
            f"{signed.signer.hex()[:8]} signed an entry of {entry.account.hex()[:8]}; only its own "
            "account may.",
        )
    return Opened(entry, signed.id, signed.signer)


def entry_opened(signed: Signed, network: NetworkId) -> Opened[Entry]:
    """The entry in an envelope. Raises RemoteError as `entry_read`, and BAD_SIGNATURE."""
    opened = entry_read(signed, network)
    if not holds(signed.signer, signed_bytes(_DOMAIN, network, signed.body), signed.signature):
        raise RemoteError(
            Code.BAD_SIGNATURE,
            f"The signature of {signed.signer.hex()[:8]} over its entry {opened.value.seq} does "
            "not hold.",
        )
    return opened


def _refuse_later_kind(body: bytes) -> None:
    plain: list[object] = codec.decode(body, list, ENTRY_BYTES_MAX)
    inner = plain[5] if len(plain) > 5 and plain[0] == "entry" else None
    kind = inner[0] if isinstance(inner, list) and inner else None
    if isinstance(kind, str) and kind in LATER_KINDS:
        raise RemoteError(
            Code.KIND_NOT_SERVED,
            f"An entry of kind {kind} came; this version knows pay, open, topup and claim. "
            "Update the node.",
        )
