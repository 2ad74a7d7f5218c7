"""Spot checks: a random account, pulled from several peers and verified from the genesis on.

What is here was verified when it came. This finds what that cannot: peers that show others other
chains, a disk that has lost or changed what it held, and certificates for two rival entries.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from node.ledger.keeper import Keeper
from node.ledger.pace import Pace
from node.ledger.sync import Sync
from node.network.base import Network, NetworkError
from node.storage.audits import HOLDS, AuditStore, Finding
from node.storage.ledger_own import OwnChains
from node.telemetry.logs import Log
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId, short
from protocol.ledger.certificate import Certified, certified_checked
from protocol.ledger.chain_audit import ChainAudit
from protocol.ledger.entry import entry_opened
from protocol.ledger.proof import breach_made, contradiction_made
from protocol.ledger.sync import AskHeads, AskRange, Entries
from protocol.limits import KEY_BYTES

PEERS_ASKED_MAX: Final = 4
PAGE_ENTRIES: Final = 128  # 25 ms of signatures in one go.
ENTRIES_CHECKED_MAX: Final = 1 << 16  # Of one account: what it has claimed is held meanwhile.

_log = Log("ledger")


@dataclass(frozen=True, slots=True)
class Settings:
    """How often, and how fast."""

    check_seconds: float = 60
    entries_per_second: int = 100  # 2 % of a core.


@dataclass(frozen=True, slots=True)
class Around:
    """What it has beside the ledger: where findings go, chance, and wall time in milliseconds."""

    findings: AuditStore
    random_bytes: Callable[[int], bytes]
    wall_ms: Callable[[], int]


@dataclass(frozen=True, slots=True)
class _Head:
    certified: Certified
    id: MessageId
    seq: int


class _Fault(Exception):
    """What a peer showed does not hold, or is at odds with what others show."""

    def __init__(self, peer: NodeId, shown: Certified, error: RemoteError) -> None:
        super().__init__(error.sentence)
        self.peer, self.shown, self.error = peer, shown, error


class SpotChecks:
    """Checks one account after another, at a bounded rate."""

    def __init__(
        self, network: Network, keeper: Keeper, sync: Sync, around: Around, settings: Settings
    ) -> None:
        self._network, self._keeper, self._sync = network, keeper, sync
        self._around, self._settings = around, settings
        self._pace = Pace(settings.entries_per_second)
        self.entries = self.checks = self.signatures = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(self._settings.check_seconds)
            account = await self._chosen()
            if account is not None:
                await self.check(account)

    async def check(self, account: NodeId) -> Finding | None:
        """Check one account; None where no peer has anything of it. Raises LocalError when the
        disk fails."""
        heads = await self._heads(account)
        if not heads:
            return None
        chain = ChainAudit(account, self._keeper.charter)
        code, sentence = HOLDS, ""
        try:
            await self._walk(chain, heads)
        except _Fault as fault:
            code, sentence = fault.error.code.value, fault.error.sentence
            await self._prove(fault)
            await self._sync.blame(fault.peer, fault.error)
        self.signatures += chain.signatures
        at_ms = self._around.wall_ms()
        finding = Finding(account, chain.state.seq, len(heads), code, sentence, at_ms)
        await self._around.findings.keep(finding)
        self.checks += 1
        _log.info("ledger.audited", account=short(account), entries=finding.seq, code=code)
        return finding

    async def _chosen(self) -> NodeId | None:
        """Any account of others with entries here: the first one after a random key."""
        after = self._around.random_bytes(KEY_BYTES)

        def work(chains: OwnChains) -> NodeId | None:
            near = [one.account for start in (after, b"") for one in chains.accounts(start, 2)]
            return next((account for account in near if account != self._keeper.node), None)

        return await self._keeper.store.read(work)

    async def _heads(self, account: NodeId) -> dict[NodeId, _Head]:
        """What a few random peers show as the account's head, all its signatures checked."""
        by_chance = sorted((self._around.random_bytes(8), peer) for peer in self._network.peers)
        heads: dict[NodeId, _Head] = {}
        for _, peer in by_chance[:PEERS_ASKED_MAX]:
            try:
                answer = await self._sync.ask(peer, AskHeads((account,)))
                for certified in answer.entries if isinstance(answer, Entries) else ():
                    opened = certified_checked(certified, self._keeper.charter)
                    if opened.value.account != account:
                        raise RemoteError(Code.UNEXPECTED, "Another account's head came.")
                    heads[peer] = _Head(certified, opened.id, opened.value.seq)
            except (NetworkError, RemoteError) as error:
                await self._sync.blame(peer, error)
        return heads

    async def _walk(self, chain: ChainAudit, heads: Mapping[NodeId, _Head]) -> None:
        """Verify the chain from its first entry, each page from the next peer in turn. Raises
        _Fault."""
        serving = deque(sorted(heads))
        last = min(max(head.seq for head in heads.values()), ENTRIES_CHECKED_MAX)
        while serving and (first_seq := chain.state.seq + 1) <= last:
            peer = serving.popleft()
            if heads[peer].seq < first_seq:
                continue
            page = await self._page(peer, chain.state.account, first_seq)
            if not page:
                continue
            work = partial(self._added, chain, peer, page, heads)
            fault = await self._keeper.store.read(work)
            self.entries += chain.state.seq + 1 - first_seq
            if fault is not None:
                raise fault
            serving.append(peer)
            await self._pace.spend(len(page))

    async def _page(self, peer: NodeId, account: NodeId, first_seq: int) -> Sequence[Certified]:
        try:
            page = await self._sync.ask(peer, AskRange(account, first_seq, PAGE_ENTRIES))
            if not isinstance(page, Entries):
                raise RemoteError(Code.UNEXPECTED, "A peer answered another question.")
        except (NetworkError, RemoteError) as error:
            await self._sync.blame(peer, error)
            return ()
        return page.entries

    def _added(
        self,
        chain: ChainAudit,
        peer: NodeId,
        page: Sequence[Certified],
        heads: Mapping[NodeId, _Head],
        chains: OwnChains,
    ) -> _Fault | None:
        """Verify a page, and compare it with what is here and with the other peers' heads."""
        for certified in page:
            try:
                opened = chain.add(certified)
                seq = opened.value.seq
                ours = chains.certified(chain.state.account, seq)
                if ours is not None and ours.entry.id != opened.id:
                    raise RemoteError(
                        Code.UNEXPECTED, f"Entry {seq} of this account is another one here."
                    )
            except RemoteError as error:
                return _Fault(peer, certified, error)
            for other, head in heads.items():
                if head.seq == seq and head.id != opened.id:
                    sentence = f"Two peers show two heads at seq {seq}."
                    return _Fault(other, head.certified, RemoteError(Code.UNEXPECTED, sentence))
        return None

    async def _prove(self, fault: _Fault) -> None:
        """Make of it what can be proven: two certificates are a breach, which halts; two entries
        with the account's signature a contradiction."""
        shown, charter = fault.shown, self._keeper.charter
        try:
            entry = entry_opened(shown.entry, charter.network).value
        except RemoteError:
            return  # The account never signed it: the peer alone is to blame.

        def near(chains: OwnChains) -> list[Certified]:
            places = (entry.seq, entry.seq - 1)
            found = [chains.certified(entry.account, seq) for seq in places if seq > 0]
            return [one for one in found if one is not None and one.entry.id != shown.entry.id]

        ours = await self._keeper.store.read(near)
        for suspects in [(shown,), *((one, shown) for one in ours)]:
            breach = breach_made(suspects, charter)
            if breach is not None:
                await self._keeper.keep_proof(breach)
                return
        for one in ours:
            contradiction = contradiction_made(one.entry, shown.entry, charter)
            if contradiction is not None:
                await self._keeper.keep_proof(contradiction)
                return
