"""What the rest of a node asks of its ledger: pay, reserve, see; the work is `node.ledger`'s.

Implementations: `node.ledger.service` (the real one) and `node.ledger.scripted` (in tests).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from protocol.ids import MessageId, NodeId
from protocol.units import Microcredits


@dataclass(frozen=True, slots=True)
class Standing:
    """This node's own account. `spendable` is what a new pay or order may count on."""

    balance: Microcredits  # Certified.
    pending: Microcredits  # In own pays that are not certified yet, queued ones included.
    reserved: Microcredits  # Held for orders that run.
    claimable: Microcredits  # Certified pays to us that no entry of ours has claimed yet.
    seq: int
    head: bytes

    @property
    def spendable(self) -> int:
        """Never below 0: after a restore less may be there than was promised."""
        return max(0, self.balance - self.pending - self.reserved)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An own entry on its way to a certificate: `seals` of `quorum` are there; `silent` are the
    witnesses that have not answered."""

    seq: int  # 0 for a payment that waits for its turn and is not signed yet.
    kind: str  # "pay" or "claim".
    amount: Microcredits
    to: NodeId | None
    reference: bytes
    seals: int
    quorum: int
    silent: Sequence[NodeId]


@dataclass(frozen=True, slots=True)
class Income:
    """A certified pay to this node."""

    id: MessageId  # Of the entry.
    payer: NodeId
    amount: Microcredits
    reference: bytes  # The digest of the receipt that it pays, the order's id, or zeros.


@dataclass(frozen=True, slots=True)
class Proven:
    """The best certified balance that this node has seen of an account."""

    account: NodeId
    seq: int
    balance: Microcredits


class Ledger(Protocol):
    """All methods are called from one trio thread."""

    @property
    def ready(self) -> bool:
        """Whether new entries may be signed: the journal agrees with enough witnesses."""

    @property
    def trouble(self) -> str:
        """A sentence for the owner where the ledger has halted, lapsed or is restored; or ""."""

    def standing(self) -> Standing: ...

    def waiting(self) -> Sequence[Waiting]: ...

    def reserve(self, amount: int) -> AbstractContextManager[None]:
        """Hold an amount for an order that runs. Raises LocalError OVERDRAWN with what is asked,
        what there is, and how credits are got."""

    async def pay(self, to: NodeId, amount: int, reference: bytes) -> None:
        """Owe and pay: when this returns the payment is on disk, and it will be signed, certified
        and told to `to`, however long that takes and whatever restarts. A repeat with the same
        `to` and non-zero `reference` changes nothing (M6).

        Raises LocalError OVERDRAWN (unless the reference is non-zero: what is owed is owed),
        BAD_REQUEST for an amount below the network's least or a payment to oneself.
        """

    def watch_income(self, watcher: Callable[[Income], None]) -> None:
        """Tell of each certified pay to this node, after it is on disk; it must not wait. Incomes
        of before are told at the call."""

    def contradicted(self, account: NodeId) -> bool:
        """Whether there is a proof that this account signed two entries for one place. It may be
        honest (a restored backup), so it is no outlaw: others are preferred to it."""

    async def proven(self, account: NodeId) -> Proven:
        """The best known balance of an account; asks the account itself, when it is connected and
        what is known is older than a minute. Never raises: the genesis allocation stands where
        nothing newer is known."""


# What people are shown.


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One entry of our own chain, or a payment that waits for one (`seq` 0)."""

    seq: int
    id: bytes  # Of the entry; b"" before it is signed.
    kind: str  # "pay" or "claim".
    amount: Microcredits  # What a pay moves away, or a claim brings.
    other: NodeId | None  # The payee; of a claim, the payer where there is only one.
    reference: bytes  # Zeros for a claim.
    balance: Microcredits  # After the entry; of a queued payment, the certified one.
    seals: int
    state: str  # "queued", "pending" or "certified".


@dataclass(frozen=True, slots=True)
class AccountLine:
    """An account by the chain of it that is here."""

    account: NodeId
    seq: int
    balance: Microcredits


@dataclass(frozen=True, slots=True)
class Terms:
    """M2's sum over the chains that are here; amounts are microcredits. Its parts add up to the
    supply where no claimed source is missing and no chain is behind another."""

    supply: int
    balances: int
    pays_unclaimed: int
    fees: int
    accounts: int
    entries: int
    sources_missing: int
