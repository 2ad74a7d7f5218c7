"""Votes of witnesses and certificates of q votes: what makes an entry final."""

from collections.abc import Iterable, Sequence
from typing import Annotated

from msgspec import Meta, Struct

from protocol.envelope import Opened, Signed, domain
from protocol.errors import Code, RemoteError
from protocol.identity import Identity, holds, signed_bytes
from protocol.ids import MessageId, MessageIdField, NetworkId, SignatureField
from protocol.ledger.charter import Charter
from protocol.ledger.decoder import Decoder, packed
from protocol.ledger.entry import Entry, entry_opened
from protocol.limits import CERTIFIED_BYTES_MAX, EPOCH_MAX, WITNESSES_MAX

EpochField = Annotated[int, Meta(ge=0, le=EPOCH_MAX)]
WitnessField = Annotated[int, Meta(ge=0, lt=WITNESSES_MAX)]
"""The number of a witness in the genesis, from 0."""

EPOCH = 0  # The only list of witnesses there is today: the genesis's.


class Vote(Struct, frozen=True, array_like=True, tag="vote", forbid_unknown_fields=True):
    """A witness's word, once for an (account, seq): this entry and no other."""

    epoch: EpochField
    entry: MessageIdField


class Seal(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One witness's signature over the vote for an entry."""

    witness: WitnessField
    signature: SignatureField


class Certificate(
    Struct, frozen=True, array_like=True, tag="certificate", forbid_unknown_fields=True
):
    """Seals of q or more witnesses, in the order of their numbers."""

    entry: MessageIdField
    epoch: EpochField
    seals: Annotated[tuple[Seal, ...], Meta(max_length=WITNESSES_MAX)]


class Certified(Struct, frozen=True, array_like=True, tag="certified", forbid_unknown_fields=True):
    """A final entry, as anyone can check it with the genesis alone."""

    entry: Signed
    certificate: Certificate


_DECODER = Decoder(Certified, CERTIFIED_BYTES_MAX)


def certified_decoded(data: bytes) -> Certified:
    """The form only. Raises RemoteError TOO_LARGE, BAD_ENCODING or BAD_MESSAGE."""
    return _DECODER.decode(data)


def statement_signed(identity: Identity, statement: Struct, network: NetworkId) -> Signed:
    """A witness's statement as it answers it; the same bytes each time (Ed25519 draws no chance).

    Only ever after what the statement binds the witness to is stored.
    """
    body = packed(statement)
    return Signed(identity.node, body, identity.sign(domain(type(statement)), network, body))


def statement_seal(signed: Signed, statement: Struct, charter: Charter) -> Seal:
    """The seal that a witness's answer is, when it was asked for this very statement.

    Raises RemoteError: NOT_WITNESS where the signer is none, UNEXPECTED where the answer is
    another statement, BAD_SIGNATURE.
    """
    number = charter.number(signed.signer)
    tag = statement.__struct_config__.tag
    if number is None:
        raise RemoteError(
            Code.NOT_WITNESS,
            f"{signed.signer.hex()[:8]} signed a {tag}; it is no witness of this network.",
        )
    if signed.body != packed(statement):
        raise RemoteError(
            Code.UNEXPECTED, f"Witness {number} was asked for one {tag} and answered another."
        )
    data = signed_bytes(domain(type(statement)), charter.network, signed.body)
    if not holds(signed.signer, data, signed.signature):
        raise RemoteError(Code.BAD_SIGNATURE, f"The {tag} of witness {number} does not hold.")
    return Seal(number, signed.signature)


def seals_ordered(seals: Iterable[Seal], charter: Charter) -> tuple[Seal, ...] | None:
    """These seals of one statement as a certificate has them; None while they are too few."""
    by_witness = {seal.witness: seal for seal in seals}
    if len(by_witness) < charter.quorum:
        return None
    return tuple(by_witness[number] for number in sorted(by_witness))


def seals_checked(statement: Struct, epoch: int, seals: Sequence[Seal], charter: Charter) -> None:
    """Raises RemoteError BAD_CERTIFICATE unless q witnesses or more, and all shown, sealed it."""
    if epoch != EPOCH:
        raise RemoteError(
            Code.BAD_CERTIFICATE,
            f"The certificate is of epoch {epoch}; this network is in epoch {EPOCH}.",
        )
    if len(seals) < charter.quorum:
        raise RemoteError(
            Code.BAD_CERTIFICATE,
            f"The certificate has {len(seals)} seals; {charter.quorum} of "
            f"{len(charter.witnesses)} witnesses are needed.",
        )
    data, last = signed_bytes(domain(type(statement)), charter.network, packed(statement)), -1
    for seal in seals:
        if not last < seal.witness < len(charter.witnesses):
            raise RemoteError(
                Code.BAD_CERTIFICATE,
                "The seals of a certificate are in the order of the witnesses' numbers, each once.",
            )
        last = seal.witness
        if not holds(charter.witnesses[last], data, seal.signature):
            raise RemoteError(
                Code.BAD_CERTIFICATE,
                f"The seal of witness {last} over this {statement.__struct_config__.tag} does not "
                "hold.",
            )


def vote_signed(identity: Identity, entry: MessageId, network: NetworkId) -> Signed:
    """A witness's vote. Only ever after the entry is stored as the one that it voted for."""
    return statement_signed(identity, Vote(EPOCH, entry), network)


def seal_of(vote: Signed, entry: MessageId, charter: Charter) -> Seal:
    """The seal that a witness's vote is. Raises RemoteError as `statement_seal`."""
    return statement_seal(vote, Vote(EPOCH, entry), charter)


def certificate_made(
    entry: MessageId, seals: Iterable[Seal], charter: Charter
) -> Certificate | None:
    """The certificate that these seals, each from `seal_of`, make; None while they are too few."""
    ordered = seals_ordered(seals, charter)
    return None if ordered is None else Certificate(entry, EPOCH, ordered)


def certificate_checked(certificate: Certificate, charter: Charter) -> None:
    """Raises RemoteError BAD_CERTIFICATE as `seals_checked`."""
    vote = Vote(EPOCH, certificate.entry)
    seals_checked(vote, certificate.epoch, certificate.seals, charter)


def certified_checked(certified: Certified, charter: Charter) -> Opened[Entry]:
    """The entry of a certified pair, whose author's signature and certificate hold.

    Both are checked, although the certificate says that honest witnesses saw the signature: the
    entry's id does not cover the signature's bytes, and what we hand on must hold at others.
    Raises RemoteError as `entry_opened`, and BAD_CERTIFICATE.
    """
    opened = entry_opened(certified.entry, charter.network)
    certificate_names(certified, opened.id)
    certificate_checked(certified.certificate, charter)
    return opened


def certificate_names(certified: Certified, entry: MessageId) -> None:
    """Raises RemoteError BAD_CERTIFICATE where the certificate is one of another entry."""
    if certified.certificate.entry != entry:
        raise RemoteError(
            Code.BAD_CERTIFICATE,
            f"The certificate is for {certified.certificate.entry.hex()[:8]}, the entry with it "
            f"is {entry.hex()[:8]}.",
        )
