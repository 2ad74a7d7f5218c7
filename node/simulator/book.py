"""What quorums have sealed, as honest nodes hold it, added up again by sums of its own.

It calls no rule of `protocol.ledger`: what it promises (M1, M2, M3) is stated here a second time,
so that a mistake in the rules is a contradiction between the two.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from protocol.codec import decode
from protocol.ids import MessageId, NodeId
from protocol.ledger.certificate import Certified
from protocol.ledger.entry import EARNED, FEE, PAY, REST, Claim, Entry, Open, Pay, Source, TopUp
from protocol.ledger.genesis import Genesis, network_id
from protocol.ledger.statement import Settlement
from protocol.limits import ENTRY_BYTES_MAX


class Broken(Exception):
    """A promise that does not hold: which, and where."""


@dataclass(slots=True)
class _Account:
    balance: int
    seq: int
    head: bytes


@dataclass(slots=True)
class _Channel:
    payer: NodeId
    payee: NodeId
    funding: int
    settled: int | None = None
    taken: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sums:
    """What M2 adds up to, in microcredits."""

    balances: int
    pays: int
    channels: int
    fees: int
    missing: int
    """Claimed from sources that no honest node holds; nothing once all is at rest."""

    @property
    def total(self) -> int:
        return self.balances + self.pays + self.channels + self.fees - self.missing


class Book:
    """The union of what honest nodes hold. Its methods raise Broken."""

    def __init__(self, genesis: Genesis) -> None:
        self._supply, self._witnesses = genesis.supply, genesis.witnesses
        faulty = (len(genesis.witnesses) - 1) // 3
        self._quorum = len(genesis.witnesses) - faulty
        self._network = network_id(genesis)
        self._accounts = {
            one.account: _Account(one.amount, 0, self._network) for one in genesis.allocations
        }
        self._places: dict[tuple[NodeId, int], MessageId] = {}
        self._entries: dict[MessageId, Entry] = {}
        self._claimed: dict[tuple[str, MessageId], tuple[NodeId, int]] = {}
        self.channels: dict[MessageId, _Channel] = {}
        self._settled: dict[MessageId, int] = {}
        self.drift = 0
        """By how much the last sums were not the supply."""

    def __len__(self) -> int:
        return len(self._entries)

    def seq(self, account: NodeId) -> int:
        """How far a chain is here."""
        known = self._accounts.get(account)
        return 0 if known is None else known.seq

    def place(self, account: NodeId, seq: int) -> MessageId | None:
        """Which entry stands there."""
        return self._places.get((account, seq))

    def balance(self, account: NodeId) -> int:
        """By the chain that is here."""
        known = self._accounts.get(account)
        return 0 if known is None else known.balance

    def take(self, certified: Certified, where: str) -> None:
        """One entry that a node holds as certified; those before it were taken."""
        entry = decode(certified.entry.body, Entry, ENTRY_BYTES_MAX)
        number, place = certified.entry.id, (entry.account, entry.seq)
        known = self._places.get(place)
        if known is not None:
            if known != number:
                raise Broken(f"M3: two certified entries for one place, seq {entry.seq}; {where}")
            return
        sealers = {seal.witness for seal in certified.certificate.seals}
        if len(sealers) < self._quorum:
            raise Broken(f"M3: an entry counts with {len(sealers)} seals; {where}")
        account = self._accounts.setdefault(entry.account, _Account(0, 0, self._network))
        if (entry.seq, entry.prev) != (account.seq + 1, account.head):
            raise Broken(f"M3: entry {entry.seq} does not follow the one before; {where}")
        balance = account.balance + self._moved(entry, number, where)
        if balance < 0:
            raise Broken(f"M2: a balance of {balance}; {where}")
        if balance != entry.balance or type(entry.balance) is not int:
            raise Broken(f"M1: entry {entry.seq} says {entry.balance}, it is {balance}; {where}")
        self._places[place], self._entries[number] = number, entry
        account.balance, account.seq, account.head = balance, entry.seq, number
        self._arrived(entry, number, where)

    def _moved(self, entry: Entry, number: MessageId, where: str) -> int:
        body = entry.body
        match body:
            case Pay(_, amount):
                return -amount - entry.fee
            case Open(payee, deposit):
                self.channels[number] = _Channel(entry.account, payee, deposit)
                return -deposit - entry.fee
            case TopUp(channel, amount):
                known = self.channels.get(channel)
                if known is None or known.payer != entry.account:
                    raise Broken(f"M2: a top-up of no channel of the account; {where}")
                known.funding += amount
                return -amount - entry.fee
            case Claim(sources):
                return self._credited(entry, sources, where) - entry.fee

    def _credited(self, entry: Entry, sources: Iterable[Source], where: str) -> int:
        total = 0
        for source in sources:
            if source.key in self._claimed:
                raise Broken(f"M2: a {source.kind} is claimed twice; {where}")
            self._claimed[source.key] = (entry.account, source.amount)
            self._compared(source.key, where)
            total += source.amount
        return total

    def settle(self, settlement: Settlement, where: str) -> None:
        """How a channel was settled, as a node holds it."""
        if len({seal.witness for seal in settlement.seals}) < self._quorum:
            raise Broken(f"M3: a settlement counts with too few seals; {where}")
        known = self._settled.setdefault(settlement.channel, settlement.value)
        if known != settlement.value:
            raise Broken(f"M3: one channel has the values {known} and {settlement.value}; {where}")
        if settlement.channel in self.channels:
            self.channels[settlement.channel].settled = known
        for kind in (EARNED, REST):
            self._compared((kind, settlement.channel), where)

    def _arrived(self, entry: Entry, number: MessageId, where: str) -> None:
        """A source may be known after the claim of it."""
        if number in self._settled:
            self.channels[number].settled = self._settled[number]
        for kind in (PAY, EARNED, REST, FEE):
            self._compared((kind, number), where)
        if isinstance(entry.body, TopUp):
            self._compared((REST, entry.body.channel), where)

    def _compared(self, key: tuple[str, MessageId], where: str) -> None:
        """Whether a claim takes what its source gives, as soon as both are known."""
        claim = self._claimed.get(key)
        due = self._due(key)
        if claim is not None and due is not None and claim != due:
            raise Broken(f"M2: a claim of a {key[0]} takes {claim[1]}, there is {due[1]}; {where}")

    def _due(self, key: tuple[str, MessageId]) -> tuple[NodeId, int] | None:
        """Who gets what of a source; None while it is not known."""
        kind, number = key
        channel, entry = self.channels.get(number), self._entries.get(number)
        if kind == PAY and entry is not None:
            pay = entry.body
            return (pay.to, pay.amount) if isinstance(pay, Pay) else (NodeId(b""), 0)
        if kind == FEE and entry is not None:
            place = int.from_bytes(number, "big") % len(self._witnesses)
            return self._witnesses[place], entry.fee
        if channel is not None and channel.settled is not None:
            if kind == EARNED:
                return channel.payee, channel.settled
            return channel.payer, channel.funding - channel.settled
        return None

    def sums(self) -> Sums:
        """Adds up everything. Raises Broken where that is not the supply."""
        pays = fees = missing = 0
        for number, entry in self._entries.items():
            if isinstance(entry.body, Pay) and (PAY, number) not in self._claimed:
                pays += entry.body.amount
            if (FEE, number) not in self._claimed:
                fees += entry.fee
        left = 0
        for number, channel in self.channels.items():
            taken = sum(
                self._claimed[kind, number][1]
                for kind in (EARNED, REST)
                if (kind, number) in self._claimed
            )
            if taken > channel.funding:
                raise Broken(f"M2: {taken} is taken of a channel with {channel.funding}")
            left += channel.funding - taken
        for (kind, number), (_, amount) in self._claimed.items():
            known = self.channels if kind in (EARNED, REST) else self._entries
            missing += amount if number not in known else 0
        balances = sum(account.balance for account in self._accounts.values())
        sums = Sums(balances, pays, left, fees, missing)
        self.drift = sums.total - self._supply
        if self.drift:
            raise Broken(f"M2: {sums} adds up to {sums.total}, the supply is {self._supply}")
        return sums

    def unsettled_claims(self) -> int:
        """Claims of channels whose settlement no honest node holds."""
        return sum(
            1
            for kind, number in self._claimed
            if kind in (EARNED, REST) and number not in self._settled
        )
