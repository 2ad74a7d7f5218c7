"""What honest nodes have said that binds them: whoever says two things for one place has broken M4.

It hears the ledger's streams as they are written. A statement that was not on disk before it left
shows here when the process that forgot it says another one.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from msgspec import Struct

from node.simulator.book import Broken
from protocol.codec import decode
from protocol.envelope import Signed
from protocol.errors import RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.certificate import Vote
from protocol.ledger.entry import Entry
from protocol.ledger.statement import Commit, Prepare, Proposal, Report
from protocol.ledger.sync import (
    Committed,
    Prepared,
    Propose,
    Reported,
    Submit,
    Voted,
    answer_decoded,
    ask_decoded,
)
from protocol.limits import ENTRY_BYTES_MAX, FRAME_LENGTH_BYTES

T = TypeVar("T", bound=Struct)

_ASKS: Final = frozenset({b"submit", b"propose"})
_ANSWERS: Final = frozenset({b"voted", b"reported", b"prepare-vote", b"commit-vote"})


class Statements:
    """Hears frames of the ledger's protocol, from honest nodes only. Raises Broken."""

    def __init__(self, may_repeat: Callable[[NodeId], bool]) -> None:
        """`may_repeat`: an account whose disk was an old copy, which may sign twice for a seq."""
        self._may_repeat = may_repeat
        self._said: dict[tuple[NodeId, str, bytes, int], object] = {}
        self._places: dict[MessageId, tuple[NodeId, int]] = {}

    def __len__(self) -> int:
        return len(self._said)

    def hear(self, sender: NodeId, data: bytes) -> None:
        """What one node writes to a stream: one frame or more."""
        for frame in frames(data):
            tag = tag_of(frame)
            try:
                if tag in _ASKS:
                    self._asked(sender, ask_decoded(frame))
                elif tag in _ANSWERS:
                    self._answered(sender, answer_decoded(frame))
            except RemoteError as error:
                raise Broken(f"T1: an honest node says what is no message: {error}") from None

    def _asked(self, sender: NodeId, ask: Struct) -> None:
        if isinstance(ask, Submit):
            entry = decode(ask.entry.body, Entry, ENTRY_BYTES_MAX)
            place = (entry.account, entry.seq)
            self._places[ask.entry.id] = place
            if ask.entry.signer == sender and not self._may_repeat(sender):
                self._say(sender, "entry", entry.account, entry.seq, ask.entry.id)
        elif isinstance(ask, Propose):
            proposal = decode(ask.proposal.body, Proposal, ENTRY_BYTES_MAX)
            if not self._may_repeat(sender):
                self._say(sender, "proposal", proposal.channel, proposal.turn, proposal.value)

    def _answered(self, sender: NodeId, answer: Struct) -> None:
        match answer:
            case Voted(vote):
                entry = _body(vote, Vote).entry
                if entry in self._places:
                    account, seq = self._places[entry]
                    self._say(sender, "vote", account, seq, entry)
            case Reported(shown):
                report = _body(shown.report, Report)
                self._say(sender, "report", report.channel, report.turn, report.locked)
            case Prepared(vote):
                prepare = _body(vote, Prepare)
                self._say(sender, "prepare", prepare.channel, prepare.turn, prepare.value)
            case Committed(vote):
                commit = _body(vote, Commit)
                self._say(sender, "commit", commit.channel, commit.turn, commit.value)

    def _say(self, sender: NodeId, kind: str, place: bytes, number: int, what: object) -> None:
        known = self._said.setdefault((sender, kind, place, number), what)
        if known != what:
            raise Broken(
                f"M4: {sender.hex()[:8]} has said a second {kind} for {place.hex()[:8]}, {number}"
            )


def frames(data: bytes) -> list[bytes]:
    """The frames in what was written to a stream at once."""
    found, at = [], 0
    while at + FRAME_LENGTH_BYTES <= len(data):
        size = int.from_bytes(data[at : at + FRAME_LENGTH_BYTES], "big")
        at += FRAME_LENGTH_BYTES
        found.append(data[at : at + size])
        at += size
    return found


def tag_of(packed: bytes) -> bytes:
    """The tag of a packed message: the first thing in its array."""
    if len(packed) < 3 or not 0x90 <= packed[0] <= 0x9F or not 0xA0 <= packed[1] <= 0xBF:
        return b""
    return packed[2 : 2 + (packed[1] & 0x1F)]


def _body(signed: Signed, kind: type[T]) -> T:
    return decode(signed.body, kind, ENTRY_BYTES_MAX)
