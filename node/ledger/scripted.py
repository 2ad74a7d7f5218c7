"""A ledger without witnesses, for tests and the simulator: whoever drives it certifies.

The world of accounts outlives the nodes in it, as a real network does, so a node that starts
again finds what it had paid and which channels it has.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import trio

from node.ledger.base import (
    ChannelFacts,
    Income,
    Ledger,
    Settling,
    Standing,
    Vouchers,
    Waiting,
)
from protocol import codec
from protocol.envelope import Signed
from protocol.errors import Code, LocalError
from protocol.identity import digest
from protocol.ids import MessageId, NodeId, short
from protocol.ledger.voucher import VOUCHER_BYTES_MAX, Voucher
from protocol.units import Microcredits, credits_text

_NO_REFERENCE = bytes(32)


@dataclass(frozen=True, slots=True)
class Payment:
    """A pay, an open or a top-up that is on its payer's disk."""

    id: MessageId
    payer: NodeId
    to: NodeId
    amount: Microcredits
    reference: bytes
    kind: str = "pay"
    expiry_ms: int = 0  # Of an open.
    channel: MessageId | None = None  # Of a top-up.


class ScriptedLedgers:
    """All accounts. What they do is certified at once while `prompt`, and otherwise by `certify`;
    the shares of a settled channel are claimed at once."""

    def __init__(self, allocations: Mapping[NodeId, int], pay_min: int = 1) -> None:
        self.allocations = dict(allocations)
        self.pay_min = pay_min
        self.prompt = True
        self.payments: list[Payment] = []  # All that were ever made, the oldest first.
        self.certified: list[Payment] = []
        self.away_seconds = 0.0  # That a payee which is away keeps its payer waiting.
        self.channels: dict[MessageId, ChannelFacts] = {}  # As both of their parties see them.
        self.proposed: dict[MessageId, int] = {}  # What a payee is to get that has settled.
        self._claimed: dict[NodeId, int] = {}  # How many of its incomes an account has taken.
        self._ledgers: dict[NodeId, ScriptedLedger] = {}

    def opened(self, ledger: "ScriptedLedger") -> None:
        """A node has started, perhaps again: from here on this is whom its incomes are told."""
        self._ledgers[ledger.node] = ledger

    def ledger(self, node: NodeId) -> "ScriptedLedger | None":
        """The ledger of a node that has started."""
        return self._ledgers.get(node)

    def balance(self, node: NodeId) -> Microcredits:
        """Certified, and claimed where it came from others."""
        spent = sum(one.amount for one in self.certified if one.payer == node)
        earned = sum(one.amount for one in self.incomes(node)[: self._claimed.get(node, 0)])
        shares = sum(_share(facts, node) for facts in self.channels.values())
        return Microcredits(self.allocations.get(node, 0) + earned + shares - spent)

    def claimable(self, node: NodeId) -> Microcredits:
        unclaimed = self.incomes(node)[self._claimed.get(node, 0) :]
        return Microcredits(sum(one.amount for one in unclaimed))

    def incomes(self, node: NodeId) -> Sequence[Payment]:
        return [one for one in self.certified if one.to == node and one.kind == "pay"]

    def waiting(self, node: NodeId) -> Sequence[Payment]:
        """What a node does that is not certified."""
        done = {one.id for one in self.certified}
        return [one for one in self.payments if one.payer == node and one.id not in done]

    def certify(self) -> None:
        """Certify, in their order, all that the balances of those who do it cover; settle what
        payees have proposed."""
        for payer in dict.fromkeys(one.payer for one in self.payments):
            for one in self.waiting(payer):
                if one.amount > self.balance(payer):
                    break  # An account's entries stand in one line.
                self.certified.append(one)
                self._follow(one)
        for channel, value in list(self.proposed.items()):
            self._settle(channel, value)

    def claim(self, node: NodeId) -> None:
        """An account takes all that was paid to it."""
        self._claimed[node] = len(self.incomes(node))
        self.certify()

    def expire(self, channel: MessageId) -> None:
        """The payer settles at its turn: the payee gets what it has proposed, or nothing."""
        self._settle(channel, self.proposed.get(channel, 0))

    def pay(self, payer: NodeId, to: NodeId, amount: int, reference: bytes) -> None:
        """Write down a pay; one with a reference once only."""
        if reference != _NO_REFERENCE:
            keys = {(one.payer, one.to, one.reference) for one in self.payments}
            if (payer, to, reference) in keys:
                return
        self.put(Payment(self._number(), payer, to, Microcredits(amount), reference))

    def put(self, payment: Payment) -> None:
        """Write down what an account does next."""
        self.payments.append(payment)
        if self.prompt:
            self.certify()

    def open_channel(self, payer: NodeId, payee: NodeId, deposit: int, expiry_ms: int) -> None:
        """Write down an open."""
        amount, number = Microcredits(deposit), self._number()
        self.put(Payment(number, payer, payee, amount, _NO_REFERENCE, "open", expiry_ms))

    def top_up(self, facts: ChannelFacts, amount: int) -> None:
        """Write down a top-up."""
        number, more = self._number(), Microcredits(amount)
        payer, payee = facts.payer, facts.payee
        self.put(Payment(number, payer, payee, more, _NO_REFERENCE, "topup", 0, facts.id))

    def propose(self, channel: MessageId, value: int) -> None:
        """Write down what a payee is to get; the first value stays."""
        self.proposed.setdefault(channel, value)
        if self.prompt:
            self.certify()

    def _number(self) -> MessageId:
        return MessageId(digest(len(self.payments).to_bytes(8, "big")))

    def _follow(self, one: Payment) -> None:
        if one.kind == "open":
            facts = ChannelFacts(one.id, one.payer, one.to, one.amount, 0, one.expiry_ms)
            self._tell(facts)
        elif one.channel is not None:
            facts = self.channels[one.channel]
            funding = Microcredits(facts.funding + one.amount)
            self._tell(replace(facts, funding=funding, topups=facts.topups + 1))
        elif one.to in self._ledgers:
            self._ledgers[one.to].told(one)

    def _settle(self, channel: MessageId, value: int) -> None:
        self.proposed.pop(channel, None)
        facts = self.channels[channel]
        if facts.settled is None:
            self._tell(replace(facts, settled=value, is_claimed=True))

    def _tell(self, facts: ChannelFacts) -> None:
        self.channels[facts.id] = facts
        for party in (facts.payer, facts.payee):
            if party in self._ledgers:
                self._ledgers[party].told_channel(facts)


class ScriptedLedger(Ledger):
    """The ledger as one node sees it from its start to its end; what it reserves lives no longer
    than that."""

    def __init__(self, world: ScriptedLedgers, node: NodeId) -> None:
        self._world = world
        self._node = node
        world.opened(self)
        self._reserved = 0
        self._watchers: list[Callable[[Income], None]] = []
        self._channel_watchers: list[Callable[[ChannelFacts], None]] = []
        self.vouchers: Vouchers | None = None
        self.failing: LocalError | None = None
        """What `pay` and the like raise for as long as it is set."""
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
            Waiting(number, one.kind, one.amount, one.to, one.reference, 0, 1, ())
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
        await self._may()
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

    async def open_channel(self, payee: NodeId, deposit: int, expiry_ms: int) -> None:
        await self._may()
        if payee == self._node or deposit < 1:
            raise LocalError(Code.BAD_REQUEST, "A channel goes to another and has a deposit.")
        self._check(deposit)
        self._world.open_channel(self._node, payee, deposit, expiry_ms)

    async def top_up(self, channel: MessageId, amount: int) -> None:
        await self._may()
        facts = self._found(channel, self._node)
        if facts.settled is not None:
            raise LocalError(Code.CHANNEL_CLOSED, "The channel is settled.")
        self._check(amount)
        self._world.top_up(facts, amount)

    def channels(self) -> Sequence[ChannelFacts]:
        every = self._world.channels.values()
        return [facts for facts in every if self._node in (facts.payer, facts.payee)]

    def watch_channels(self, watcher: Callable[[ChannelFacts], None]) -> None:
        self._channel_watchers.append(watcher)
        for facts in self.channels():
            watcher(facts)

    def told_channel(self, facts: ChannelFacts) -> None:
        """A channel of this node is new or has changed."""
        for watcher in self._channel_watchers:
            watcher(facts)

    def keep_vouchers(self, vouchers: Vouchers) -> None:
        self.vouchers = vouchers

    async def settle(self, channel: MessageId) -> None:
        await self._may()
        facts = self._found(channel)
        if facts.settled is not None or facts.payer == self._node:
            return
        if self.vouchers is None:
            raise LocalError(Code.UNAVAILABLE, "No vouchers are kept here.")
        best = self.vouchers.best(channel)
        value = 0
        if best is not None:
            value = codec.decode(best.body, Voucher, VOUCHER_BYTES_MAX).cumulative
            assert value <= facts.funding, "a voucher beyond the funding was counted"
        self._world.propose(channel, value)

    def settling(self) -> Sequence[Settling]:
        return [
            Settling(facts.id, 1, "proposing", 0, 1, None)
            for facts in self.channels()
            if facts.id in self._world.proposed
        ]

    async def ask_voucher(self, channel: MessageId) -> Signed | None:
        return (await self._vouchers_of(channel)).best(channel)

    async def want_settlement(self, channel: MessageId) -> None:
        (await self._vouchers_of(channel)).wanted(channel)

    async def show_channel(self, channel: MessageId) -> None:
        await self._vouchers_of(channel)

    async def _vouchers_of(self, channel: MessageId) -> Vouchers:
        """Those that the payee of a channel of ours keeps, while it runs."""
        await trio.lowlevel.checkpoint()
        facts = self._found(channel, self._node)
        payee = self._world.ledger(facts.payee)
        if payee is None or payee.vouchers is None:
            await trio.sleep(self._world.away_seconds)
            raise LocalError(Code.UNAVAILABLE, f"The payee {short(facts.payee)} is away.")
        return payee.vouchers

    def _found(self, channel: MessageId, payer: NodeId | None = None) -> ChannelFacts:
        facts = self._world.channels.get(channel)
        is_ours = facts is not None and self._node in (facts.payer, facts.payee)
        if facts is None or not is_ours or payer not in (None, facts.payer):
            raise LocalError(Code.NOT_FOUND, f"There is no channel {short(channel)} here.")
        return facts

    async def _may(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.failing is not None:
            raise LocalError(self.failing.code, self.failing.sentence)

    def contradicted(self, account: NodeId) -> bool:
        """As `Ledger.contradicted`: those that the script names."""
        return account in self.suspects


def _share(facts: ChannelFacts, node: NodeId) -> int:
    """What a settled channel has given back to one of its parties."""
    if facts.settled is None:
        return 0
    if node == facts.payee:
        return facts.settled
    return facts.funding - facts.settled if node == facts.payer else 0


def _income(payment: Payment) -> Income:
    return Income(payment.id, payment.payer, payment.amount, payment.reference)
