"""A file of certified chains that anyone can verify with the genesis alone: its form.

Frames, each a 4-byte big-endian length and that many canonical bytes: a Header; then Shown frames,
the certified sources whose place in their own chain is not in the file, in the order of account
and seq; then the Settlements of channels, in the order of their ids; then the chains, in the order
of accounts, each from seq 1 on without a gap; or where it was pruned, from a checkpoint on:
Resumed, Held, and Kept entries that somebody may still claim by.
The file needs no seal of its own: every word in it is signed, and the header counts the entries.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated

from msgspec import Meta, Struct

from protocol.errors import Code, RemoteError
from protocol.ids import NetworkIdField
from protocol.ledger.certificate import Certified
from protocol.ledger.charter import Charter
from protocol.ledger.decoder import Decoder, packed
from protocol.ledger.resumed import Held, Kept, Resumed
from protocol.ledger.statement import Settlement
from protocol.limits import CERTIFIED_BYTES_MAX, FRAME_LENGTH_BYTES
from protocol.units import CountField

FRAME_MAX = CERTIFIED_BYTES_MAX + 16


class Header(Struct, frozen=True, array_like=True, tag="export", forbid_unknown_fields=True):
    """Which network's chains follow, and how many frames of each sort."""

    version: Annotated[int, Meta(ge=1, le=1)]
    network: NetworkIdField
    shown: CountField
    settlements: CountField
    entries: CountField


class Shown(Struct, frozen=True, array_like=True, tag="shown", forbid_unknown_fields=True):
    """A certified source of a claim, or funding of a settled channel, beyond what the file has of
    its own chain."""

    certified: Certified


ExportFrame = Header | Shown | Settlement | Resumed | Held | Kept | Certified
_DECODER: Decoder[ExportFrame] = Decoder(ExportFrame, FRAME_MAX)  # type: ignore[arg-type]


def frame_decoded(data: bytes) -> ExportFrame:
    """What stands in a frame. Raises RemoteError TOO_LARGE, BAD_ENCODING or BAD_MESSAGE."""
    return _DECODER.decode(data)


def export_header(charter: Charter, *, shown: int, entries: int, settlements: int = 0) -> bytes:
    """The first bytes of a file, which says how many frames follow."""
    return framed(Header(1, charter.network, shown, settlements, entries))


def framed(frame: ExportFrame) -> bytes:
    """A frame as it stands in the file."""
    data = packed(frame)
    assert len(data) <= FRAME_MAX
    return len(data).to_bytes(FRAME_LENGTH_BYTES, "big") + data


def frames_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The frames in a file's bytes, which may come in pieces of any size.

    Raises RemoteError TOO_LARGE for a length beyond any frame's, and BAD_FRAME where the bytes
    end within a frame.
    """
    rest = b""
    for chunk in chunks:
        rest += chunk
        start = 0
        while (body := start + FRAME_LENGTH_BYTES) <= len(rest):
            length = int.from_bytes(rest[start:body], "big")
            if length > FRAME_MAX:
                raise RemoteError(
                    Code.TOO_LARGE, f"A frame of {length} bytes; at most {FRAME_MAX} are taken."
                )
            if len(rest) < body + length:
                break
            yield rest[body : body + length]
            start = body + length
        rest = rest[start:]
    if rest:
        raise RemoteError(
            Code.BAD_FRAME, f"The bytes end within a frame; {len(rest)} are left over."
        )
