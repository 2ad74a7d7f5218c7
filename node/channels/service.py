"""The channels of a running node: both roles and their keeper, put together."""

from collections.abc import Callable, Sequence

import trio

from node.channels.keeper import ChannelKeeper
from node.channels.outlook import Line, by_channel, line_of_book, line_of_own
from node.channels.own import Around
from node.channels.payee import OwnPayee, open_payee
from node.channels.payer import OwnPayer
from node.ledger.keeper import Steps, no_steps
from node.storage.channels import VoucherStore
from protocol.errors import Code, LocalError
from protocol.ids import MessageId


class Channels:
    """Made by `open_channels`. Jobs know `payer` and `payee`; while `run` runs, channels are
    opened ahead of need and settled by themselves."""

    def __init__(self, around: Around, payer: OwnPayer, payee: OwnPayee) -> None:
        self._around = around
        self.payer = payer
        self.payee = payee
        self._keeper = ChannelKeeper(around, payer, payee)

    async def run(self) -> None:
        """Look after all channels until cancelled; it may be run again after it has raised."""
        async with trio.open_nursery() as nursery:
            for part in (self.payer.run, self.payee.run, self._keeper.run):
                nursery.start_soon(part)

    def lines(self) -> Sequence[Line]:
        """Every channel that is not over: ours first, and those that expire first before others."""
        settlings = by_channel(self._around.ledger.settling())
        own = [
            line_of_own(one, settlings.get(one.facts.id), self._around) for one in self.payer.own
        ]
        books = [
            line_of_book(one, settlings.get(one.facts.id), self._around, self.payee.old_until_ms)
            for one in self.payee.books
            if not one.facts.is_claimed
        ]
        return sorted([*own, *books], key=lambda line: (not line.is_ours, line.expiry_ms, line.id))

    async def settle(self, channel: MessageId) -> None:
        """The owner wants a channel settled now: as the payee it is, as the payer its payee is
        asked, and again until it has answered.

        Raises LocalError NOT_FOUND where it is no channel of this node; UNAVAILABLE where the
        disk fails.
        """
        for own in self.payer.own:
            if own.facts.id == channel:
                self.payer.unexpect(own.facts.payee)  # Or it would all be locked again at once.
                await self.payer.want_settled(channel)
                return
        for book in self.payee.books:
            if book.facts.id == channel:
                if book.facts.settled is None:
                    await self.payee.settle(channel)
                return
        raise LocalError(
            Code.NOT_FOUND,
            f"This node has no open channel {channel.hex()[:16]}; `ayni wallet channels` lists "
            "them.",
        )


async def open_channels(
    around: Around,
    store: VoucherStore,
    chunk_cost: Callable[[], int],
    steps: Steps = no_steps,
) -> Channels:
    """The channels as the database and the ledger have them; `chunk_cost` is
    `policy.chunk_cost_most` of this node. Raises LocalError UNAVAILABLE where the disk fails."""
    return Channels(around, OwnPayer(around), await open_payee(around, store, chunk_cost, steps))
