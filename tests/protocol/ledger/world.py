"""A world in which all goes wrong but what the rules forbid, and its checker.

All clients are Byzantine: they sign whatever they like, rivals included. The last f witnesses seal
anything. Every message may be lost, late, repeated or out of order; honest witnesses crash and
come back with what they had stored. The checker is written apart from the rules: it adds up by
itself whatever a quorum sealed, and calls no rule of protocol.ledger.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from protocol.envelope import Signed
from protocol.identity import Identity
from protocol.ledger.account import Account, opening
from protocol.ledger.certificate import Certificate, Certified, Seal, seal_of, vote_signed
from protocol.ledger.charter import Charter, charter
from protocol.ledger.entry import Body, Claim, Entry, Pay, Source, change
from protocol.ledger.statement import Settlement
from protocol.ledger.witness import Applied, Cast, Forgot, Halted, Witness
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CLARA,
    NOTHING,
    WITNESSES,
    Store,
    entry_after,
    genesis_of,
    signed_entry,
)

CLIENTS = (ANNA, BRUNO, CLARA)


class Violation(AssertionError):
    """A promise that did not hold: which, and where."""


class Known(NamedTuple):
    """An entry that a client signed, as the adversary remembers it."""

    signed: Signed
    entry: Entry
    after: Account


@dataclass
class Home:
    """An honest witness: its disk, and what it would lose."""

    identity: Identity
    witness: Witness
    store: Store
    unstored: list[tuple[Signed, Entry]] = field(default_factory=list)


class World:
    """Takes small numbers as orders, so that whatever Hypothesis draws is a history."""

    def __init__(
        self,
        witnesses: int = 4,
        *,
        make: Callable[[Charter, Identity], Witness] | None = None,
        rules: Callable[[Charter], Charter] = lambda rules: rules,
        stored_first: bool = True,
    ) -> None:
        self.true_rules = charter(genesis_of(witnesses))
        self.rules = rules(self.true_rules)  # Those that the network runs on.
        self.stored_first = stored_first
        build = make or (lambda chart, identity: Witness(chart, identity.node))
        honest = witnesses - self.true_rules.faulty_max
        self.homes = [
            Home(identity, build(self.rules, identity), Store(self.rules))
            for identity in WITNESSES[:honest]
        ]
        self.liars = WITNESSES[honest:witnesses]
        self.signed: list[Known] = []
        self.seals: dict[bytes, dict[int, Seal]] = {}  # By entry, as answers reached someone.
        self.certified: dict[bytes, Certified] = {}
        self.entries: dict[bytes, Entry] = {}
        self.settlements: list[Settlement] = []
        self.now_ms = 0

    # What the adversary may do, each with numbers of its choice.

    def sign(self, who: int, on: int, what: int, flaw: int) -> None:
        """A client signs an entry on its opening or on any entry that it ever signed."""
        identity = CLIENTS[who % len(CLIENTS)]
        own = [known for known in self.signed if known.signed.signer == identity.node]
        places = [opening(self.rules, identity.node), *(known.after for known in own)]
        before = places[-1 - on % len(places)] if on % 4 == 3 else self._last(places)
        entry = entry_after(before, self._body(identity, before, what), self.rules)
        match flaw % 16:
            case 1:  # More than there is.
                entry = (
                    entry_after(
                        before, entry.body, self.rules, balance=before.balance + change(entry) + 20
                    )
                    if before.balance + change(entry) + 20 >= 0
                    else entry
                )
            case 2:
                entry = entry_after(before, entry.body, self.rules, prev=NOTHING)
            case 3:
                entry = entry_after(before, entry.body, self.rules, balance=before.balance)
            case 4 if own:
                # The head of another branch, with this one's place and balance.
                prev = own[what % len(own)].signed.id
                entry = entry_after(before, entry.body, self.rules, prev=prev)
        signed = signed_entry(identity, entry, self.rules)
        self.signed.append(
            Known(signed, entry, Account(identity.node, entry.seq, signed.id, entry.balance))
        )
        self.entries[signed.id] = entry

    def _last(self, places: list[Account]) -> Account:
        """The end of a client's certified chain, else its opening."""
        final = [place for place in places[1:] if place.head in self.certified]
        return max(final, key=lambda place: place.seq, default=places[0])

    def _body(self, identity: Identity, before: Account, what: int) -> Body:
        pays = [
            known
            for known in self.signed
            if isinstance(known.entry.body, Pay)
            and (known.entry.body.to == identity.node or what % 32 == 21)  # Another's, at times.
        ]
        if what % 2 and pays:
            final = [known for known in pays if known.signed.id in self.certified]
            likely = final if final and what % 8 != 7 else pays
            taken = [likely[what // 8 % len(likely)]]
            if what % 10 == 9:
                taken.append(pays[what // 3 % len(pays)])
            more = 5 if what % 16 == 15 else 0
            return Claim(
                tuple(Source("pay", one.signed.id, one.entry.body.amount + more) for one in taken)
            )
        others = [one for one in CLIENTS if one is not identity]
        amounts = (1, 10, before.balance or 1, before.balance // 2 or 1)
        return Pay(others[what // 2 % 2].node, amounts[what // 4 % 4], NOTHING)

    def ask(self, which: int, home: int, proofs: bool) -> None:
        """A vote is asked for, and its answer comes to somebody."""
        if not self.signed:
            return
        known, to = self.signed[-1 - which % len(self.signed)], self.homes[home % len(self.homes)]
        shown = tuple(self.certified.values()) if proofs else ()
        settlements = tuple(self.settlements) if proofs else ()
        decision = to.witness.on_request(
            known.signed, shown, to.store, self.now_ms, settlements=settlements
        )
        self.now_ms += 1_000
        if not isinstance(decision.answer, Cast):
            return
        answer = decision.answer
        if answer.fresh:
            to.store.vote(answer.entry, answer.opened.value)
            if not self.stored_first:
                to.unstored.append((answer.entry, answer.opened.value))
        vote = vote_signed(to.identity, answer.opened.id, self.rules.network)
        self._seal(seal_of(vote, answer.opened.id, self.rules), answer.opened.id)

    def lie(self, which: int) -> None:
        """Every liar seals an entry."""
        if self.signed:
            entry = self.signed[-1 - which % len(self.signed)].signed.id
            for liar in self.liars:
                vote = vote_signed(liar, entry, self.rules.network)
                self._seal(seal_of(vote, entry, self.rules), entry)

    def _seal(self, seal: Seal, entry: bytes) -> None:
        seals = self.seals.setdefault(entry, {})
        seals[seal.witness] = seal
        if len(seals) >= self.rules.quorum:
            signed = next(known.signed for known in self.signed if known.signed.id == entry)
            ordered = tuple(seals[number] for number in sorted(seals))
            self.certified[entry] = Certified(signed, Certificate(entry, 0, ordered))

    def tell(self, which: int, home: int) -> None:
        """A certified entry reaches a witness."""
        if not self.certified:
            return
        certified = list(self.certified.values())[-1 - which % len(self.certified)]
        to = self.homes[home % len(self.homes)]
        outcome = to.witness.on_certificate(certified, to.store)
        if isinstance(outcome, Applied):
            to.store.apply(outcome)
        elif isinstance(outcome, Halted | Forgot):
            raise Violation(f"an honest witness meets {type(outcome).__name__}")

    def crash(self, home: int) -> None:
        """A witness comes back with what it had stored."""
        to = self.homes[home % len(self.homes)]
        for signed, entry in to.unstored:
            if to.store.votes.get((entry.account, entry.seq)) is signed:
                del to.store.votes[entry.account, entry.seq]
        to.unstored.clear()
        to.witness = type(to.witness)(self.rules, to.identity.node)

    def do(self, order: Sequence[int]) -> None:
        """One order: what, and four numbers for it."""
        what, one, two, three, four = order
        match what % 12:
            case 0 | 1 | 2:
                self.sign(one, two, three, four)
                if four >= 128:  # Often it is sent at once, so that a history gets somewhere.
                    for home in range(len(self.homes)):
                        self.ask(0, home, proofs=True)
            case 3:
                self.ask(one % 3, two, proofs=bool(three % 4))
            case 4 | 5 | 6:
                recent = one % 3 if one % 4 == 0 else 0
                for home in range(len(self.homes)):
                    if (two >> home) & 1 or three % 3:
                        self.ask(recent, home, proofs=bool(four % 4))
            case 7:
                self.lie(one % 3 if one % 2 else 0)
            case 8 | 9 | 10:
                for home in range(len(self.homes)):
                    if (two >> home) & 1 or three % 3:
                        for back in reversed(range(min(4, len(self.certified)))):
                            self.tell(back, home)
            case 11:
                self.crash(one)

    # What must hold, by sums of the checker's own.

    def check(self) -> None:
        """Raises Violation where a promise does not hold over all that a quorum sealed."""
        places: dict[tuple[bytes, int], bytes] = {}
        for one in self.certified:
            entry = self.entries[one]
            if len(self.seals[one]) < self.true_rules.quorum:
                raise Violation("an entry counts as certified with less than a quorum")
            if places.setdefault((entry.account, entry.seq), one) != one:
                raise Violation("two certified entries have one place")
        taken: set[bytes] = set()
        balances = dict(self.true_rules.allocations)
        for (account, seq), one in sorted(places.items(), key=lambda place: place[0][1]):
            entry = self.entries[one]
            before = places.get((account, seq - 1)) if seq > 1 else self.true_rules.network
            if before is None or entry.prev != before:
                raise Violation("a certified entry does not follow a certified one")
            balance = balances.get(account, 0)
            if isinstance(entry.body, Pay):
                balance -= entry.body.amount
            else:
                for source in entry.body.sources:
                    paid = self.entries.get(source.id)
                    if source.id not in self.certified or paid is None:
                        raise Violation("a certified claim takes what is not certified")
                    if paid.body != Pay(account, source.amount, NOTHING):
                        raise Violation("a certified claim takes what was not paid so")
                    if source.id in taken:
                        raise Violation("a pay is claimed twice")
                    taken.add(source.id)
                    balance += source.amount
            if balance < 0 or balance != entry.balance:
                raise Violation("a certified balance is wrong or negative")
            balances[account] = balance
        pays = [self.entries[one].body for one in self.certified if one not in taken]
        open_pays = sum(body.amount for body in pays if isinstance(body, Pay))
        if sum(balances.values()) + open_pays != self.true_rules.supply:
            raise Violation("money was made or lost")
