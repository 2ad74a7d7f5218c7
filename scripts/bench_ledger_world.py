"""What the ledger's benchmarks share: keys, a genesis, and entries by those keys."""

from collections.abc import Sequence

from msgspec.structs import replace

from protocol.envelope import Opened, Signed, seal
from protocol.identity import Identity, Seed, digest
from protocol.ids import NodeId
from protocol.ledger.account import Account, follow, opening
from protocol.ledger.certificate import (
    Certified,
    certificate_made,
    seal_of,
    vote_signed,
)
from protocol.ledger.charter import Charter, charter
from protocol.ledger.checkpoint import Holdings
from protocol.ledger.entry import Claim, Entry, Pay, change
from protocol.ledger.genesis import Genesis, genesis_made

WITNESSES = 4
FUNDS_MICROCREDITS = 1_000_000
NO_REFERENCE = bytes(32)
PAYEE = NodeId(digest(b"payee"))
"""Whoever is paid where nobody claims."""


def seed_of(role: str, number: int) -> Seed:
    """The same key in every process, and no secret."""
    return Seed(digest(number.to_bytes(4, "big"), role.encode()))


def identity_of(role: str, number: int) -> Identity:
    return Identity(seed_of(role, number))


def witness_seeds(count: int = WITNESSES) -> Sequence[Seed]:
    """In the order of the witnesses' numbers in the genesis."""
    seeds = [seed_of("witness", number) for number in range(count)]
    return sorted(seeds, key=lambda seed: Identity(seed).node)


def witnesses(count: int = WITNESSES) -> Sequence[Identity]:
    """In the same order."""
    return [Identity(seed) for seed in witness_seeds(count)]


def genesis_of(accounts: Sequence[Identity], count: int = WITNESSES) -> Genesis:
    """A network of so many witnesses and these accounts, which are rich."""
    return genesis_made(
        "bench",
        bytes(16),
        {one.node: FUNDS_MICROCREDITS for one in accounts},
        {one.node for one in witnesses(count)},
    )


def charter_of(accounts: Sequence[Identity], count: int = WITNESSES) -> Charter:
    """The same, ready for use."""
    return charter(genesis_of(accounts, count))


class Chain:
    """One account's chain as its owner signs it, each entry by the rules."""

    def __init__(self, identity: Identity, rules: Charter) -> None:
        self.identity, self.rules = identity, rules
        self.account: Account = opening(rules, identity.node)
        self.past = Holdings()  # Empty: nothing here is claimed twice, and no channel opened.

    def signed(self, body: Pay | Claim) -> Signed:
        """The next entry; the chain goes on from it."""
        account = self.account
        entry = Entry(
            self.rules.network, account.account, account.seq + 1, account.head, body, 0, 0
        )
        entry = replace(entry, balance=account.balance + change(entry))
        signed = seal(self.identity, self.rules.network, entry)
        opened = Opened(entry, signed.id, self.identity.node)
        self.account = follow(account, self.past, opened, self.rules)
        return signed


def certified_of(signed: Signed, sealers: Sequence[Identity], rules: Charter) -> Certified:
    """With the seals of the first q witnesses."""
    seals = [
        seal_of(vote_signed(one, signed.id, rules.network), signed.id, rules)
        for one in sealers[: rules.quorum]
    ]
    certificate = certificate_made(signed.id, seals, rules)
    assert certificate is not None
    return Certified(signed, certificate)
