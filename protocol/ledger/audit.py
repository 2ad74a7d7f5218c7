"""Whole chains verified from their bytes, with the genesis and nothing else.

Two depths. `full`: each entry's author, link, rules and certificate. `heads`: authors, links and
rules of all, the certificates of each head and of each claimed source; a head's certificate says
that f + 1 honest witnesses held all before it as certified.
Memory: a balance and a length for each account, the claims and channels of one chain, what no
claim has taken yet and a number for each settlement (a hundred bytes each); never the chains.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.agreement import settlement_checked
from protocol.ledger.certificate import (
    Certified,
    certified_checked,
)
from protocol.ledger.chain_audit import ChainAudit
from protocol.ledger.charter import Charter
from protocol.ledger.checking import Known
from protocol.ledger.entry import (
    entry_read,
    sources_of,
)
from protocol.ledger.export import ExportFrame, Header, Shown, frame_decoded, frames_of
from protocol.ledger.resumed import Held, Kept, Resumed, Resuming
from protocol.ledger.statement import Settlement
from protocol.ledger.sums import Sums
from protocol.limits import FAULTS_SHOWN_MAX

Read = Callable[[], Iterable[bytes]]
"""The bytes of an export from their beginning, in pieces; it is called once or twice."""


class Depth(StrEnum):
    """How much is verified."""

    FULL = "full"
    HEADS = "heads"


@dataclass(frozen=True, slots=True)
class Fault:
    """What does not hold, and where; no account where the bytes themselves are at fault."""

    account: NodeId | None
    seq: int
    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found; amounts are microcredits."""

    depth: Depth
    entries: int
    signatures: int  # Checked: authors and seals.
    balances: dict[NodeId, int]  # Of each account in the genesis or the file.
    supply: int
    pays_unclaimed: int
    channels: int  # In channels, taken by neither side yet.
    fees: int  # Not claimed yet.
    complete: bool
    """Whether every claimed source stands in a chain of the file, so that M2's sum is whole."""
    faults_count: int
    faults: tuple[Fault, ...]  # The first of them.

    @property
    def total(self) -> int:
        """Balances, pays and fees not yet claimed and what is in channels: the supply, where the
        file is complete."""
        return sum(self.balances.values()) + self.pays_unclaimed + self.channels + self.fees

    @property
    def ok(self) -> bool:
        """Whether all that was checked holds."""
        return not self.faults_count


class _Audit:
    """One run through a file."""

    def __init__(self, charter: Charter, depth: Depth, claimed: frozenset[MessageId]) -> None:
        self._charter = charter
        self._depth = depth
        self._claimed = claimed
        self._header: Header | None = None
        self._chain: ChainAudit | None = None
        self._broken = False  # The chain at hand: one fault of a chain is enough.
        self._sums = Sums(charter)
        self._known = Known.NOTHING  # Of the frame at hand.
        self._seqs: dict[NodeId, int] = {}
        self._balances = dict(charter.allocations)
        self._frames: dict[type, int] = {Shown: 0, Settlement: 0, Certified: 0}
        self._resuming: Resuming | None = None
        self._kept_seq = 0
        self._entries = self._signatures = self._faults_count = 0
        self._faults: list[Fault] = []

    def run(self, frames: Iterable[tuple[bytes, Known]]) -> Report:
        try:
            for data, self._known in frames:
                self._take(data)
            if self._header is None:
                raise RemoteError(Code.BAD_FRAME, "The file is empty.")
        except RemoteError as error:
            self._fault(self._account, self._seq, error)
        self._end_chain()
        self._end()
        return Report(
            depth=self._depth,
            entries=self._entries,
            signatures=self._signatures,
            balances=self._balances,
            supply=self._charter.supply,
            pays_unclaimed=self._sums.pays,
            channels=self._sums.channels,
            fees=self._sums.fees,
            complete=not self._frames[Shown] and not self._sums.is_pruned,
            faults_count=self._faults_count,
            faults=tuple(self._faults),
        )

    @property
    def _account(self) -> NodeId | None:
        return None if self._chain is None else self._chain.state.account

    @property
    def _seq(self) -> int:
        return 0 if self._chain is None else self._chain.state.seq + 1

    def _take(self, data: bytes) -> None:
        frame = frame_decoded(data)
        if self._header is None:
            self._begin(frame)
            return
        if isinstance(frame, Header):
            raise RemoteError(Code.UNEXPECTED, "A second header stands in the file.")
        if isinstance(frame, Resumed | Held):
            self._take_checkpoint(frame)
            return
        counted = Certified if isinstance(frame, Kept) else type(frame)
        self._frames[counted] += 1
        match frame:
            case Kept(certified):
                self._take_kept(certified)
            case Shown(certified):
                self._take_shown(certified)
            case Settlement():
                self._take_settlement(frame)
            case Certified():
                self._take_entry(frame)

    def _begin(self, frame: ExportFrame) -> None:
        if not isinstance(frame, Header):
            raise RemoteError(Code.UNEXPECTED, "The file does not begin with its header.")
        if frame.network != self._charter.network:
            raise RemoteError(
                Code.WRONG_NETWORK,
                f"The file is of network {frame.network.hex()[:16]}; the genesis given is of "
                f"{self._charter.network.hex()[:16]}.",
            )
        self._header = frame

    def _take_shown(self, certified: Certified) -> None:
        if self._frames[Settlement] or self._frames[Certified]:
            raise RemoteError(Code.UNEXPECTED, "Shown sources stand before settlements and chains.")
        if self._known is Known.ALL:
            opened = entry_read(certified.entry, self._charter.network)
        else:
            opened = certified_checked(certified, self._charter)
        self._signatures += 1 + len(certified.certificate.seals)
        self._sums.show(opened)

    def _take_settlement(self, settlement: Settlement) -> None:
        if self._frames[Certified]:
            raise RemoteError(Code.UNEXPECTED, "Settlements stand before the chains.")
        if self._known is not Known.ALL:
            settlement_checked(settlement, self._charter)
        self._signatures += len(settlement.seals)
        self._sums.settle(settlement)

    def _take_checkpoint(self, frame: Resumed | Held) -> None:
        if isinstance(frame, Resumed):
            if self._resuming is not None:
                raise RemoteError(Code.UNEXPECTED, "A checkpoint stands here without its chain.")
            self._resuming = Resuming(frame)
        elif self._resuming is None:
            raise RemoteError(Code.UNEXPECTED, "Holdings stand here without their checkpoint.")
        else:
            self._resuming.add(frame)

    def _begin_chain(self, account: NodeId) -> None:
        if not self._sums.has_begun:
            self._sums.begin()
        self._end_chain()
        before, resuming = self._account, self._resuming
        self._resuming, self._kept_seq = None, 0
        self._chain, self._broken = (
            ChainAudit(account, self._charter, all_sealed=self._depth is Depth.FULL),
            False,
        )
        try:
            if before is not None and account <= before:
                raise RemoteError(
                    Code.UNEXPECTED, "The chains stand in the order of their accounts, each once."
                )
            if resuming is not None:
                if resuming.account != account:
                    raise RemoteError(Code.UNEXPECTED, "The checkpoint is of another account.")
                self._chain.resume(*resuming.state(self._charter))
                self._signatures += len(resuming.checkpointed.seals)
                self._sums.resume(account, resuming.holdings)
        except RemoteError as error:
            self._broken = True
            self._fault(account, 0, error)

    def _take_kept(self, certified: Certified) -> None:
        """An entry from before the checkpoint: its certificate is all that stands for it."""
        if certified.entry.signer != self._account or self._resuming is not None:
            self._begin_chain(certified.entry.signer)
        chain = self._chain
        assert chain is not None
        if self._broken:
            return
        try:
            if self._known is Known.ALL:
                opened = entry_read(certified.entry, self._charter.network)
            else:
                opened = certified_checked(certified, self._charter)
            seq, first = opened.value.seq, chain.first_seq
            if not self._kept_seq < seq < first or chain.state.seq + 1 != first:
                raise RemoteError(
                    Code.UNEXPECTED, "Kept entries stand in order, before those of the chain."
                )
        except RemoteError as error:
            self._broken = True
            self._fault(certified.entry.signer, self._seq, error)
            return
        self._kept_seq = seq
        self._signatures += 1 + len(certified.certificate.seals)
        self._entries += 1
        for claimed, wrong in self._sums.keep(opened):
            self._fault(claimed.account, claimed.seq, wrong)

    def _take_entry(self, certified: Certified) -> None:
        signer = certified.entry.signer
        if signer != self._account or self._resuming is not None:
            self._begin_chain(signer)
        chain = self._chain
        assert chain is not None
        if self._broken:
            return
        try:
            is_source = certified.entry.id in self._claimed
            opened = chain.add(certified, is_source=is_source, known=self._known)
        except RemoteError as error:
            self._broken = True
            self._fault(signer, self._seq, error)
            return
        self._entries += 1
        for claimed, wrong in self._sums.take(opened, chain):
            self._fault(claimed.account, claimed.seq, wrong)

    def _end_chain(self) -> None:
        chain = self._chain
        if chain is None:
            return
        if not self._broken:
            try:
                chain.end()
            except RemoteError as error:
                self._fault(chain.state.account, chain.state.seq, error)
        self._signatures += chain.signatures
        self._balances[chain.state.account] = chain.state.balance
        self._seqs[chain.state.account] = chain.state.seq

    def _end(self) -> None:
        if self._resuming is not None:
            sentence = "A checkpoint stands here without its chain."
            self._fault(None, 0, RemoteError(Code.UNEXPECTED, sentence))
        for finding in self._sums.end():
            if isinstance(finding, RemoteError):
                self._fault(None, 0, finding)
            else:
                self._fault(finding[0].account, finding[0].seq, finding[1])
        if self._sums.stray(self._seqs):
            sentence = "A source is shown that nobody claims, or that stands in its chain."
            self._fault(None, 0, RemoteError(Code.UNEXPECTED, sentence))
        header, counted = self._header, tuple(self._frames.values())
        if header is not None and counted != (header.shown, header.settlements, header.entries):
            sentence = (
                f"The header speaks of {header.shown} sources, {header.settlements} settlements "
                f"and {header.entries} entries; {counted[0]}, {counted[1]} and {counted[2]} are "
                "here."
            )
            self._fault(None, 0, RemoteError(Code.UNEXPECTED, sentence))
        sums = self._sums
        total = sum(self._balances.values()) + sums.pays + sums.channels + sums.fees
        if not self._faults_count and not counted[0] and total != self._charter.supply:
            sentence = f"All adds up to {total} microcredits, not {self._charter.supply}."
            self._fault(None, 0, RemoteError(Code.BALANCE_WRONG, sentence))

    def _fault(self, account: NodeId | None, seq: int, error: RemoteError) -> None:
        self._faults_count += 1
        if len(self._faults) < FAULTS_SHOWN_MAX:
            self._faults.append(Fault(account, seq, error.code, error.sentence))


def audit(charter: Charter, read: Read, depth: Depth) -> Report:
    """Verify an export. It raises nothing, whatever the bytes; what is wrong is in the report.

    What no file can show is that a chain goes on beyond its last entry here.
    """
    claimed = claimed_sources(charter, read) if depth is Depth.HEADS else frozenset()
    frames = ((data, Known.NOTHING) for data in frames_of(read()))
    return audit_known(charter, frames, depth, claimed)


def audit_known(
    charter: Charter,
    frames: Iterable[tuple[bytes, Known]],
    depth: Depth,
    claimed: frozenset[MessageId],
) -> Report:
    """As `audit`, of frames with what is known of their signatures; a RemoteError that the frames
    raise is a fault of the file. `claimed` is what `claimed_sources` finds, for `heads` only."""
    return _Audit(charter, depth, claimed).run(frames)


def claimed_sources(charter: Charter, read: Read) -> frozenset[MessageId]:
    """What the chains of a file claim; what is wrong with it shows when it is verified."""
    found: set[MessageId] = set()
    try:
        for data in frames_of(read()):
            frame = frame_decoded(data)
            if isinstance(frame, Certified) and b"claim" in frame.entry.body:  # Its tag, in clear.
                entry = entry_read(frame.entry, charter.network).value
                found.update(source.id for source in sources_of(entry))
    except RemoteError:
        pass
    return frozenset(found)
