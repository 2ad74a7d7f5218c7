"""The continuous audit: other accounts' chains, pulled at a bounded rate and verified anew."""

from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

import trio

from node.ledger.keeper import Keeper
from node.ledger.signal import Signal
from node.ledger.sync import Sync
from node.network.base import Network, NetworkError
from node.storage.ledger import Records
from node.storage.ledger_own import OwnChains
from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId
from protocol.ledger.certificate import Certified, certified_checked
from protocol.ledger.entry import Entry, entry_read
from protocol.ledger.sync import (
    Accounts,
    AskAccounts,
    AskEntries,
    AskHeads,
    AskProofs,
    Entries,
    Proofs,
)
from protocol.limits import CLAIM_SOURCES_MAX, HEADS_MAX

PEERS_WAITING_MAX: Final = 64  # Who has just come; more than that are met in the rounds.
COUNTERPARTIES_MAX: Final = 4096
PROOF_PAGES_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """How fast the audit goes: one peer every so often, and so many entries of it."""

    round_seconds: float = 30
    entries_max: int = 4096  # 1.3 s of signatures.
    accounts_max: int = 4096  # Listed by one peer in a round; the next round goes on there.


@dataclass(frozen=True, slots=True)
class Figures:
    """What the audit has done since the start."""

    rounds: int
    entries: int  # Pulled and found good.
    signatures: int  # Checked in all, those of entries that were pushed to us too.
    faults: dict[Code, int]  # What peers showed that did not hold.


class Audit:
    """Asks one peer after another what it has that we have not."""

    def __init__(self, network: Network, keeper: Keeper, sync: Sync, settings: Settings) -> None:
        self._network, self._keeper, self._sync = network, keeper, sync
        self._settings = settings
        self._came: deque[NodeId] = deque(maxlen=PEERS_WAITING_MAX)
        self._wake = Signal()
        self._last: NodeId | None = None
        self._after = b""
        self._skip: dict[NodeId, int] = {}
        self._rounds = self._entries = 0

    @property
    def figures(self) -> Figures:
        """What was done since the start."""
        keeper = self._keeper
        return Figures(self._rounds, self._entries, keeper.signatures_checked, dict(keeper.faults))

    def connected(self, peer: NodeId) -> None:
        """A peer has come: ask it soon."""
        if peer not in self._came:
            self._came.append(peer)
            self._wake.set()

    async def run(self) -> None:
        """Ask those who come, and one of those who are here every so often, until cancelled."""
        for peer in self._network.peers:
            self.connected(peer)
        while True:
            with trio.move_on_after(self._settings.round_seconds):
                while not self._came:
                    await self._wake.wait()
            chosen = self._came.popleft() if self._came else self._next_peer()
            if chosen is not None:
                await self.survey(chosen)

    async def survey(self, peer: NodeId) -> int:
        """Take what this peer has and we have not, as far as one round goes. How many entries.

        Raises LocalError when the disk fails; what the peer does wrong is counted.
        """
        before = self._entries
        try:
            await self._ask_proofs(peer)
            await self._ask_sources(peer)
            async with aclosing(self._accounts(peer)) as pages:
                async for accounts in pages:
                    for account in await self._behind(peer, accounts):
                        left = self._settings.entries_max - (self._entries - before)
                        if left > 0:
                            self._entries += await self._sync.pull(account, peer, left)
        except (NetworkError, RemoteError) as error:
            await self._sync.blame(peer, error)
        self._rounds += 1
        return self._entries - before

    def _next_peer(self) -> NodeId | None:
        """The connected peer after the last one, in the order of their keys."""
        peers = sorted(self._network.peers)
        last = self._last or b""
        self._last = next((peer for peer in peers if peer > last), peers[0] if peers else None)
        return self._last

    async def _accounts(self, peer: NodeId) -> AsyncGenerator[Sequence[NodeId], None]:
        """Whose chains to ask for: those that concern us, then all that the peer lists."""
        charter = self._keeper.charter
        ours = await self._keeper.store.read(_concerned)
        known = {self._keeper.node, *charter.allocations, *charter.witnesses, *ours}
        for page in _pages(sorted(known)):
            yield page
        listed = 0
        while listed < self._settings.accounts_max:
            answer = await self._sync.ask(peer, AskAccounts(self._after))
            if not isinstance(answer, Accounts):
                raise RemoteError(Code.UNEXPECTED, "A peer answered another question.")
            if list(answer.accounts) != sorted(set(answer.accounts)) or (
                answer.accounts and answer.accounts[0] <= self._after
            ):
                raise RemoteError(Code.UNEXPECTED, "Accounts came out of order.")
            for page in _pages(answer.accounts):
                yield [account for account in page if account not in known]
            listed += len(answer.accounts)
            self._after = answer.accounts[-1] if answer.accounts else b""
            if not self._after:
                return

    async def _behind(self, peer: NodeId, accounts: Sequence[NodeId]) -> Sequence[NodeId]:
        """Those of which the peer has more than we. A head that differs from ours at the same
        seq is taken too: if it holds, it is a breach."""
        if not accounts:
            return []
        answer = await self._sync.ask(peer, AskHeads(tuple(accounts)))
        if not isinstance(answer, Entries):
            raise RemoteError(Code.UNEXPECTED, "A peer answered another question.")
        network = self._keeper.charter.network
        heads = [(one, entry_read(one.entry, network)) for one in answer.entries]

        def work(chains: OwnChains) -> tuple[list[NodeId], list[Certified]]:
            more, rivals = [], []
            for certified, opened in heads:
                ours = chains.account(opened.value.account)
                if opened.value.seq > ours.seq:
                    more.append(opened.value.account)
                elif opened.value.seq == ours.seq and opened.id != ours.head:
                    rivals.append(certified)
            return more, rivals

        more, rivals = await self._keeper.store.read(work)
        for certified in rivals:
            await self._keeper.take(certified)
        return more

    async def _ask_sources(self, peer: NodeId) -> None:
        """Ask for claimed pays of which we have nothing: each names one more chain to follow."""
        missing = await self._keeper.store.read(
            lambda chains: chains.sources_missing(CLAIM_SOURCES_MAX)
        )
        if not missing:
            return
        answer = await self._sync.ask(peer, AskEntries(tuple(missing)))
        if not isinstance(answer, Entries):
            raise RemoteError(Code.UNEXPECTED, "A peer answered another question.")
        for certified in answer.entries:
            opened = certified_checked(certified, self._keeper.charter)
            if opened.id in missing:
                await self._keeper.store.write(partial(_show, certified, opened))

    async def _ask_proofs(self, peer: NodeId) -> None:
        for _ in range(PROOF_PAGES_MAX):
            skip = self._skip.get(peer, 0)
            answer = await self._sync.ask(peer, AskProofs(skip))
            if not isinstance(answer, Proofs):
                raise RemoteError(Code.UNEXPECTED, "A peer answered another question.")
            if not answer.proofs:
                return
            self._skip[peer] = skip + len(answer.proofs)
            if len(self._skip) > COUNTERPARTIES_MAX:
                self._skip.clear()  # Asking for known proofs again costs little.
            for proof in answer.proofs:
                await self._keeper.keep_proof(proof)


def _concerned(chains: OwnChains) -> set[NodeId]:
    """Whom we have dealt with, and whose entries others have claimed."""
    ahead = {account for account, _ in chains.sources_ahead(COUNTERPARTIES_MAX)}
    return {*chains.counterparties(COUNTERPARTIES_MAX), *ahead}


def _show(certified: Certified, opened: Opened[Entry], records: Records) -> None:
    records.show(certified, opened)


def _pages(accounts: Iterable[NodeId]) -> Iterable[Sequence[NodeId]]:
    left = iter(accounts)
    while page := list(islice(left, HEADS_MAX)):
        yield page
