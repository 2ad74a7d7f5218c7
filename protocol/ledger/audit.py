"""Whole chains verified from their bytes, with the genesis and nothing else.

Two depths. `full`: each entry's author, link, rules and certificate. `heads`: authors, links and
rules of all, the certificates of each head and of each claimed source; a head's certificate says
that f + 1 honest witnesses held all before it as certified.
Memory: a balance and a length for each account, the claims of one chain, and the pays that no
claim has taken yet (a hundred bytes each); never the chains.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.account import Account, follow, opening, source_checked
from protocol.ledger.certificate import (
    Certified,
    certificate_checked,
    certificate_names,
    certified_checked,
)
from protocol.ledger.charter import Charter
from protocol.ledger.entry import (
    Claim,
    Entry,
    Pay,
    Source,
    SourceKey,
    entry_opened,
    entry_read,
    sources_of,
)
from protocol.ledger.export import ExportFrame, Header, Shown, frame_decoded, frames_of
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
    fees: int
    complete: bool
    """Whether every claimed source stands in a chain of the file, so that M2's sum is whole."""
    faults_count: int
    faults: tuple[Fault, ...]  # The first of them.

    @property
    def total(self) -> int:
        """Balances, pays not yet claimed and fees: the supply, where the file is complete."""
        return sum(self.balances.values()) + self.pays_unclaimed + self.fees

    @property
    def ok(self) -> bool:
        """Whether all that was checked holds."""
        return not self.faults_count


class ChainAudit:
    """Verifies one chain, entry by entry from seq 1; also for chains that come over the network.

    What an entry claims is checked elsewhere: `add` returns the entry, its sources are in it.
    """

    def __init__(self, account: NodeId, charter: Charter, depth: Depth) -> None:
        self._charter = charter
        self._depth = depth
        self._claimed: dict[SourceKey, int] = {}
        self._unsealed: Certified | None = None
        self.state = opening(charter, account)
        self.signatures = 0

    def add(self, certified: Certified, *, is_source: bool = False) -> Opened[Entry]:
        """Verify the next entry; `is_source`: its certificate counts, for a claim takes it.

        Raises RemoteError: what `follow`, `entry_opened` and `certified_checked` raise.
        """
        opened = self._opened(certified, sealed=is_source or self._depth is Depth.FULL)
        entry = opened.value
        if entry.account != self.state.account:
            raise RemoteError(Code.UNEXPECTED, "The entry is of another account's chain.")
        self.state = self._followed(opened)
        for source in sources_of(entry):
            self._claimed[source.key] = entry.seq
        return opened

    def end(self) -> None:
        """After the last entry: its certificate. Raises RemoteError BAD_CERTIFICATE."""
        if self._unsealed is not None:
            certificate_checked(self._unsealed.certificate, self._charter)
            self.signatures += len(self._unsealed.certificate.seals)
            self._unsealed = None

    def _followed(self, opened: Opened[Entry]) -> Account:
        return follow(self.state, self._claimed.get, opened, self._charter)

    def _opened(self, certified: Certified, *, sealed: bool) -> Opened[Entry]:
        if sealed:
            opened = certified_checked(certified, self._charter)
            self.signatures += 1 + len(certified.certificate.seals)
        else:
            opened = entry_opened(certified.entry, self._charter.network)
            certificate_names(certified, opened.id)
            self.signatures += 1
        self._unsealed = None if sealed else certified
        return opened


@dataclass(frozen=True, slots=True)
class _Claimed:
    account: NodeId
    seq: int
    source: Source


class _Sources:
    """Pays and the claims that take them, matched in whichever order they come."""

    def __init__(self) -> None:
        self.pays: dict[MessageId, Pay | Claim] = {}  # Not yet claimed.
        self.claims: dict[MessageId, _Claimed] = {}  # Of pays that have not come yet.
        self.shown: dict[MessageId, Pay | Claim] = {}
        self.shown_places: list[tuple[NodeId, int]] = []

    def claim(self, claim: _Claimed) -> None:
        """Raises RemoteError NOT_PAYEE, AMOUNT_WRONG or ALREADY_CLAIMED."""
        source = claim.source
        body = self.pays.pop(source.id, None) or self.shown.pop(source.id, None)
        if body is not None:
            source_checked(claim.account, source, body)
        elif source.id in self.claims:
            raise RemoteError(
                Code.ALREADY_CLAIMED,
                f"{self.claims[source.id].account.hex()[:8]} has claimed {source.id.hex()[:8]}.",
            )
        else:
            self.claims[source.id] = claim


class _Audit:
    """One run through a file."""

    def __init__(self, charter: Charter, depth: Depth, claimed: frozenset[MessageId]) -> None:
        self._charter = charter
        self._depth = depth
        self._claimed = claimed
        self._header: Header | None = None
        self._chain: ChainAudit | None = None
        self._broken = False  # The chain at hand: one fault of a chain is enough.
        self._sources = _Sources()
        self._seqs: dict[NodeId, int] = {}
        self._balances = dict(charter.allocations)
        self._frames = {Shown: 0, Certified: 0}
        self._entries = self._signatures = self._fees = self._faults_count = 0
        self._faults: list[Fault] = []

    def run(self, read: Read) -> Report:
        try:
            for data in frames_of(read()):
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
            pays_unclaimed=self._unclaimed(),
            fees=self._fees,
            complete=not self._frames[Shown],
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
        elif isinstance(frame, Certified):
            self._frames[Certified] += 1
            self._take_entry(frame)
        elif isinstance(frame, Shown):
            self._frames[Shown] += 1
            self._take_shown(frame.certified)
        else:
            raise RemoteError(Code.UNEXPECTED, "A second header stands in the file.")

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
        opened = certified_checked(certified, self._charter)
        self._signatures += 1 + len(certified.certificate.seals)
        sources, place = self._sources, (opened.value.account, opened.value.seq)
        if self._chain is not None or (sources.shown_places and place <= sources.shown_places[-1]):
            raise RemoteError(
                Code.UNEXPECTED, "Shown sources stand before the chains, by account and seq."
            )
        sources.shown_places.append(place)
        sources.shown[opened.id] = opened.value.body

    def _take_entry(self, certified: Certified) -> None:
        signer = certified.entry.signer
        if signer != self._account:
            self._end_chain()
            before = self._account
            self._chain, self._broken = ChainAudit(signer, self._charter, self._depth), False
            if before is not None and signer <= before:
                error = RemoteError(
                    Code.UNEXPECTED, "The chains stand in the order of their accounts, each once."
                )
                self._broken = True
                self._fault(signer, 0, error)
        chain = self._chain
        assert chain is not None
        if self._broken:
            return
        try:
            opened = chain.add(certified, is_source=certified.entry.id in self._claimed)
        except RemoteError as error:
            self._broken = True
            self._fault(signer, self._seq, error)
            return
        self._entries += 1
        self._fees += opened.value.fee
        self._match(opened)

    def _match(self, opened: Opened[Entry]) -> None:
        entry, sources = opened.value, self._sources
        claims = [_Claimed(entry.account, entry.seq, source) for source in sources_of(entry)]
        earlier = sources.claims.pop(opened.id, None)
        if isinstance(entry.body, Pay) and earlier is None:
            sources.pays[opened.id] = entry.body
        elif earlier is not None:
            claims.append(earlier)
            sources.pays[opened.id] = entry.body
        for claim in claims:
            try:
                sources.claim(claim)
            except RemoteError as error:
                self._fault(claim.account, claim.seq, error)

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
        sources, header = self._sources, self._header
        for claim in sources.claims.values():
            sentence = f"It claims {claim.source.id.hex()[:8]}, and no pay of that id is here."
            self._fault(claim.account, claim.seq, RemoteError(Code.NEED, sentence))
        stray = any(seq <= self._seqs.get(account, 0) for account, seq in sources.shown_places)
        if sources.shown or stray:
            sentence = "A source is shown that nobody claims, or that stands in its chain."
            self._fault(None, 0, RemoteError(Code.UNEXPECTED, sentence))
        counted = (self._frames[Shown], self._frames[Certified])
        if header is not None and counted != (header.shown, header.entries):
            sentence = (
                f"The header speaks of {header.shown} sources and {header.entries} entries; "
                f"{counted[0]} and {counted[1]} are here."
            )
            self._fault(None, 0, RemoteError(Code.UNEXPECTED, sentence))
        total = sum(self._balances.values()) + self._unclaimed() + self._fees
        if not self._faults_count and not counted[0] and total != self._charter.supply:
            sentence = f"All adds up to {total} microcredits, not {self._charter.supply}."
            self._fault(None, 0, RemoteError(Code.BALANCE_WRONG, sentence))

    def _unclaimed(self) -> int:
        pays = self._sources.pays.values()
        return sum(pay.amount for pay in pays if isinstance(pay, Pay))

    def _fault(self, account: NodeId | None, seq: int, error: RemoteError) -> None:
        self._faults_count += 1
        if len(self._faults) < FAULTS_SHOWN_MAX:
            self._faults.append(Fault(account, seq, error.code, error.sentence))


def audit(charter: Charter, read: Read, depth: Depth) -> Report:
    """Verify an export. It raises nothing, whatever the bytes; what is wrong is in the report.

    What no file can show is that a chain goes on beyond its last entry here.
    """
    claimed = _claimed_sources(charter, read) if depth is Depth.HEADS else frozenset()
    return _Audit(charter, depth, claimed).run(read)


def _claimed_sources(charter: Charter, read: Read) -> frozenset[MessageId]:
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
