"""What the rest of a node asks of its ledger: pay, reserve, see; the work is `node.ledger`'s.

Implementations: `node.ledger.service` (the real one) and `node.ledger.scripted` (in tests).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from protocol.envelope import Signed
from protocol.ids import MessageId, NodeId
from protocol.units import Microcredits


@dataclass(frozen=True, slots=True)
class Standing:
    """This node's own account. `spendable` is what a new pay or order may count on."""

    balance: Microcredits  # Certified.
    pending: Microcredits  # In own pays that are not certified yet, queued ones included.
    reserved: Microcredits  # Held for orders that run.
    claimable: Microcredits  # Certified for us (pays, settled channels, fees), not yet claimed.
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
    kind: str  # "pay", "open", "topup" or "claim".
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
class ChannelFacts:
    """What certificates say of a channel of which this node is payer or payee; all of it final."""

    id: MessageId
    payer: NodeId
    payee: NodeId
    funding: Microcredits  # The deposit and the certified top-ups that are known here.
    topups: int  # How many those are.
    expiry_ms: int
    settled: int | None = None  # What the payee gets, once that is final.
    is_claimed: bool = False  # Our share, by an own certified entry; also where it is nothing.


@dataclass(frozen=True, slots=True)
class Settling:
    """How far the settlement of a channel is: for people. `turn` is 0 before the first proposal;
    `next_ms` is the wall time at which this node does its next step, if it waits for one."""

    channel: MessageId
    turn: int
    stage: str  # "wanted", "asking", "proposing", "locking", "settled".
    seals: int
    quorum: int
    next_ms: int | None


class Vouchers(Protocol):
    """What the ledger asks of whoever keeps the vouchers (node.channels); it must not wait, and
    answers from what is on disk."""

    def best(self, channel: MessageId) -> Signed | None:
        """The highest voucher of a channel of which this node is the payee, if it has any."""

    def wanted(self, channel: MessageId) -> None:
        """The payer of a channel asks for its settlement."""


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

    async def open_channel(self, payee: NodeId, deposit: int, expiry_ms: int) -> None:
        """Queue an open: when this returns it is on disk, and it will be signed, certified and
        shown to its payee, whatever restarts; `watch_channels` tells of it then.

        Raises LocalError OVERDRAWN, or BAD_REQUEST for a channel to oneself or without a deposit.
        """

    async def top_up(self, channel: MessageId, amount: int) -> None:
        """Queue a top-up of an own channel that is not settled, as `open_channel` does.

        Raises LocalError OVERDRAWN, NOT_FOUND for no such channel, CHANNEL_CLOSED for one that is
        settled or has as many top-ups as a payee counts. One that was queued and comes too late,
        after the settlement, is dropped, and what it was to move stays in the balance.
        """

    def channels(self) -> Sequence[ChannelFacts]:
        """Every channel of ours, as payer or payee, whose share we have not claimed yet, and those
        claimed last."""

    def watch_channels(self, watcher: Callable[[ChannelFacts], None]) -> None:
        """Tell of each channel that is new or has changed (opened, topped up, settled, claimed),
        after it is on disk. It must not wait. Those of before are told at the call."""

    def keep_vouchers(self, vouchers: "Vouchers") -> None:
        """Who holds the vouchers. Before this call no channel of which we are the payee is
        settled."""

    async def settle(self, channel: MessageId) -> None:
        """As the payee: settle in turn 1 by the best voucher (0 without one). When this returns the
        proposal is on disk; its value never changes. It is driven until it is final, and then
        claimed, whatever restarts. A repeat changes nothing. As the payer: nothing to do, since
        its turns come after the expiry and are taken without being asked for.

        Raises LocalError NOT_FOUND for no such channel, UNAVAILABLE while nothing new may be signed
        (`ready` is false): nothing is written then, so ask again.
        """

    def settling(self) -> Sequence[Settling]:
        """The channels whose settlement is on its way or waits for its turn."""

    async def ask_voucher(self, channel: MessageId) -> Signed | None:
        """As the payer: the highest voucher that the payee says it holds, its signature checked.
        Raises LocalError UNAVAILABLE where the payee does not answer."""

    async def want_settlement(self, channel: MessageId) -> None:
        """As the payer: ask the payee to settle now. Raises LocalError UNAVAILABLE as above."""

    async def show_channel(self, channel: MessageId) -> None:
        """As the payer: make sure that the payee has the certified open and all top-ups of it.
        Raises LocalError UNAVAILABLE where it does not answer or refuses."""

    def contradicted(self, account: NodeId) -> bool:
        """Whether there is a proof that this account signed two entries for one place. It may be
        honest (a restored backup), so it is no outlaw: others are preferred to it."""


# What people are shown.


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One entry of our own chain, or a payment that waits for one (`seq` 0)."""

    seq: int
    id: bytes  # Of the entry; b"" before it is signed.
    kind: str  # "pay", "open", "topup" or "claim".
    amount: Microcredits  # What it moves away, or a claim brings.
    other: NodeId | None  # The payee; of a claim, the other party where there is only one.
    reference: bytes  # Zeros but for a pay.
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
    channel_funds: int
    fees: int
    accounts: int
    entries: int
    sources_missing: int
