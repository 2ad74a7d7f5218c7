"""Signatures of an export's frames, checked ahead by whoever has processors to spare.

Signatures are nearly all that an audit costs, and each stands for itself; all else needs the chains
in their order. So frames are checked here in any order and anywhere, and the audit goes through
them once, with what is known of each.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from enum import IntEnum

from protocol.errors import RemoteError
from protocol.ids import MessageId
from protocol.ledger.agreement import settlement_checked
from protocol.ledger.certificate import Certified, certificate_checked, certified_checked
from protocol.ledger.charter import Charter
from protocol.ledger.entry import entry_opened
from protocol.ledger.export import Header, Shown, frame_decoded
from protocol.ledger.resumed import Held, Kept, Resumed
from protocol.ledger.statement import Settlement


class Known(IntEnum):
    """What is known of a frame's signatures; of one that does not hold, nothing is known."""

    NOTHING = 0
    AUTHOR = 1  # The entry's own holds; its certificate was not looked at.
    ALL = 2


def frames_checked(
    charter: Charter, frames: Sequence[bytes], claimed: AbstractSet[MessageId] | None
) -> bytes:
    """What is known of each of these frames, which follow each other in a file: a byte each.

    `claimed` are the ids whose certificates count, beside those of heads; None: all count. What a
    frame has that is wrong is left to the audit, which says what and where.
    """
    known = bytearray()
    last: Certified | None = None
    last_place = 0
    for place, data in enumerate(frames):
        level, certified = _checked(charter, data, claimed)
        known.append(level)
        if certified is None:
            continue
        # Where another chain begins, the one before was a head, so its certificate counts too.
        is_other = last is not None and certified.entry.signer != last.entry.signer
        if is_other and known[last_place] == Known.AUTHOR and _holds(last, charter):
            known[last_place] = Known.ALL
        last, last_place = certified, place
    return bytes(known)


def _checked(
    charter: Charter, data: bytes, claimed: AbstractSet[MessageId] | None
) -> tuple[Known, Certified | None]:
    """What is known of one frame, and the entry of a chain, if it is one."""
    try:
        frame = frame_decoded(data)
        match frame:
            case Header():
                return Known.ALL, None
            case Shown(certified):
                certified_checked(certified, charter)
                return Known.ALL, None
            case Kept(certified):
                certified_checked(certified, charter)
                return Known.ALL, None
            case Settlement():
                settlement_checked(frame, charter)
                return Known.ALL, None
            case Resumed() | Held():
                return Known.NOTHING, None  # The audit checks them with what they stand for.
    except RemoteError:
        return Known.NOTHING, None
    try:
        if claimed is None or frame.entry.id in claimed:
            certified_checked(frame, charter)
            return Known.ALL, frame
        entry_opened(frame.entry, charter.network)
    except RemoteError:
        return Known.NOTHING, frame
    return Known.AUTHOR, frame


def _holds(certified: Certified | None, charter: Charter) -> bool:
    assert certified is not None
    try:
        certificate_checked(certified.certificate, charter)
    except RemoteError:
        return False
    return True
