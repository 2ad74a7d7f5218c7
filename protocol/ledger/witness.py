"""The witness rule (facts of the ledger, section 1.3): what to vote for, what to store.

The machine reads what is stored and says what must be stored; the shell writes it, with fsync,
before any answer leaves. It holds no state of its own but the quota, so a crash loses nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from protocol.envelope import Opened, Signed
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.account import Account, Shown, SourcesNeeded, follow, sources_shown
from protocol.ledger.agreement import settlement_checked
from protocol.ledger.certificate import (
    Certified,
    certificate_checked,
    certificate_names,
    certified_checked,
)
from protocol.ledger.channel import Channel, channel_checked
from protocol.ledger.charter import Charter
from protocol.ledger.entry import (
    REST,
    Entry,
    SourceKey,
    TopUp,
    entry_opened,
    entry_read,
    sources_of,
)
from protocol.ledger.proof import (
    Breach,
    Contradiction,
    breach_made,
    contradiction_made,
    split_made,
)
from protocol.ledger.quota import VoteQuota
from protocol.ledger.seat import remembers_commit
from protocol.ledger.settlement import Seat
from protocol.ledger.sources import Proofs, sources_proven
from protocol.ledger.statement import Settlement
from protocol.ledger.sync import Refusal, refusal


@dataclass(frozen=True, slots=True)
class VotesLost:
    """This witness's store was made anew, or is an old copy: it may have signed what it forgot."""


Stopped = Breach | Certified | VotesLost
"""Why a node goes no further: a breach; an entry with a forgotten seal of its own; VotesLost."""


class Chains(Protocol):
    """What a node has stored: plain reads, all of one moment."""

    def account(self, account: NodeId) -> Account:
        """What its certified chain adds up to here; `opening` where there is none."""

    def claimed_at(self, account: NodeId, source: SourceKey) -> int | None:
        """The seq at which the account's certified chain here claimed a source."""

    def funding(self, account: NodeId, channel: MessageId) -> int | None:
        """What the account's certified chain here moved into a channel that it opened."""

    def seat(self, channel: MessageId) -> Seat:
        """What this witness has promised and locked of a channel; `Seat()` at first."""

    def settlement(self, channel: MessageId) -> Settlement | None:
        """How a channel was settled."""

    def certified(self, account: NodeId, seq: int) -> Certified | None:
        """One certified entry."""

    def voted(self, account: NodeId, seq: int) -> Signed | None:
        """The entry that this witness voted for; kept at least until that seq is certified."""

    def stopped(self) -> Stopped | None:
        """Why this node goes no further, until its owner resumes."""


@dataclass(frozen=True, slots=True)
class ChainPast:
    """An account's past, as it is stored."""

    chains: Chains
    account: NodeId

    def claimed_at(self, source: SourceKey) -> int | None:
        """See `account.Past`."""
        return self.chains.claimed_at(self.account, source)

    def funding(self, channel: MessageId) -> int | None:
        """See `account.Past`."""
        return self.chains.funding(self.account, channel)


@dataclass(frozen=True, slots=True)
class Cast:
    """Store `entry` as voted for if it is `fresh`, fsync, then answer with the signed vote."""

    entry: Signed
    opened: Opened[Entry]
    fresh: bool
    """False: the vote was given before, and is given again with the same bytes."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a request, and a proof to keep beside it."""

    answer: Cast | Refusal
    contradiction: Contradiction | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """Store all this in one transaction: the entry, the account after it, what it claims."""

    certified: Certified
    opened: Opened[Entry]
    account: Account
    contradiction: Contradiction | None
    """A rival that this witness had voted for: the certificate wins, the proof is kept."""


@dataclass(frozen=True, slots=True)
class Known:
    """It is stored already: nothing changes."""


@dataclass(frozen=True, slots=True)
class Missing:
    """The entries from `seq` on must come first."""

    account: NodeId
    seq: int


@dataclass(frozen=True, slots=True)
class Halted:
    """Store the proof; sign and accept nothing more until the owner resumes."""

    breach: Breach


@dataclass(frozen=True, slots=True)
class Forgot:
    """This carries a seal of our own that we do not remember: our store is an old copy.

    Store it; cast no vote until the owner has read why.
    """

    certified: Certified


@dataclass(frozen=True, slots=True)
class Final:
    """Store how this channel was settled."""

    settlement: Settlement
    channel: Channel
    is_forgotten: bool = False  # With a seal of ours that our seat lacks: store VotesLost, too.


Outcome = Applied | Known | Missing | Halted | Forgot


class Follower:
    """Takes certified entries, as every node does that keeps chains."""

    def __init__(self, charter: Charter, node: NodeId) -> None:
        self.charter = charter
        self.number = charter.number(node)

    def on_certificate(
        self, certified: Certified, chains: Chains, *, is_checked: bool = False
    ) -> Outcome:
        """What a certified entry, from whomever, changes; `is_checked` where it has just been
        through `certified_checked`, as when many are taken.

        Raises RemoteError HALTED where this node has stopped at a breach, and what
        `certified_checked` raises.
        """
        stopped = chains.stopped()
        if isinstance(stopped, Breach):
            raise halted_error()
        entry = entry_read(certified.entry, self.charter.network).value
        ours = chains.certified(entry.account, entry.seq)
        if ours is not None and ours.entry.id == certified.entry.id:
            return Known()  # Most come more than once: nothing changes, so nothing is verified.
        voted = chains.voted(entry.account, entry.seq)
        if is_checked:
            opened = entry_read(certified.entry, self.charter.network)
        else:
            opened = self._opened(certified, voted)
        account = chains.account(entry.account)
        if ours is not None:
            breach = self._breach([(ours, certified)])
            assert breach is not None, "two certified entries of one place are a breach"
            return Halted(breach)
        if entry.seq <= account.seq:
            return Known()  # It was checked, and its place is no longer kept here.
        if stopped is None and self._forgotten(certified, opened, voted):
            return Forgot(certified)
        if entry.seq > account.seq + 1:
            return Missing(entry.account, account.seq + 1)
        try:
            after = self._followed(account, opened, chains)
        except RemoteError as error:
            if error.code is Code.KIND_NOT_SERVED:
                raise
            breach = self._breach(self._suspects(certified, opened.value, chains))
            if breach is None:
                # Only its whole chain shows what is wrong with it, so there is no proof to hand
                # on: whoever has the chain refuses the entry, and the chain ends here.
                raise
            return Halted(breach)
        rival = voted if voted is not None and voted.id != opened.id else None
        contradiction = (
            contradiction_made(rival, certified.entry, self.charter) if rival is not None else None
        )
        return Applied(certified, opened, after, contradiction)

    def _followed(self, account: Account, opened: Opened[Entry], chains: Chains) -> Account:
        """The account after a certified entry: its sources were checked by those who sealed it."""
        return follow(account, ChainPast(chains, account.account), opened, self.charter)

    def _opened(self, certified: Certified, voted: Signed | None) -> Opened[Entry]:
        """The entry, its signatures checked; that of its author once only, if this witness voted
        for these very bytes."""
        if voted != certified.entry:
            return certified_checked(certified, self.charter)
        opened = entry_read(certified.entry, self.charter.network)
        certificate_names(certified, opened.id)
        certificate_checked(certified.certificate, self.charter)
        return opened

    def _forgotten(self, certified: Certified, opened: Opened[Entry], voted: Signed | None) -> bool:
        seals = certified.certificate.seals
        if all(seal.witness != self.number for seal in seals):
            return False
        return voted is None or voted.id != opened.id

    def on_settlement(
        self, settlement: Settlement, shown: Certified, chains: Chains
    ) -> Final | Known | Halted:
        """What a settlement, from whomever, changes; `shown` is the open of its channel.

        Raises RemoteError: HALTED, UNEXPECTED for another channel's open, and what
        `settlement_checked` and `channel_checked` raise.
        """
        if isinstance(chains.stopped(), Breach):
            raise halted_error()
        if settlement.channel != shown.entry.id:
            raise RemoteError(Code.UNEXPECTED, "The open that is shown is of another channel.")
        ours = chains.settlement(settlement.channel)
        if ours is not None and ours.value == settlement.value:
            return Known()  # Of whichever turn: it is the same outcome.
        settlement_checked(settlement, self.charter)
        channel = channel_checked(shown, self.charter)
        if ours is None:
            is_known = remembers_commit(chains.seat(channel.id), settlement, self.number)
            return Final(settlement, channel, not is_known and chains.stopped() is None)
        breach = split_made(shown, ours, settlement, self.charter)
        assert breach is not None, "two settlements of one channel are a breach"
        return Halted(breach)

    def _breach(self, suspects: Iterable[tuple[Certified, ...]]) -> Breach | None:
        """The proof that a certified entry follows from nothing that honest witnesses certified."""
        breaches = (breach_made(certified, self.charter) for certified in suspects)
        return next((breach for breach in breaches if breach is not None), None)

    def _suspects(
        self, certified: Certified, entry: Entry, chains: Chains
    ) -> Iterable[tuple[Certified, ...]]:
        """The entry alone, and with each that it may be at odds with."""
        yield (certified,)
        keys = [source.key for source in sources_of(entry)]
        if isinstance(entry.body, TopUp):
            keys.append((REST, entry.body.channel))
        claims = [chains.claimed_at(entry.account, key) for key in keys]
        for seq in [entry.seq - 1, *claims]:
            other = chains.certified(entry.account, seq) if seq else None
            if other is not None:
                yield other, certified


class Witness(Follower):
    """Votes, at most once for an (account, seq)."""

    def __init__(self, charter: Charter, node: NodeId) -> None:
        super().__init__(charter, node)
        self.quota = VoteQuota()

    def on_request(
        self,
        entry: Signed,
        proofs: Iterable[Certified],
        chains: Chains,
        now_ms: int,
        *,
        settlements: Iterable[Settlement] = (),
    ) -> Decision:
        """Whether to vote for an entry; `proofs` are the certified sources that came with it, and
        `settlements` those of the channels that it claims from.

        `now_ms`: of any clock that does not go back, for the quota alone.
        """
        stopped = chains.stopped()
        if stopped is not None:
            return Decision(stopped_refusal(stopped))
        try:
            if self.number is None:
                raise not_witness_error()
            return self._decided(entry, Proofs(proofs, settlements), chains, now_ms)
        except SourcesNeeded as error:
            return Decision(
                Refusal(error.code, error.sentence, needs=tuple(sorted(set(error.needs))))
            )
        except RemoteError as error:
            return Decision(refusal(error))

    def _decided(self, signed: Signed, proofs: Proofs, chains: Chains, now_ms: int) -> Decision:
        opened = entry_opened(signed, self.charter.network)
        entry = opened.value
        voted = chains.voted(entry.account, entry.seq)
        if voted is not None and voted.id == opened.id:
            return Decision(Cast(voted, opened, fresh=False))
        account = chains.account(entry.account)
        if entry.seq <= account.seq:
            return self._past(signed, entry, chains)
        if entry.seq > account.seq + 1:
            sentence = f"The certified entries from {account.seq + 1} on must come first."
            return Decision(Refusal(Code.MISSING, sentence, missing_seq=account.seq + 1))
        if voted is not None:
            sentence = f"This witness voted for another entry {entry.seq} of this account."
            return Decision(
                Refusal(Code.VOTED_OTHER, sentence, shown=voted),
                contradiction_made(voted, signed, self.charter),
            )
        if wait_ms := self.quota.wait_ms(entry.account, now_ms):
            raise RemoteError(
                Code.BUSY, "This account had many votes in a short time; come again.", wait_ms
            )
        self._checked(account, opened, proofs, chains)
        self.quota.spend(entry.account, now_ms)
        return Decision(Cast(signed, opened, fresh=True))

    def _past(self, signed: Signed, entry: Entry, chains: Chains) -> Decision:
        certified = chains.certified(entry.account, entry.seq)
        sentence = f"Entry {entry.seq} of this account is certified already."
        return Decision(
            Refusal(Code.PAST, sentence, shown=certified),
            contradiction_made(certified.entry, signed, self.charter) if certified else None,
        )

    def _checked(
        self, account: Account, opened: Opened[Entry], proofs: Proofs, chains: Chains
    ) -> None:
        # What costs no signatures is checked first: a bad entry wastes none of ours.
        self._followed(account, opened, chains)
        shown = self._proven(opened.value, proofs)
        sources_shown(opened.value, ChainPast(chains, account.account), shown)

    def _proven(self, entry: Entry, proofs: Proofs) -> Shown:
        return sources_proven(entry, proofs, self.charter)


def halted_error() -> RemoteError:
    """What a node answers on a ledger that has halted."""
    return RemoteError(
        Code.HALTED,
        "This ledger has halted: more witnesses were dishonest than it can bear. Ask for the "
        "proof; the owner resumes with `ayni ledger resume`.",
    )


def not_witness_error() -> RemoteError:
    """What a node answers that the genesis does not name."""
    return RemoteError(
        Code.NOT_WITNESS, "This node is no witness; ask those that the genesis names."
    )


def stopped_refusal(stopped: Stopped) -> Refusal:
    """What a witness answers to whatever it would have to sign after it has stopped."""
    error = halted_error()
    if not isinstance(stopped, Breach):
        error = RemoteError(
            Code.FORGOT,
            "This witness has signed what it does not remember, and signs no more until its owner "
            "has read why.",
        )
    answered = refusal(error)
    shown = None if isinstance(stopped, VotesLost) else stopped
    return Refusal(answered.code, answered.sentence, shown=shown)
