"""The best certified balance that is known of an account, asked for again once a minute."""

from collections import OrderedDict
from typing import Final

import trio

from node.ledger.base import Proven
from node.ledger.keeper import Keeper
from node.ledger.lines import Lines
from node.network.base import Network, NetworkError
from protocol.errors import AyniError
from protocol.ids import NodeId
from protocol.ledger.certificate import certified_checked
from protocol.ledger.sync import AskHeads, Entries
from protocol.units import Microcredits

PROVEN_MAX: Final = 4096
PROVEN_SECONDS: Final = 60.0
PROVEN_SECONDS_MAX: Final = 5.0  # A peer that does not answer holds nobody up for longer.


class Proving:
    """Asks the account itself, when it is connected."""

    def __init__(self, network: Network, keeper: Keeper, lines: Lines) -> None:
        self._network, self._keeper, self._lines = network, keeper, lines
        self._heads: OrderedDict[NodeId, tuple[Proven, float]] = OrderedDict()

    async def proven(self, account: NodeId) -> Proven:
        """As `Ledger.proven`."""
        known, asked_at = self._heads.get(account, (None, float("-inf")))
        try:
            stored = await self._keeper.store.read(lambda chains: chains.account(account))
            best = Proven(account, stored.seq, Microcredits(stored.balance))
            if known is not None and known.seq > best.seq:
                best = known
            is_old = trio.current_time() - asked_at >= PROVEN_SECONDS
            if is_old and account in self._network.peers:
                asked_at = trio.current_time()
                best = await self._asked(account, best)
        except AyniError:
            allocated = self._keeper.charter.allocations.get(account, 0)
            best = known or Proven(account, 0, Microcredits(allocated))
        self._heads[account] = best, asked_at
        self._heads.move_to_end(account)
        if len(self._heads) > PROVEN_MAX:
            self._heads.popitem(last=False)
        return best

    async def _asked(self, account: NodeId, best: Proven) -> Proven:
        """What an account shows of itself, if it is newer. Raises RemoteError."""
        try:
            with trio.move_on_after(PROVEN_SECONDS_MAX):
                answer = await self._lines.ask(account, AskHeads((account,)))
                for certified in answer.entries if isinstance(answer, Entries) else ():
                    entry = certified_checked(certified, self._keeper.charter).value
                    if entry.account == account and entry.seq > best.seq:
                        best = Proven(account, entry.seq, Microcredits(entry.balance))
        except NetworkError:
            pass  # What is known stands.
        return best
