"""Vouchers: what a payer signs for each chunk, and what the highest of a channel is worth."""

from typing import Final

from msgspec import Struct

from protocol.envelope import Opened, Signed, domain, seal
from protocol.errors import Code, RemoteError
from protocol.identity import Identity, digest, verify
from protocol.ids import (
    DigestField,
    MessageId,
    MessageIdField,
    NetworkId,
    NodeId,
    OptionalDigestField,
)
from protocol.ledger.decoder import Decoder
from protocol.ledger.entry import AmountField

VOUCHER_BYTES_MAX: Final = 192


class Voucher(Struct, frozen=True, array_like=True, tag="voucher", forbid_unknown_fields=True):
    """The payer's word that the payee may have so much of a channel in all. Those of concurrent
    orders arrive in any order; the highest counts for all of them."""

    channel: MessageIdField
    cumulative: AmountField
    """Microcredits since the channel was opened."""
    note: DigestField
    """By which both sides book it to an order (voucher_note); it says nothing to a witness."""
    lock: OptionalDigestField
    """Empty. A later version may hold a hash-lock here; who does not know it refuses."""


# Vouchers are the many of all that is signed: decoded by the fast decoder.
_DECODER: Final = Decoder(Voucher, VOUCHER_BYTES_MAX)
_DOMAIN: Final = domain(Voucher)


def voucher_note(order: MessageId, first_t: int) -> bytes:
    """The note of a voucher after which the first token that an order has not paid is `first_t`.

    Where a voucher goes with the order itself, its quote's id stands in the place of the order's.
    """
    return digest(order + first_t.to_bytes(8, "little"))


def voucher_signed(identity: Identity, voucher: Voucher, network: NetworkId) -> Signed:
    """A voucher as it is handed over. The payer need not keep it: the payee does."""
    return seal(identity, network, voucher)


def voucher_opened(signed: Signed, payer: NodeId, network: NetworkId) -> Opened[Voucher]:
    """The voucher in an envelope.

    Raises RemoteError: TOO_LARGE, BAD_ENCODING, BAD_MESSAGE, BAD_SIGNATURE; WRONG_SIGNER unless
    `payer` signed it; BAD_VOUCHER for a lock, which no node of this version knows.
    """
    if signed.signer != payer:
        raise RemoteError(
            Code.WRONG_SIGNER,
            f"{signed.signer.hex()[:8]} signed a voucher of a channel of {payer.hex()[:8]}.",
        )
    voucher = _DECODER.decode(signed.body)
    verify(signed.signer, _DOMAIN, network, signed.body, signed.signature)
    if voucher.lock:
        raise RemoteError(
            Code.BAD_VOUCHER, "The voucher is locked; this version takes those without a lock."
        )
    return Opened(voucher, signed.id, signed.signer)
