"""What a payer asks of the payee of its channel: its vouchers, to settle, to know the channel."""

from node.ledger.keeper import Keeper
from node.ledger.lines import Lines
from node.ledger.registry import Registry
from node.network.base import NetworkError
from protocol.envelope import Signed
from protocol.errors import Code, LocalError, RemoteError
from protocol.ids import MessageId, NodeId, short
from protocol.ledger.sync import (
    Accepted,
    Announce,
    Answer,
    Ask,
    AskVoucher,
    Refusal,
    VoucherHeld,
    WantSettlement,
)
from protocol.ledger.voucher import voucher_opened


class Counterparty:
    """Speaks with the payees of our channels."""

    def __init__(self, keeper: Keeper, registry: Registry, lines: Lines) -> None:
        self._keeper, self._registry, self._lines = keeper, registry, lines
        self._store, self._charter = keeper.store, keeper.charter

    async def voucher(self, channel: MessageId) -> Signed | None:
        """As `Ledger.ask_voucher`."""
        payee = self._payee(channel)
        answer = await self._asked(payee, AskVoucher(channel))
        if not isinstance(answer, VoucherHeld):
            raise _refused(payee, answer)
        if answer.voucher is None:
            return None
        try:
            voucher = voucher_opened(answer.voucher, self._keeper.node, self._charter.network).value
        except RemoteError as error:
            raise _unavailable(payee, str(error)) from error
        if voucher.channel != channel:
            raise _unavailable(payee, "It showed a voucher of another channel.")
        return answer.voucher

    async def want_settlement(self, channel: MessageId) -> None:
        """As `Ledger.want_settlement`."""
        payee = self._payee(channel)
        answer = await self._asked(payee, WantSettlement(channel))
        if not isinstance(answer, Accepted):
            raise _refused(payee, answer)

    async def show(self, channel: MessageId) -> None:
        """As `Ledger.show_channel`."""
        payee = self._payee(channel)
        funds = await self._store.read(lambda chains: chains.funds(channel))
        for certified in funds:
            answer = await self._asked(payee, Announce(certified))
            if isinstance(answer, Refusal) and answer.code == Code.HALTED:
                # It takes nothing in now, but goes on with the channels that it knows; of one that
                # it does not know it says so when an order comes.
                return
            is_kept = isinstance(answer, Refusal) and answer.code == Code.MISSING
            if not (is_kept or isinstance(answer, Accepted)):
                raise _refused(payee, answer)
        await self._store.write(lambda records: records.told_funds(channel, funds))

    def _payee(self, channel: MessageId) -> NodeId:
        """Raises LocalError NOT_FOUND for no channel of ours as the payer."""
        facts = self._registry.find(channel)
        if facts.payer != self._keeper.node:
            raise LocalError(Code.NOT_FOUND, f"This node is the payee of {short(channel)}.")
        return facts.payee

    async def _asked(self, payee: NodeId, ask: Ask) -> Answer:
        try:
            return await self._lines.ask(payee, ask)
        except (NetworkError, RemoteError) as error:
            raise _unavailable(payee, str(error)) from error


def _refused(payee: NodeId, answer: Answer) -> LocalError:
    sentence = answer.sentence if isinstance(answer, Refusal) else "It answered something else."
    return _unavailable(payee, sentence)


def _unavailable(payee: NodeId, sentence: str) -> LocalError:
    return LocalError(
        Code.UNAVAILABLE,
        f"The payee {short(payee)} of this channel gave no good answer: {sentence}",
    )
