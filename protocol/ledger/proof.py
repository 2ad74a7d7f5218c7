"""Proofs that anyone can check: an account that signed twice, witnesses that certified twice.

A contradiction outlaws nobody, since a node restored from an old backup can make one honestly; it
is kept and shown, and its signer comes last in the market. A breach shows more dishonest witnesses
than the network can bear: its ledger halts.
"""

from typing import Annotated

from msgspec import Meta, Struct

from protocol.envelope import Opened, Signed
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId
from protocol.ledger.account import form_checked
from protocol.ledger.agreement import settlement_checked
from protocol.ledger.certificate import Certified, certified_checked
from protocol.ledger.channel import Channel, channel_checked
from protocol.ledger.charter import Charter
from protocol.ledger.decoder import Decoder
from protocol.ledger.entry import REST, Entry, TopUp, change, entry_opened, sources_of
from protocol.ledger.statement import Settlement
from protocol.limits import CERTIFIED_BYTES_MAX


class Contradiction(
    Struct, frozen=True, array_like=True, tag="contradiction", forbid_unknown_fields=True
):
    """Two entries that one account signed for one seq, in the order of their ids."""

    first: Signed
    second: Signed


class Breach(Struct, frozen=True, array_like=True, tag="breach", forbid_unknown_fields=True):
    """What no honest quorum can have certified.

    One entry alone that breaks the rules by itself. Two of one account, in the order of seq and
    id: rivals for one seq, a successor that does not follow, two claims of one source, or a top-up
    of a channel whose rest was claimed. Or the open of a channel with two settlements of it, in
    the order of their values, which differ.
    """

    certified: Annotated[tuple[Certified, ...], Meta(min_length=1, max_length=2)]
    settlements: Annotated[tuple[Settlement, ...], Meta(max_length=2)] = ()


Proof = Contradiction | Breach

_CONTRADICTIONS = Decoder(Contradiction, 2 * CERTIFIED_BYTES_MAX)
_BREACHES = Decoder(Breach, 2 * CERTIFIED_BYTES_MAX + 64)


def contradiction_decoded(data: bytes) -> Contradiction:
    """The form only. Raises RemoteError."""
    return _CONTRADICTIONS.decode(data)


def breach_decoded(data: bytes) -> Breach:
    """The form only. Raises RemoteError."""
    return _BREACHES.decode(data)


def contradiction_made(one: Signed, other: Signed, charter: Charter) -> Contradiction | None:
    """The proof that two entries contradict each other; None where they prove nothing."""
    contradiction = Contradiction(*sorted((one, other), key=lambda signed: signed.id))
    try:
        contradiction_checked(contradiction, charter)
    except RemoteError:
        return None
    return contradiction


def contradiction_checked(contradiction: Contradiction, charter: Charter) -> NodeId:
    """The account that signed both.

    Only entries that an honest witness could both have voted for contradict each other: the same
    place after the same entry, from the same balance, in good form. An entry with a mistake that
    every honest witness refuses is none, and its owner may sign a right one in its place.
    Raises RemoteError BAD_PROOF, and what `entry_opened` and `form_checked` raise.
    """
    if contradiction.first.id >= contradiction.second.id:
        raise RemoteError(
            Code.BAD_PROOF, "A contradiction is two different entries, in the order of their ids."
        )
    first, second = (
        entry_opened(signed, charter.network).value
        for signed in (contradiction.first, contradiction.second)
    )
    for entry in (first, second):
        form_checked(entry, charter)
    if _place(first) != _place(second):
        raise RemoteError(
            Code.BAD_PROOF,
            "The two entries are not of one account for one seq, after the same entry and from "
            "the same balance, so an honest witness refuses one of them.",
        )
    return first.account


def _place(entry: Entry) -> tuple[NodeId, int, bytes, int]:
    return entry.account, entry.seq, entry.prev, entry.balance - change(entry)


def breach_made(certified: tuple[Certified, ...], charter: Charter) -> Breach | None:
    """The proof that these certified entries make; None where they prove nothing."""
    try:
        opened = {one: certified_checked(one, charter) for one in certified}
        ordered = sorted(certified, key=lambda one: (opened[one].value.seq, opened[one].id))
        breach = Breach(tuple(ordered))
        breach_checked(breach, charter)
    except RemoteError:
        return None
    return breach


def breach_checked(breach: Breach, charter: Charter) -> NodeId:
    """The account on whose chain more than f witnesses were dishonest.

    Raises RemoteError BAD_PROOF, and what `certified_checked` raises.
    """
    if breach.settlements:
        return _split_checked(breach, charter).payer
    opened = [certified_checked(certified, charter) for certified in breach.certified]
    if len(opened) == 1:
        broken = _broken(opened[0].value, charter)
    else:
        broken = _at_odds(opened[0], opened[1])
    if not broken:
        raise RemoteError(Code.BAD_PROOF, "Honest witnesses can have certified what is shown here.")
    return opened[0].value.account


def split_made(
    shown: Certified, one: Settlement, other: Settlement, charter: Charter
) -> Breach | None:
    """The proof that two settlements of one channel make; None where they prove nothing."""
    settlements = sorted((one, other), key=lambda settlement: settlement.value)
    breach = Breach((shown,), tuple(settlements))
    try:
        _split_checked(breach, charter)
    except RemoteError:
        return None
    return breach


def _split_checked(breach: Breach, charter: Charter) -> Channel:
    """The channel that was settled twice."""
    values = [settlement.value for settlement in breach.settlements]
    if len(breach.certified) != 1 or len(values) != 2 or values[0] >= values[1]:
        raise RemoteError(
            Code.BAD_PROOF, "A split is one open and two settlements, the smaller value first."
        )
    channel = channel_checked(breach.certified[0], charter)
    for settlement in breach.settlements:
        if settlement.channel != channel.id:
            raise RemoteError(Code.BAD_PROOF, "The settlements are of another channel.")
        settlement_checked(settlement, charter)
    return channel


def _broken(entry: Entry, charter: Charter) -> bool:
    try:
        form_checked(entry, charter)
    except RemoteError as error:
        # What a later version allows is no breach to a node that has not been updated.
        return error.code is not Code.KIND_NOT_SERVED
    before = entry.balance - change(entry)
    if entry.seq > 1:
        return before < 0
    allocated = charter.allocations.get(entry.account, 0)
    return (entry.prev, before) != (charter.network, allocated)


def _at_odds(first: Opened[Entry], second: Opened[Entry]) -> bool:
    one, other = first.value, second.value
    in_order = (one.seq, first.id) < (other.seq, second.id)
    if one.account != other.account or not in_order:
        return False
    if one.seq == other.seq:
        return True
    if one.seq + 1 == other.seq:
        follows = (other.prev, other.balance - change(other)) == (first.id, one.balance)
        if not follows:
            return True
    claimed = {source.key for source in sources_of(one)}
    if isinstance(other.body, TopUp) and (REST, other.body.channel) in claimed:
        return True
    return any(source.key in claimed for source in sources_of(other))
