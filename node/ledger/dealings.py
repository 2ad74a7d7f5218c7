"""What a node does with its own credits, by the parts of its ledger that do it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from node.ledger.base import ChannelFacts, Income, Settling, Standing, Vouchers, Waiting
from node.ledger.counterparty import Counterparty
from node.ledger.purse import Purse
from node.ledger.queue import Queue
from node.ledger.registry import Registry
from node.ledger.settle import Settler
from node.ledger.settle_desk import SettleDesk
from protocol.envelope import Signed
from protocol.ids import MessageId, NodeId


class Dealings:
    """One half of `node.ledger.service.NodeLedger`, which makes the parts."""

    settler: Settler
    _purse: Purse
    _registry: Registry
    _queue: Queue
    _counterparty: Counterparty
    _settle_desk: SettleDesk

    def standing(self) -> Standing:
        """As `Ledger.standing`."""
        return self._purse.standing()

    def waiting(self) -> Sequence[Waiting]:
        """As `Ledger.waiting`."""
        return self._queue.waiting()

    def reserve(self, amount: int) -> AbstractContextManager[None]:
        """As `Ledger.reserve`."""
        return self._purse.reserve(amount)

    async def pay(self, to: NodeId, amount: int, reference: bytes) -> None:
        """As `Ledger.pay`."""
        await self._queue.pay(to, amount, reference)

    def watch_income(self, watcher: Callable[[Income], None]) -> None:
        """As `Ledger.watch_income`."""
        self._purse.watch(watcher)

    async def open_channel(self, payee: NodeId, deposit: int, expiry_ms: int) -> None:
        """As `Ledger.open_channel`."""
        await self._queue.open_channel(payee, deposit, expiry_ms)

    async def top_up(self, channel: MessageId, amount: int) -> None:
        """As `Ledger.top_up`."""
        await self._queue.top_up(channel, amount)

    def channels(self) -> Sequence[ChannelFacts]:
        """As `Ledger.channels`."""
        return self._registry.all()

    def watch_channels(self, watcher: Callable[[ChannelFacts], None]) -> None:
        """As `Ledger.watch_channels`."""
        self._registry.watch(watcher)

    def keep_vouchers(self, vouchers: Vouchers) -> None:
        """As `Ledger.keep_vouchers`."""
        self._settle_desk.vouchers = self.settler.vouchers = vouchers
        self.settler.wake()

    async def settle(self, channel: MessageId) -> None:
        """As `Ledger.settle`."""
        await self.settler.settle(channel)

    def settling(self) -> Sequence[Settling]:
        """As `Ledger.settling`."""
        return self.settler.settling()

    async def ask_voucher(self, channel: MessageId) -> Signed | None:
        """As `Ledger.ask_voucher`."""
        return await self._counterparty.voucher(channel)

    async def want_settlement(self, channel: MessageId) -> None:
        """As `Ledger.want_settlement`."""
        await self._counterparty.want_settlement(channel)

    async def show_channel(self, channel: MessageId) -> None:
        """As `Ledger.show_channel`."""
        await self._counterparty.show(channel)
