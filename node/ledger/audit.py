"""The continuous audit: what peers have and we have not is taken and verified as it comes, and
random chains are verified anew from the genesis on."""

from dataclasses import dataclass
from typing import Literal

import trio

from node.ledger import catchup, spotcheck
from node.ledger.catchup import Adopt, CatchUp
from node.ledger.keeper import Keeper
from node.ledger.spotcheck import Around, SpotChecks
from node.ledger.sync import Sync
from node.network.base import Network
from node.storage.audits import Coverage
from protocol.errors import Code
from protocol.ids import NodeId

Keeps = Literal["all", "recent", "own"]
"""Whole chains of everybody; everybody's from their checkpoints on; this node's own, its channels
and all proofs."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The pace of the two halves."""

    round_seconds: float = 30  # Between two rounds of catching up, while nothing is behind.
    entries_per_second: int = 2_000  # Of catching up: 0.6 of a core at the most.
    check_seconds: float = 60  # Between two chains that are verified anew.
    checked_per_second: int = 100  # Entries of those: 2 % of a core.
    only_own: bool = False  # A light node keeps its own chain, channels and proofs, no more.


@dataclass(frozen=True, slots=True)
class Figures:
    """What the audit has done since the start."""

    rounds: int
    entries: int  # Pulled and found good.
    checks: int  # Chains verified anew.
    entries_checked: int
    signatures: int  # Checked in all, those of entries that were pushed to us too.
    faults: dict[Code, int]  # What peers showed that did not hold.
    is_behind: bool  # Peers have more than we, and it is being taken.
    pages_at_once: int  # Held at the same time, at the most.


class Audit:
    """Asks one peer after another what it has, and whether it holds."""

    def __init__(
        self,
        network: Network,
        keeper: Keeper,
        sync: Sync,
        around: Around,
        *,
        adopt: Adopt,
        settings: Settings,
    ) -> None:
        self._keeper, self._findings = keeper, around.findings
        pace = catchup.Settings(
            round_seconds=settings.round_seconds,
            entries_per_second=settings.entries_per_second,
            only_own=settings.only_own,
        )
        self.catching_up = CatchUp(network, keeper, sync, adopt, pace)
        checking = spotcheck.Settings(settings.check_seconds, settings.checked_per_second)
        self.checks = SpotChecks(network, keeper, sync, around, checking)

    @property
    def figures(self) -> Figures:
        """What was done since the start."""
        keeper, catching_up, checks = self._keeper, self.catching_up, self.checks
        return Figures(
            catching_up.rounds,
            catching_up.entries,
            checks.checks,
            checks.entries,
            keeper.signatures_checked + checks.signatures,
            dict(keeper.faults),
            catching_up.is_behind,
            catching_up.pages_at_once,
        )

    async def coverage(self) -> Coverage:
        """How much has been audited, and what was found last. Raises LocalError UNAVAILABLE when
        the disk fails."""
        return await self._findings.coverage()

    def connected(self, peer: NodeId) -> None:
        """A peer has come: ask it soon."""
        self.catching_up.connected(peer)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.catching_up.run)
            nursery.start_soon(self.checks.run)
