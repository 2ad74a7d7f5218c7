"""A network of four witnesses with fixed keys, entries at will, and a store that can crash."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from protocol.envelope import Opened, Signed, seal
from protocol.identity import Identity, Seed
from protocol.ids import MessageId, NodeId
from protocol.ledger.account import Account, opening
from protocol.ledger.certificate import (
    Certificate,
    Certified,
    certificate_made,
    seal_of,
    vote_signed,
)
from protocol.ledger.charter import Charter, charter
from protocol.ledger.entry import (
    Claim,
    Entry,
    Open,
    Pay,
    Source,
    SourceKey,
    TopUp,
    change,
    sources_of,
)
from protocol.ledger.genesis import Genesis, genesis_made
from protocol.ledger.proof import Breach
from protocol.ledger.settlement import Seat
from protocol.ledger.statement import Settlement
from protocol.ledger.witness import Applied, Follower

WITNESSES = sorted(
    (Identity(Seed(bytes([100 + number]) * 32)) for number in range(7)), key=lambda one: one.node
)
"""Seven keys; a network of n has the first n, whose numbers are their places here."""
ANNA, BRUNO, CLARA = (Identity(Seed(bytes([number]) * 32)) for number in (1, 2, 3))
NOTHING = bytes(32)
UNCHANGED = object()


def genesis_of(witnesses: int = 4) -> Genesis:
    """Anna has 100, Bruno 40, Clara nothing."""
    return genesis_made(
        "ayllu",
        bytes(range(16)),
        {ANNA.node: 100, BRUNO.node: 40},
        {identity.node for identity in WITNESSES[:witnesses]},
    )


GENESIS = genesis_of()
CHARTER = charter(GENESIS)


@dataclass(frozen=True)
class Remembered:
    """A past of one's own making."""

    claimed: Mapping[SourceKey, int] = field(default_factory=dict)
    fundings: Mapping[bytes, int] = field(default_factory=dict)

    def claimed_at(self, source: SourceKey) -> int | None:
        return self.claimed.get(source)

    def funding(self, channel: MessageId) -> int | None:
        return self.fundings.get(channel)


def start(identity: Identity, rules: Charter = CHARTER) -> Account:
    return opening(rules, identity.node)


def pay(to: Identity, amount: int, reference: bytes = NOTHING) -> Pay:
    return Pay(to.node, amount, reference)


def claim(*paid: Opened[Entry] | Signed, amounts: Iterable[int] = ()) -> Claim:
    """A claim of pays; of other amounts than theirs where that is meant."""
    sources = [Source("pay", one.id, 0) for one in paid]
    given = list(amounts) or [one.value.body.amount for one in paid]
    return Claim(
        tuple(
            Source("pay", source.id, amount) for source, amount in zip(sources, given, strict=True)
        )
    )


def entry_after(before: Account, body, rules: Charter = CHARTER, **changed) -> Entry:
    """The next entry of an account, right unless told otherwise."""
    entry = Entry(rules.network, before.account, before.seq + 1, before.head, body, 0, 0)
    entry = replace_fields(entry, **{k: v for k, v in changed.items() if k != "balance"})
    balance = changed.get("balance", max(0, before.balance + change(entry)))
    return replace_fields(entry, balance=balance)


def replace_fields(value, /, **changed):
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    return type(value)(**(fields | changed))


def signed_entry(identity: Identity, entry: Entry, rules: Charter = CHARTER) -> Signed:
    return seal(identity, rules.network, entry)


def opened_entry(identity: Identity, entry: Entry) -> Opened[Entry]:
    return Opened(entry, signed_entry(identity, entry).id, identity.node)


def sealed(signed: Signed, by: Iterable[int] = (0, 1, 2), rules: Charter = CHARTER) -> Certified:
    """A certificate of whichever witnesses, however few or wrong."""
    return certified_by([WITNESSES[number] for number in by], signed, rules)


def certified_by(witnesses: Iterable[Identity], signed: Signed, rules: Charter) -> Certified:
    """A certificate of these witnesses."""
    few = replace(rules, quorum=0)
    seals = [
        seal_of(vote_signed(identity, signed.id, rules.network), signed.id, few)
        for identity in witnesses
    ]
    certificate = certificate_made(signed.id, seals, few)
    assert certificate is not None
    return Certified(signed, certificate)


def moved(before: Account, signed: Signed, entry: Entry) -> Account:
    """The account after an entry that is right."""
    return Account(before.account, entry.seq, signed.id, before.balance + change(entry))


class Chain:
    """One account's chain, built and certified step by step."""

    def __init__(self, identity: Identity, rules: Charter = CHARTER) -> None:
        self.identity = identity
        self.rules = rules
        self.state = start(identity, rules)
        self.certified: list[Certified] = []

    def add(self, body, by: Iterable[int] = (0, 1, 2), **changed) -> Opened[Entry]:
        entry = entry_after(self.state, body, self.rules, **changed)
        signed = signed_entry(self.identity, entry, self.rules)
        self.certified.append(sealed(signed, by, self.rules))
        self.state = Account(self.state.account, entry.seq, signed.id, entry.balance)
        return Opened(entry, signed.id, self.identity.node)


class Store:
    """What a node has on disk, in memory."""

    def __init__(self, rules: Charter = CHARTER) -> None:
        self.rules = rules
        self.accounts: dict[NodeId, Account] = {}
        self.claims: dict[tuple[NodeId, SourceKey], int] = {}
        self.entries: dict[tuple[NodeId, int], Certified] = {}
        self.votes: dict[tuple[NodeId, int], Signed] = {}
        self.fundings: dict[tuple[NodeId, MessageId], int] = {}
        self.seats: dict[MessageId, Seat] = {}
        self.settlements: dict[MessageId, Settlement] = {}
        self.stop: Breach | Certified | None = None

    def account(self, account: NodeId) -> Account:
        return self.accounts.get(account) or opening(self.rules, account)

    def claimed_at(self, account: NodeId, source: SourceKey) -> int | None:
        return self.claims.get((account, source))

    def funding(self, account: NodeId, channel: MessageId) -> int | None:
        return self.fundings.get((account, channel))

    def seat(self, channel: MessageId) -> Seat:
        return self.seats.get(channel, Seat())

    def settlement(self, channel: MessageId) -> Settlement | None:
        return self.settlements.get(channel)

    def certified(self, account: NodeId, seq: int) -> Certified | None:
        return self.entries.get((account, seq))

    def voted(self, account: NodeId, seq: int) -> Signed | None:
        return self.votes.get((account, seq))

    def stopped(self) -> Breach | Certified | None:
        return self.stop

    def vote(self, signed: Signed, entry: Entry) -> None:
        self.votes[entry.account, entry.seq] = signed

    def apply(self, applied: Applied) -> None:
        entry = applied.opened.value
        self.accounts[entry.account] = applied.account
        self.entries[entry.account, entry.seq] = applied.certified
        for source in sources_of(entry):
            self.claims[entry.account, source.key] = entry.seq
        if isinstance(entry.body, Open):
            self.fundings[entry.account, applied.opened.id] = entry.body.deposit
        elif isinstance(entry.body, TopUp):
            key = entry.account, entry.body.channel
            self.fundings[key] = self.fundings.get(key, 0) + entry.body.amount


def follow_all(follower: Follower, store: Store, certified: Iterable[Certified]) -> None:
    """Take entries that are in order and right."""
    for one in certified:
        outcome = follower.on_certificate(one, store)
        assert isinstance(outcome, Applied), outcome
        store.apply(outcome)


def with_seals(certified: Certified, seals) -> Certified:
    certificate = certified.certificate
    return Certified(
        certified.entry, Certificate(certificate.entry, certificate.epoch, tuple(seals))
    )
