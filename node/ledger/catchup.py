"""Catching up: heads exchanged with peers, and the chains behind them pulled from several at once.

Nothing here is kept for later: what this node lacks follows from its own store and the peers'
heads, so a catching up that was cut goes on where it was. Its memory is one page for each peer
that it pulls from and a bounded list of accounts; its pace is bounded too, so that the node stays
usable meanwhile.
"""

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

import trio

from node.ledger.keeper import Keeper
from node.ledger.pace import Pace
from node.ledger.signal import Signal
from node.ledger.sync import Sync
from node.network.base import Network, NetworkError
from node.storage.ledger import Records
from node.storage.ledger_own import OwnChains
from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.certificate import Certified, certified_checked
from protocol.ledger.entry import Entry, entry_read
from protocol.ledger.sync import (
    Accounts,
    AskAccounts,
    AskEntries,
    AskHeads,
    AskProofs,
    AskSettlement,
    Entries,
    Proofs,
    Settled,
)
from protocol.limits import CLAIM_SOURCES_MAX, HEADS_MAX

PEERS_WAITING_MAX: Final = 64  # Who has just come; more than that are met in the rounds.
COUNTERPARTIES_MAX: Final = 4096
PROOF_PAGES_MAX: Final = 4
BEHIND_MAX: Final = 4096  # Accounts to pull in one round: half a MiB; the next round has the rest.
CURSORS_MAX: Final = 4096
GATHER_SECONDS: Final = 0.5  # Peers come together, at a start: so long those who follow are met.
SETTLEMENTS_ASKED_MAX: Final = 64  # Of one peer in a round.


@dataclass(frozen=True, slots=True)
class Settings:
    """How far one round goes, and how fast."""

    round_seconds: float = 30  # Between rounds while nothing is behind.
    accounts_max: int = 4096  # Listed by one peer in a round; the next round goes on there.
    peers_at_once: int = 4
    entries_per_second: int = 2_000  # 0.6 of a core at the most.
    only_own: bool = False  # A light node follows its own chain and takes proofs, no more.


Adopt = Callable[[NodeId, NodeId], Awaitable[bool]]
"""Go on from the checkpoint of an account that a peer shows; whether it led further."""


@dataclass(eq=False, slots=True)
class _Behind:
    """Chains of which peers have more than we; no two pullers work at one."""

    seqs: dict[NodeId, int] = field(default_factory=dict)
    holders: dict[NodeId, set[NodeId]] = field(default_factory=dict)
    has_more: bool = False
    """Whether there is something that no peer of this round brings."""

    @property
    def is_full(self) -> bool:
        return len(self.seqs) >= BEHIND_MAX

    def add(self, account: NodeId, seq: int, peer: NodeId) -> None:
        if account not in self.seqs and self.is_full:
            self.has_more = True
            return
        self.seqs[account] = max(seq, self.seqs.get(account, 0))
        self.holders.setdefault(account, set()).add(peer)

    def take(self, peer: NodeId) -> tuple[NodeId, int, set[NodeId]] | None:
        """One that this peer can serve, and who else could."""
        account = next((one for one, peers in self.holders.items() if peer in peers), None)
        if account is None:
            return None
        return account, self.seqs.pop(account), self.holders.pop(account) - {peer}

    def give_back(self, account: NodeId, seq: int, others: set[NodeId]) -> None:
        """This peer did not bring it to its end; others may."""
        if others:
            self.seqs[account], self.holders[account] = seq, others
        else:
            self.has_more = True


class CatchUp:
    """Asks peers what they have that we have not, and takes it."""

    def __init__(
        self, network: Network, keeper: Keeper, sync: Sync, adopt: Adopt, settings: Settings
    ) -> None:
        self._network, self._keeper, self._sync = network, keeper, sync
        self._adopt, self._settings = adopt, settings
        self._pace = Pace(settings.entries_per_second)
        self._came: deque[NodeId] = deque(maxlen=PEERS_WAITING_MAX)
        self._wake = Signal()
        self._last: NodeId | None = None
        self._after: dict[NodeId, bytes] = {}
        self._skip: dict[NodeId, int] = {}
        self._pulling = 0
        self.rounds = self.entries = 0
        self.pages_at_once = 0
        """How many pages were held at the same time at the most."""
        self.is_behind = False
        """Whether the last round left something that peers have and we have not."""

    def connected(self, peer: NodeId) -> None:
        """A peer has come: ask it soon."""
        if peer not in self._came:
            self._came.append(peer)
            self._wake.set()

    async def run(self) -> None:
        """Ask those who come, and those who are here in turns, until cancelled."""
        for peer in self._network.peers:
            self.connected(peer)
        while True:
            if not self.is_behind:
                with trio.move_on_after(self._settings.round_seconds):
                    while not self._came:
                        await self._wake.wait()
                if len(self._came) < self._settings.peers_at_once:
                    await trio.sleep(GATHER_SECONDS)
            await self.survey(self._chosen())

    async def survey(self, peers: Sequence[NodeId]) -> int:
        """Take what these peers have and we have not, as far as one round goes. How many entries.

        Raises LocalError when the disk fails; what a peer does wrong is counted.
        """
        before, behind = self.entries, _Behind()
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(self._compare, peer, behind)
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(self._pull, peer, behind)
        self.rounds += 1
        taken = self.entries - before
        # Without progress there is nothing to hurry for: those peers have no more than they say.
        self.is_behind = taken > 0 and (behind.has_more or bool(behind.seqs))
        return taken

    def _chosen(self) -> Sequence[NodeId]:
        """Those who came, else the next in turn: one while we are up to date, more behind."""
        peers_max = self._settings.peers_at_once
        chosen = list(islice(self._came, peers_max))
        for peer in chosen:
            self._came.remove(peer)
        count = peers_max if self.is_behind else int(not chosen)
        while len(chosen) < count:
            following = self._next_peer()
            if following is None or following in chosen:
                break
            chosen.append(following)
        return chosen

    def _next_peer(self) -> NodeId | None:
        """The connected peer after the last one, in the order of their keys."""
        peers = sorted(self._network.peers)
        last = self._last or b""
        self._last = next((peer for peer in peers if peer > last), peers[0] if peers else None)
        return self._last

    async def _compare(self, peer: NodeId, behind: _Behind) -> None:
        """What this peer has more than we."""
        try:
            await self._ask_proofs(peer)
            if not self._settings.only_own:
                await self._ask_sources(peer)
                await self._ask_settlements(peer)
            async with aclosing(self._accounts(peer, behind)) as pages:
                async for accounts in pages:
                    for account, seq in await self._more(peer, accounts):
                        behind.add(account, seq, peer)
        except (NetworkError, RemoteError) as error:
            await self._sync.blame(peer, error)

    async def _pull(self, peer: NodeId, behind: _Behind) -> None:
        while (chosen := behind.take(peer)) is not None:
            account, seq, others = chosen
            is_whole = False
            try:
                is_whole = await self._pull_one(peer, account, seq)
                # Its beginning may be pruned everywhere; before that is believed all are asked.
                if not is_whole and not others and await self._adopt(account, peer):
                    is_whole = await self._pull_one(peer, account, seq)
            except (NetworkError, RemoteError) as error:
                await self._sync.blame(peer, error)
                return
            finally:
                if not is_whole:
                    behind.give_back(account, seq, others)

    async def _pull_one(self, peer: NodeId, account: NodeId, seq: int) -> bool:
        """Take a chain, page by page, up to this seq; False where the peer has less of it."""
        while True:
            self._pulling += 1
            self.pages_at_once = max(self.pages_at_once, self._pulling)
            try:
                new, reached = await self._sync.pull_page(account, peer)
            finally:
                self._pulling -= 1
            self.entries += new
            if reached >= seq or not new:
                return reached >= seq
            await self._pace.spend(new)

    async def _accounts(
        self, peer: NodeId, behind: _Behind
    ) -> AsyncGenerator[Sequence[NodeId], None]:
        """Whose chains to ask for: those that concern us, then all that the peer lists."""
        charter = self._keeper.charter
        if self._settings.only_own:
            yield [self._keeper.node]
            return
        ours = await self._keeper.store.read(_concerned)
        known = {self._keeper.node, *charter.allocations, *charter.witnesses, *ours}
        for page in _pages(sorted(known)):
            yield page
        listed = 0
        while listed < self._settings.accounts_max and not behind.is_full:
            after = self._after.get(peer, b"")
            answer = await self._sync.ask(peer, AskAccounts(after))
            if not isinstance(answer, Accounts):
                raise RemoteError(Code.UNEXPECTED, "A peer answered another question.")
            if list(answer.accounts) != sorted(set(answer.accounts)) or (
                answer.accounts and answer.accounts[0] <= after
            ):
                raise RemoteError(Code.UNEXPECTED, "Accounts came out of order.")
            for page in _pages(answer.accounts):
                yield [account for account in page if account not in known]
            listed += len(answer.accounts)
            _remember(self._after, peer, answer.accounts[-1] if answer.accounts else b"")
            if not answer.accounts:
                return

    async def _more(self, peer: NodeId, accounts: Sequence[NodeId]) -> list[tuple[NodeId, int]]:
        """Those of which the peer has more than we, and up to where. A head that differs from ours
        at the same seq is taken at once: if it holds, it is a breach."""
        if not accounts:
            return []
        answer = await self._sync.ask(peer, AskHeads(tuple(accounts)))
        if not isinstance(answer, Entries):
            raise RemoteError(Code.UNEXPECTED, "A peer answered another question.")
        network = self._keeper.charter.network
        heads = [(one, entry_read(one.entry, network)) for one in answer.entries]

        def work(chains: OwnChains) -> tuple[list[tuple[NodeId, int]], list[Certified]]:
            more, rivals = [], []
            for certified, opened in heads:
                ours = chains.account(opened.value.account)
                if opened.value.seq > ours.seq:
                    more.append((opened.value.account, opened.value.seq))
                elif opened.value.seq == ours.seq and opened.id != ours.head:
                    rivals.append(certified)
            return more, rivals

        more, rivals = await self._keeper.store.read(work)
        for certified in rivals:
            await self._keeper.take(certified)
        return more

    async def _ask_sources(self, peer: NodeId) -> None:
        """Ask for claimed entries of which we have nothing: each names one more chain to follow."""
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

    async def _ask_settlements(self, peer: NodeId) -> None:
        """Ask how channels were settled of which shares were claimed here."""

        def work(chains: OwnChains) -> list[tuple[MessageId, Certified]]:
            missing = chains.settlements_missing(SETTLEMENTS_ASKED_MAX)
            found = [(channel, chains.certified_by_id(channel)) for channel in missing]
            return [(channel, shown) for channel, shown in found if shown is not None]

        for channel, shown in await self._keeper.store.read(work):
            try:
                answer = await self._sync.ask(peer, AskSettlement(channel))
            except RemoteError as error:
                if error.code is Code.NOT_FOUND:
                    continue
                raise
            if not isinstance(answer, Settled):
                raise RemoteError(Code.UNEXPECTED, "A peer answered another question.")
            if answer.settlement.channel != channel:
                raise RemoteError(Code.UNEXPECTED, "Another channel's settlement came.")
            await self._keeper.take_settlement(answer.settlement, shown, peer)

    async def _ask_proofs(self, peer: NodeId) -> None:
        for _ in range(PROOF_PAGES_MAX):
            skip = self._skip.get(peer, 0)
            answer = await self._sync.ask(peer, AskProofs(skip))
            if not isinstance(answer, Proofs):
                raise RemoteError(Code.UNEXPECTED, "A peer answered another question.")
            if not answer.proofs:
                return
            _remember(self._skip, peer, skip + len(answer.proofs))
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


def _remember(cursors: dict[NodeId, int] | dict[NodeId, bytes], peer: NodeId, at: object) -> None:
    """Where to go on with a peer. Beyond the bound all are forgotten: asking again costs little."""
    if peer not in cursors and len(cursors) >= CURSORS_MAX:
        cursors.clear()
    cursors[peer] = at  # type: ignore[assignment]
