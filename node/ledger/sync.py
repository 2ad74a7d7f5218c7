"""Pulls certified entries from peers: whatever comes is verified again, so any peer will do."""

from collections.abc import Sequence
from typing import Final

import trio

from node.ledger.keeper import Keeper
from node.ledger.lines import Lines
from node.network.base import Network, NetworkError
from node.network.quota import Quotas, is_blamed
from node.telemetry.logs import Log
from protocol.errors import AyniError, Code, LocalError, RemoteError
from protocol.ids import NodeId, short
from protocol.ledger.certificate import Certified
from protocol.ledger.sync import Answer, Ask, AskRange, Entries, Refusal
from protocol.limits import RANGE_ENTRIES_MAX

_BLAMED: Final = frozenset({Code.BAD_CERTIFICATE, Code.BAD_PROOF})

_log = Log("ledger")


class Sync:
    """Each page is on disk before the next is asked for, so a pull goes on where it was."""

    def __init__(self, network: Network, quotas: Quotas, keeper: Keeper, lines: Lines) -> None:
        self._network, self._quotas, self._keeper, self._lines = network, quotas, keeper, lines

    async def ask(self, peer: NodeId, ask: Ask) -> Answer:
        """As `Lines.ask`; a Refusal is raised as RemoteError."""
        answer = await self._lines.ask(peer, ask)
        if isinstance(answer, Refusal):
            code = Code(answer.code) if answer.code in set(Code) else Code.REFUSED
            raise RemoteError(code, answer.sentence, answer.retry_ms)
        return answer

    async def pull_page(self, account: NodeId, peer: NodeId) -> tuple[int, int]:
        """Take the next page of an account that this peer has and we have not. How many entries
        were new, and up to which seq the chain is here now.

        Raises NetworkError; RemoteError for what does not hold, after all before it is stored.
        """
        seq = await self._seq(account)
        page = await self.ask(peer, AskRange(account, seq + 1, RANGE_ENTRIES_MAX))
        if not isinstance(page, Entries):
            raise RemoteError(Code.UNEXPECTED, "A peer answered another question.")
        if any(one.entry.signer != account for one in page.entries):
            raise RemoteError(Code.UNEXPECTED, "Entries came of another account.")
        new = await self._keeper.take_all(page.entries)
        return new, await self._seq(account)

    async def heed(self, entries: Sequence[Certified]) -> None:
        """Take from certified entries, which stand in their chains here, what they bring us."""
        await self._keeper.take_all(entries)

    async def pull(self, account: NodeId, peer: NodeId, entries_max: int) -> int:
        """Take entries of one account that this peer has and we have not, `entries_max` or a page
        more. How many were new. Raises as `pull_page`."""
        taken = 0
        while taken < entries_max:
            new, _ = await self.pull_page(account, peer)
            taken += new
            if not new:
                return taken
        return taken

    async def _seq(self, account: NodeId) -> int:
        return (await self._keeper.store.read(lambda chains: chains.account(account))).seq

    async def pull_from_any(self, account: NodeId, peers: Sequence[NodeId], seq: int) -> None:
        """Take an account's entries up to `seq` from whichever of these peers has them."""
        for peer in peers:
            have = await self._seq(account)
            if have >= seq:
                return
            if peer == self._network.node:
                continue
            try:
                await self.pull(account, peer, seq - have)
            except (NetworkError, RemoteError) as error:
                await self.blame(peer, error)

    async def blame(self, peer: NodeId, error: NetworkError | AyniError) -> None:
        """Count what a peer showed that does not hold, and cut it when that is too often."""
        if isinstance(error, LocalError):
            raise error
        if not isinstance(error, RemoteError):
            return
        if error.code not in _BLAMED and not is_blamed(error):
            return  # A refusal is its right.
        self._keeper.faults[error.code] += 1
        _log.info("ledger.peer_failed", peer=short(peer), code=error.code)
        if self._quotas.failed(peer, trio.current_time()):
            await self._network.disconnect(peer)
