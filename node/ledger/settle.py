"""Settles this node's channels, as payee and as payer: each turn of ours, until it is final.

The payee's first turn comes when it is asked for; the turns after the expiry come by themselves,
also after a long absence. What we propose is on disk before it leaves, and there is never a
second value for one turn, so after a restart the same bytes are sent again or the next turn is
waited for. Witnesses that cannot be reached hold up nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from node.ledger.base import ChannelFacts, Settling, Vouchers
from node.ledger.client import Client
from node.ledger.keeper import Keeper, News
from node.ledger.lines import Lines
from node.ledger.registry import Registry
from node.ledger.settle_round import Round
from node.ledger.settle_value import Due, next_due, proposal_made
from node.ledger.signal import Signal
from node.network.base import NetworkError
from node.storage.ledger import Records
from node.storage.ledger_channels import Proposed
from node.telemetry.logs import Log
from protocol.envelope import seal
from protocol.errors import Code, LocalError, RemoteError
from protocol.identity import Identity
from protocol.ids import MessageId, NodeId, short
from protocol.ledger.certificate import Certified
from protocol.ledger.proof import Breach
from protocol.ledger.settlement import owner_is_payee, turn
from protocol.ledger.statement import ReportShown, Settlement, TurnAsk
from protocol.ledger.sync import Answer, Ask, AskSettlement, Propose, Settled, TellSettlement

SETTLING_AT_ONCE: Final = 64  # Channels; a task for each witness belongs to each.
LOOKING_UP_AT_ONCE: Final = 8
RETRY_MS: Final = 2_000
LOOK_AGAIN_SECONDS: Final = 120.0  # The wall clock may have jumped.

_log = Log("ledger")


@dataclass(eq=False)
class _Work:
    """A turn of ours that has begun."""

    turn: int
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    round: Round | None = None


class Settler:
    """Takes our turns while `run` runs. `may_sign`: whether new proposals may be signed;
    `is_halted`: whether this ledger has halted, so that nothing that is settled is accepted."""

    def __init__(
        self,
        identity: Identity,
        keeper: Keeper,
        registry: Registry,
        client: Client,
        lines: Lines,
        *,
        wall_ms: Callable[[], int],
    ) -> None:
        self._identity, self._keeper, self._registry = identity, keeper, registry
        self._client, self._lines, self._wall_ms = client, lines, wall_ms
        self._node, self._store, self._charter = identity.node, keeper.store, keeper.charter
        self._wake = Signal()
        self._work: dict[MessageId, _Work] = {}
        self._proposed: dict[MessageId, Proposed] = {}
        self._tried: dict[MessageId, int] = {}
        self.may_sign: Callable[[], bool] = lambda: False
        self.is_halted: Callable[[], bool] = lambda: False
        self.vouchers: Vouchers | None = None

    @property
    def at_work(self) -> int:
        """How many turns have begun and are not over."""
        return len(self._work)

    async def load(self) -> None:
        """Read what was proposed before."""
        self._proposed = dict(await self._store.read(lambda chains: chains.proposed_all()))

    def wake(self) -> None:
        """A channel is new, or something may be signed that might not before."""
        self._wake.set()

    def connected(self, peer: NodeId) -> None:
        """A peer is here: if it is a witness, it is asked again at once."""
        number = self._charter.number(peer)
        for work in self._work.values():
            if number is not None and work.round is not None:
                work.round.wake(number)

    def heard(self, news: News) -> None:
        """Something has changed in the store."""
        for facts in news.channels:
            if facts.settled is None:
                continue
            self._proposed.pop(facts.id, None)
            self._tried.pop(facts.id, None)
            work = self._work.get(facts.id)
            if work is not None and (work.round is None or work.round.settlement is None):
                work.scope.cancel()  # Somebody else has told us of it.
        if news.channels:
            self._wake.set()

    async def settle(self, channel: MessageId) -> None:
        """As `Ledger.settle`."""
        facts = self._registry.find(channel)
        if facts.settled is not None or facts.payer == self._node or channel in self._proposed:
            return
        await self._propose(facts, 1, ())
        self._wake.set()

    def settling(self) -> Sequence[Settling]:
        """As `Ledger.settling`."""
        now_ms = self._wall_ms()
        lines = (self._shown(facts, now_ms) for facts in self._registry.open())
        return [line for line in lines if line is not None]

    async def run(self) -> None:
        """Take each turn of ours when it comes, until cancelled."""
        self._work.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_up_all)
            while True:
                coming = self._wake.coming()
                wait_seconds = self._start_due(nursery)
                with trio.move_on_after(wait_seconds):
                    await coming.wait()

    # When.

    def _start_due(self, nursery: trio.Nursery) -> float:
        """Begin the turns that have come, end those that are over; how many seconds there are
        until the next."""
        now_ms, next_ms = self._wall_ms(), float("inf")
        channels = self._registry.open()
        for facts in channels:
            due = self._due(facts, now_ms)
            work = self._work.get(facts.id)
            if work is not None:
                if due.turn != work.turn:
                    work.scope.cancel()
                next_ms = min(next_ms, due.end_ms)
            elif due.start_ms > now_ms:
                next_ms = min(next_ms, due.start_ms)
            elif len(self._work) < SETTLING_AT_ONCE and self._may_begin(facts, due.turn):
                work = self._work[facts.id] = _Work(due.turn)
                next_ms = min(next_ms, due.end_ms)
                nursery.start_soon(self._take_turn, nursery, facts, work)
        wait_seconds = max(0.0, next_ms - now_ms) / 1000
        return min(wait_seconds, LOOK_AGAIN_SECONDS) if channels else float("inf")

    def _due(self, facts: ChannelFacts, now_ms: int) -> Due:
        proposed, tried = self._proposed.get(facts.id), self._tried.get(facts.id, 0)
        return next_due(facts, self._node, proposed, tried, now_ms, self._charter)

    def _may_begin(self, facts: ChannelFacts, turn: int) -> bool:
        """What was proposed before may always be sent again, but on a halted ledger, where its
        settlement would not be taken."""
        if self.is_halted():
            return False
        proposed = self._proposed.get(facts.id)
        if proposed is not None and proposed.turn == turn:
            return True
        has_vouchers = self.vouchers is not None or not owner_is_payee(turn)
        return has_vouchers and self.may_sign()

    # One turn.

    async def _take_turn(self, nursery: trio.Nursery, facts: ChannelFacts, work: _Work) -> None:
        funds = await self._store.read(lambda chains: chains.funds(facts.id))
        at_hand = work.round = Round(self._charter, funds[0], work.turn, self._client.ask)
        try:
            with work.scope:
                async with trio.open_nursery() as talking:
                    talking.start_soon(at_hand.attend)
                    await self._go_through(facts, at_hand)
                    talking.cancel_scope.cancel()
            if at_hand.settlement is not None:
                await self._keep(at_hand.settlement, funds[0], None)
                self._spread(nursery, at_hand.settlement, funds[0])
            elif at_hand.is_over:
                self._tried[facts.id] = work.turn
        finally:
            self._work.pop(facts.id, None)
            self._wake.set()

    async def _go_through(self, facts: ChannelFacts, at_hand: Round) -> None:
        proposed = self._proposed.get(facts.id)
        if proposed is None or proposed.turn != at_hand.turn:
            ask = seal(self._identity, self._charter.network, TurnAsk(facts.id, at_hand.turn))
            reports = await at_hand.reports(ask)
            if at_hand.is_over:
                return
            try:
                proposed = await self._propose(facts, at_hand.turn, reports)
            except LocalError as error:
                _log.error("ledger.no_proposal", channel=short(facts.id), why=error.sentence)
                proposed = None
            if proposed is None:
                self._tried[facts.id] = at_hand.turn
                return
        certificate = await at_hand.prepared(proposed.ask)
        if certificate is not None:
            await self._keeper.steps("prepare.made")
            await at_hand.committed(certificate)

    async def _propose(
        self, facts: ChannelFacts, turn: int, reports: tuple[ReportShown, ...]
    ) -> Proposed | None:
        """Sign a proposal and keep it before it leaves; of one turn there is only ever one. None
        where the channel was settled meanwhile. Raises LocalError UNAVAILABLE."""
        if not self.may_sign() or (self.vouchers is None and owner_is_payee(turn)):
            raise LocalError(
                Code.UNAVAILABLE,
                "Nothing new is signed until the witnesses have said what they know of this "
                "account; try again in a while, and see `ayni wallet` if it stays so.",
                RETRY_MS,
            )
        best = self.vouchers.best(facts.id) if self.vouchers and owner_is_payee(turn) else None
        funds = await self._store.read(lambda chains: chains.funds(facts.id))
        ask, value = proposal_made(self._identity, turn, funds, best, reports, self._charter)
        kept = await self._store.write(partial(_kept, facts.id, turn, value, ask))
        if kept is None:
            return None
        self._proposed[facts.id] = kept
        await self._keeper.steps("proposal.stored")
        return kept if kept.turn == turn else None

    # What is final.

    async def _keep(self, settlement: Settlement, shown: Certified, teller: NodeId | None) -> bool:
        """Take a settlement; whether it holds."""
        try:
            await self._keeper.take_settlement(settlement, shown, teller)
        except RemoteError as error:
            _log.warning("ledger.bad_settlement", channel=short(shown.entry.id), code=error.code)
            return False
        return True

    def _spread(self, nursery: trio.Nursery, settlement: Settlement, shown: Certified) -> None:
        """Tell each witness once, so that it answers whoever asks; claims show it anyway."""
        for number, witness in enumerate(self._charter.witnesses):
            if witness != self._node:
                nursery.start_soon(self._tell, number, TellSettlement(settlement, shown))

    async def _tell(self, number: int, ask: Ask) -> None:
        try:
            await self._client.ask(number, ask)
        except (NetworkError, RemoteError):
            _log.debug("witness.silent", witness=short(self._charter.witnesses[number]))

    async def _look_up_all(self) -> None:
        """At a start: what others have settled meanwhile, or we before a restore."""
        limiter = trio.CapacityLimiter(LOOKING_UP_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for facts in self._registry.open():
                is_past = turn(facts.expiry_ms, self._wall_ms(), self._charter) > 1
                if is_past or facts.payer == self._node:
                    await limiter.acquire_on_behalf_of(facts.id)
                    nursery.start_soon(self._look_up, facts, limiter)

    async def _look_up(self, facts: ChannelFacts, limiter: trio.CapacityLimiter) -> None:
        try:
            await self.look_up(facts)
        finally:
            limiter.release_on_behalf_of(facts.id)

    async def look_up(self, facts: ChannelFacts) -> None:
        """Ask the other party and the witnesses how a channel was settled, until one knows."""
        funds = await self._store.read(lambda chains: chains.funds(facts.id))
        other = facts.payee if facts.payer == self._node else facts.payer
        for place in (other, *range(len(self._charter.witnesses))):
            answer = await self._asked(place, AskSettlement(facts.id))
            teller = other if place == other else None
            if isinstance(answer, Settled) and await self._keep(
                answer.settlement, funds[0], teller
            ):
                return

    async def _asked(self, place: NodeId | int, ask: Ask) -> Answer | None:
        """The answer of a witness or a peer; None where there is none."""
        try:
            if isinstance(place, int):
                return await self._client.ask(place, ask)
            return await self._lines.ask(place, ask)
        except (NetworkError, RemoteError):
            return None

    # For people.

    def _shown(self, facts: ChannelFacts, now_ms: int) -> Settling | None:
        work, quorum = self._work.get(facts.id), self._charter.quorum
        if work is not None and work.round is not None:
            at_hand = work.round
            return Settling(facts.id, at_hand.turn, at_hand.stage, at_hand.seals, quorum, None)
        proposed = self._proposed.get(facts.id)
        if proposed is None and turn(facts.expiry_ms, now_ms, self._charter) == 1:
            return None
        due = self._due(facts, now_ms)
        turn_before = 0 if proposed is None else proposed.turn
        return Settling(facts.id, turn_before, "wanted", 0, quorum, due.start_ms or None)


def _kept(
    channel: MessageId, turn: int, value: int, ask: Propose, records: Records
) -> Proposed | None:
    if records.settlement(channel) is not None or isinstance(records.stopped(), Breach):
        return None
    return records.keep_proposal(ask, channel, turn, value)
