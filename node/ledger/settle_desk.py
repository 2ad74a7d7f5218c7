"""What this node answers about channels: as a witness of their settling, as party, as anyone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from node.ledger.base import Vouchers
from node.ledger.keeper import Keeper
from node.storage.ledger import Records
from node.storage.ledger_chains import Chains
from protocol.errors import Code, RemoteError
from protocol.identity import Identity
from protocol.ids import MessageId, NodeId, short
from protocol.ledger.settlement import Clock, Decision, Seat
from protocol.ledger.sync import (
    Accepted,
    Answer,
    AskReport,
    AskSettlement,
    AskVoucher,
    ChannelAsk,
    Lock,
    Propose,
    Refusal,
    Settled,
    SettlementAsk,
    TellSettlement,
    VoucherHeld,
    WantSettlement,
    refusal,
)
from protocol.ledger.turns import Forgotten, Turns, turn_answer
from protocol.ledger.witness import Halted, VotesLost, halted_error


@dataclass(frozen=True, slots=True)
class _Stamp:
    """All that a decision about a channel was made on."""

    seat: Seat
    is_settled: bool
    is_stopped: bool


class SettleDesk:
    """As a witness it says nothing before its seat is on disk; many channels share that wait."""

    def __init__(self, identity: Identity, keeper: Keeper, clock: Callable[[], Clock]) -> None:
        self._identity, self._keeper, self._clock = identity, keeper, clock
        self._store, self._charter = keeper.store, keeper.charter
        self._turns = Turns(keeper.charter, identity.node)
        self.vouchers: Vouchers | None = None

    async def answer(self, peer: NodeId, ask: SettlementAsk | ChannelAsk) -> Answer:
        """The answer to a peer, or to this node itself. What does not hold is a Refusal.

        Raises LocalError UNAVAILABLE when the disk fails.
        """
        match ask:
            case AskReport() | Propose() | Lock():
                return await self._turn(ask)
            case AskSettlement(channel):
                settlement = await self._store.read(lambda chains: chains.settlement(channel))
                if settlement is None:
                    return Refusal(Code.NOT_FOUND, "No settlement of this channel is known here.")
                return Settled(settlement)
            case TellSettlement():
                return await self._told(peer, ask)
            case AskVoucher(channel) | WantSettlement(channel):
                return await self._asked_as_payee(peer, channel, ask)
        assert_never(ask)

    # As a witness.

    async def _turn(self, ask: AskReport | Propose | Lock) -> Answer:
        """Decide in a reader's thread, since a proposal may bring a thousand signatures; then store
        the seat, if all that it was decided on still stands."""
        clock, channel = self._clock(), ask.open.entry.id
        while True:
            answer, stamp = await self._store.read(partial(self._decided, ask, clock))
            if not isinstance(answer, Decision | Forgotten):
                return answer
            if isinstance(answer, Decision) and not answer.fresh:
                break
            if await self._store.write(partial(_seated, channel, answer, stamp)):
                await self._keeper.steps("seat.stored")
                break
            # Another stream was faster; it may have asked for another value.
        if isinstance(answer, Forgotten):
            await self._keeper.stopped(VotesLost())
            return answer.answer
        return turn_answer(answer, self._identity, self._charter)

    def _decided(
        self, ask: AskReport | Propose | Lock, clock: Clock, chains: Chains
    ) -> tuple[Decision | Settled | Forgotten | Refusal, _Stamp]:
        return self._turns.answer(ask, chains, clock), _stamp(chains, ask.open.entry.id)

    # As anyone, and as a party.

    async def _told(self, peer: NodeId, ask: TellSettlement) -> Answer:
        try:
            outcome = await self._keeper.take_settlement(ask.settlement, ask.open, peer)
        except RemoteError as error:
            return refusal(error)
        return refusal(halted_error()) if isinstance(outcome, Halted) else Accepted()

    async def _asked_as_payee(
        self, peer: NodeId, channel: MessageId, ask: AskVoucher | WantSettlement
    ) -> Answer:
        """What only the payer of a channel to us may ask."""
        row = await self._store.read(lambda chains: chains.channel(channel))
        if row is None or (row.payer, row.payee) != (peer, self._identity.node):
            sentence = f"No channel {short(channel)} from you to this node is known here; show it."
            return Refusal(Code.NO_CHANNEL, sentence)
        if self.vouchers is None:
            return Refusal(Code.BUSY, "This node is starting; come again.", retry_ms=1_000)
        if isinstance(ask, AskVoucher):
            return VoucherHeld(self.vouchers.best(channel))
        self.vouchers.wanted(channel)
        return Accepted()


def _stamp(chains: Chains, channel: MessageId) -> _Stamp:
    return _Stamp(
        chains.seat(channel), chains.settlement(channel) is not None, chains.stopped() is not None
    )


def _seated(
    channel: MessageId, decided: Decision | Forgotten, stamp: _Stamp, records: Records
) -> bool:
    """Keep a seat, if all that it was decided on still stands."""
    if _stamp(records, channel) != stamp:
        return False
    records.keep_seat(channel, decided.seat)
    if isinstance(decided, Forgotten):
        records.stop(VotesLost())
    return True
