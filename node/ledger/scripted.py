"""A ledger without witnesses, for tests and the simulator: whoever drives it certifies.

The world of accounts outlives the nodes in it, as a real network does, so a node that starts
again finds what it had paid.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import trio

from node.ledger.base import Income, Ledger, Proven, Standing, Waiting
from protocol.errors import Code, LocalError
from protocol.identity import digest
from protocol.ids import MessageId, NodeId
from protocol.units import Microcredits, credits_text

_NO_REFERENCE = bytes(32)


@dataclass(frozen=True, slots=True)
class Payment:
    """A pay that is on its payer's disk."""

    id: MessageId
    payer: NodeId
    to: NodeId
    amount: Microcredits
    reference: bytes


class ScriptedLedgers:
    """All accounts. Pays are certified at once while `prompt`, and otherwise by `certify`."""

    def __init__(self, allocations: Mapping[NodeId, int], pay_min: int = 1) -> None:
        self.allocations = dict(allocations)
        self.pay_min = pay_min
        self.prompt = True
        self.payments: list[Payment] = []  # All that were ever made, the oldest first.
        self.certified: list[Payment] = []
        self._claimed: dict[NodeId, int] = {}  # How many of its incomes an account has taken.
        self._ledgers: dict[NodeId, ScriptedLedger] = {}

    def opened(self, ledger: "ScriptedLedger") -> None:
        """A node has started, perhaps again: from here on this is whom its incomes are told."""
        self._ledgers[ledger.node] = ledger

    def balance(self, node: NodeId) -> Microcredits:
        """Certified, and claimed where it came from others."""
        spent = sum(one.amount for one in self.certified if one.payer == node)
        earned = sum(one.amount for one in self.incomes(node)[: self._claimed.get(node, 0)])
        return Microcredits(self.allocations.get(node, 0) + earned - spent)

    def claimable(self, node: NodeId) -> Microcredits:
        unclaimed = self.incomes(node)[self._claimed.get(node, 0) :]
        return Microcredits(sum(one.amount for one in unclaimed))

    def incomes(self, node: NodeId) -> Sequence[Payment]:
        return [one for one in self.certified if one.to == node]

    def waiting(self, node: NodeId) -> Sequence[Payment]:
        """Pays of a node that are not certified."""
        done = {one.id for one in self.certified}
        return [one for one in self.payments if one.payer == node and one.id not in done]

    def certify(self) -> None:
        """Certify, in their order, all pays that their payers' balances cover."""
        for payer in dict.fromkeys(one.payer for one in self.payments):
            for one in self.waiting(payer):
                if one.amount > self.balance(payer):
                    break  # An account's entries stand in one line.
                self.certified.append(one)
                if one.to in self._ledgers:
                    self._ledgers[one.to].told(one)

    def claim(self, node: NodeId) -> None:
        """An account takes all that was paid to it."""
        self._claimed[node] = len(self.incomes(node))
        self.certify()

    def pay(self, payer: NodeId, to: NodeId, amount: int, reference: bytes) -> None:
        """Write down a pay; one with a reference once only."""
        if reference != _NO_REFERENCE:
            keys = {(one.payer, one.to, one.reference) for one in self.payments}
            if (payer, to, reference) in keys:
                return
        number = MessageId(digest(len(self.payments).to_bytes(8, "big")))
        self.payments.append(Payment(number, payer, to, Microcredits(amount), reference))
        if self.prompt:
            self.certify()


class ScriptedLedger(Ledger):
    """The ledger as one node sees it from its start to its end; what it reserves lives no longer
    than that."""

    def __init__(self, world: ScriptedLedgers, node: NodeId) -> None:
        self._world = world
        self._node = node
        world.opened(self)
        self._reserved = 0
        self._watchers: list[Callable[[Income], None]] = []
        self.failing: LocalError | None = None
        """What `pay` raises for as long as it is set."""
        self.asked: list[NodeId] = []
        """Accounts whose balance was looked up, in order."""
        self.suspects: set[NodeId] = set()
        """Accounts that have contradicted themselves."""

    @property
    def node(self) -> NodeId:
        """Whose account it is."""
        return self._node

    @property
    def ready(self) -> bool:
        return self._world.prompt

    @property
    def trouble(self) -> str:
        return ""

    def standing(self) -> Standing:
        world, node = self._world, self._node
        return Standing(
            balance=world.balance(node),
            pending=Microcredits(sum(one.amount for one in world.waiting(node))),
            reserved=Microcredits(self._reserved),
            claimable=world.claimable(node),
            seq=sum(one.payer == node for one in world.certified),
            head=digest(node),
        )

    def waiting(self) -> Sequence[Waiting]:
        return [
            Waiting(number, "pay", one.amount, one.to, one.reference, 0, 1, ())
            for number, one in enumerate(self._world.waiting(self._node), start=1)
        ]

    def reserve(self, amount: int) -> AbstractContextManager[None]:
        return self._reserve(amount)

    @contextmanager
    def _reserve(self, amount: int) -> Iterator[None]:
        self._check(amount)
        self._reserved += amount
        try:
            yield
        finally:
            self._reserved -= amount

    def _check(self, amount: int) -> None:
        spendable = self.standing().spendable
        if amount > spendable:
            raise LocalError(
                Code.OVERDRAWN,
                f"{credits_text(amount)} credits are needed and {credits_text(spendable)} can be "
                "spent now: share a model to earn some, or have some sent to you.",
            )

    async def pay(self, to: NodeId, amount: int, reference: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.failing is not None:
            raise LocalError(self.failing.code, self.failing.sentence)
        if amount < self._world.pay_min or to == self._node:
            raise LocalError(
                Code.BAD_REQUEST,
                f"{amount} microcredits were to be paid; at least {self._world.pay_min} can be, "
                "and to another account.",
            )
        if reference == _NO_REFERENCE:
            self._check(amount)
        self._world.pay(self._node, to, amount, reference)

    def watch_income(self, watcher: Callable[[Income], None]) -> None:
        self._watchers.append(watcher)
        for payment in self._world.incomes(self._node):
            watcher(_income(payment))

    def told(self, payment: Payment) -> None:
        """A pay to this node has its certificate."""
        for watcher in self._watchers:
            watcher(_income(payment))

    def contradicted(self, account: NodeId) -> bool:
        """As `Ledger.contradicted`: those that the script names."""
        return account in self.suspects

    async def proven(self, account: NodeId) -> Proven:
        await trio.lowlevel.checkpoint()
        self.asked.append(account)
        seq = sum(one.payer == account for one in self._world.certified)
        return Proven(account, seq, self._world.balance(account))


def _income(payment: Payment) -> Income:
    return Income(payment.id, payment.payer, payment.amount, payment.reference)
