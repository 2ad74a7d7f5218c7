"""M2's sum over the entries of an export, and whether what they claim is there to be claimed."""

from collections.abc import Iterable, Iterator

from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.account import Past
from protocol.ledger.charter import Charter
from protocol.ledger.checkpoint import OPENED, Holding
from protocol.ledger.credits import Claimed, Credit, Credits, credits_of
from protocol.ledger.entry import (
    EARNED,
    FEE,
    PAY,
    REST,
    Entry,
    Open,
    SourceKey,
    TopUp,
    sources_of,
)
from protocol.ledger.statement import Settlement

Finding = tuple[Claimed, RemoteError]


class Sums:
    """Takes shown sources, settlements, then the entries of whole chains, each checked before.

    Memory: the credits without a claim, the claims without a credit, a number for each settlement.
    """

    def __init__(self, charter: Charter) -> None:
        self._charter = charter
        self._credits = Credits()
        self._settled: dict[MessageId, int] = {}
        self._funding: dict[MessageId, int] = {}  # Of settled channels, as the entries here say.
        self._places: dict[MessageId, tuple[NodeId, int]] = {}  # Of shown entries.
        self._taken: dict[SourceKey, NodeId] = {}  # By claims from before checkpoints.
        self._shown: list[Opened[Entry]] = []
        self._shown_credits: dict[SourceKey, Credit] = {}
        self._unused: set[MessageId] = set()
        self.channels = 0
        """Microcredits in channels that neither side has taken yet."""
        self.has_begun = False
        self.is_pruned = False
        """Whether a chain begins at a checkpoint: then a claim may be of what was pruned."""

    @property
    def pays(self) -> int:
        """Microcredits of pays not yet claimed."""
        return self._credits.total(PAY)

    @property
    def fees(self) -> int:
        """Microcredits of fees not yet claimed."""
        return self._credits.total(FEE)

    def show(self, opened: Opened[Entry]) -> None:
        """A source beyond what the file has of its chain. Raises RemoteError UNEXPECTED out of
        the order of account and seq."""
        place = opened.value.account, opened.value.seq
        if self._shown and place <= self._places[self._shown[-1].id]:
            raise RemoteError(
                Code.UNEXPECTED, "Shown sources stand before the chains, by account and seq."
            )
        self._places[opened.id] = place
        self._shown.append(opened)
        self._unused.add(opened.id)

    def settle(self, settlement: Settlement) -> None:
        """A settlement. Raises RemoteError UNEXPECTED out of the order of channels."""
        if self._settled and settlement.channel <= next(reversed(self._settled)):
            raise RemoteError(
                Code.UNEXPECTED, "Settlements stand after the shown sources, by channel, each once."
            )
        self._settled[settlement.channel] = settlement.value

    def begin(self) -> None:
        """Before the first chain."""
        self.has_begun = True
        for opened in self._shown:
            self._shown_credits |= credits_of(opened, self._settled, self._charter)
            self._fund(opened)

    def resume(self, account: NodeId, holdings: Iterable[Holding]) -> None:
        """A chain begins at a checkpoint, with these."""
        self.is_pruned = True
        for one in holdings:
            if one.kind == OPENED:
                self.channels += one.amount
                if one.id in self._settled:
                    self._funding[one.id] = self._funding.get(one.id, 0) + one.amount
                continue
            if one.kind in (EARNED, REST):
                self.channels -= one.amount
            credit = self._credits.free.get((one.kind, one.id))
            if credit is not None and credit.account == account:
                del self._credits.free[one.kind, one.id]
            else:
                self._taken[one.kind, one.id] = account

    def keep(self, opened: Opened[Entry]) -> Iterator[Finding]:
        """An entry from before its chain's checkpoint. Yields what is claimed of it wrongly."""
        if opened.id in self._settled or isinstance(opened.value.body, TopUp):
            self._unused.discard(opened.id)
        yield from self._offered(opened)

    def take(self, opened: Opened[Entry], past: Past) -> Iterator[Finding]:
        """The next entry of a chain, `past` including it. Yields what it claims wrongly."""
        entry = opened.value
        if isinstance(entry.body, Open):
            self.channels += entry.body.deposit
        elif isinstance(entry.body, TopUp):
            self.channels += entry.body.amount
        self._fund(opened)
        yield from self._offered(opened)
        for source in sources_of(entry):
            claimed = Claimed(entry.account, entry.seq, source)
            if source.kind in (EARNED, REST) and source.key not in self._shown_credits:
                self.channels -= source.amount  # Of a channel whose funding is counted here.
            try:
                self._claim(claimed, past)
            except RemoteError as error:
                yield claimed, error

    def _offered(self, opened: Opened[Entry]) -> Iterator[Finding]:
        for key, credit in credits_of(opened, self._settled, self._charter).items():
            if self._taken.get(key) == credit.account:
                continue  # Its claim stands before a checkpoint.
            waiting = self._credits.waiting.get(key)
            try:
                self._credits.offer(key, credit)
            except RemoteError as error:
                assert waiting is not None
                yield waiting, error

    def end(self) -> Iterator[Finding | RemoteError]:
        """After the last entry: what is claimed and not here, and what is settled and not here."""
        for claimed in () if self.is_pruned else self._credits.waiting.values():
            source = claimed.source
            sentence = f"It claims {source.id.hex()[:8]}, and no {source.kind} of that id is here."
            yield claimed, RemoteError(Code.NEED, sentence)
        for channel, value in self._settled.items():
            funding = self._funding.pop(channel, None)
            if funding is None:
                sentence = f"A settlement stands here without the open {channel.hex()[:8]}."
                yield RemoteError(Code.UNEXPECTED, sentence)
            elif value > funding:
                sentence = (
                    f"Channel {channel.hex()[:8]} was settled at {value} microcredits; the entries "
                    f"here moved {funding} into it."
                )
                yield RemoteError(Code.NEED, sentence)

    def stray(self, seqs: dict[NodeId, int]) -> bool:
        """Whether a shown source was asked for by nobody, or stands in its chain, whose last seqs
        these are."""
        return bool(self._unused) or any(
            seq <= seqs.get(account, 0) for account, seq in self._places.values()
        )

    def _claim(self, claimed: Claimed, past: Past) -> None:
        source = claimed.source
        if source.kind == REST:
            self._rest_checked(claimed, past)
            return
        credit = self._shown_credits.pop(source.key, None)
        if credit is not None:
            self._unused.discard(source.id)
            self._credits.offer(source.key, credit)
        self._credits.claim(claimed)

    def _rest_checked(self, claimed: Claimed, past: Past) -> None:
        source = claimed.source
        value, funding = self._settled.get(source.id), past.funding(source.id)
        assert funding is not None, "the chain's own rules have checked it"
        if value is None:
            raise RemoteError(
                Code.NEED, f"It claims a rest of {source.id.hex()[:8]}; no settlement is here."
            )
        if source.amount != funding - value:
            raise RemoteError(
                Code.AMOUNT_WRONG,
                f"The claim takes {source.amount} microcredits of {source.id.hex()[:8]} as "
                f"{source.kind}; it gives {funding - value}.",
            )

    def _fund(self, opened: Opened[Entry]) -> None:
        """Count what an entry moves into a settled channel: no settlement is of more than that."""
        body = opened.value.body
        if isinstance(body, Open):
            channel, amount = opened.id, body.deposit
        elif isinstance(body, TopUp):
            channel, amount = body.channel, body.amount
        else:
            return
        if channel in self._settled:
            self._funding[channel] = self._funding.get(channel, 0) + amount
            self._unused.discard(opened.id)
