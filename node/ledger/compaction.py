"""Compaction: has witnesses seal what long chains add up to, and prunes what is before it; and
goes on from such a checkpoint where the entries before it are nowhere to be had."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from node.ledger.checkpoint_desk import CheckpointDesk
from node.ledger.pace import Pace
from node.ledger.sync import Sync
from node.network.base import NetworkError
from node.storage.checkpoints import PRUNED_AT_ONCE
from node.telemetry.logs import Log
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId, short
from protocol.ledger.account import Account
from protocol.ledger.certificate import Seal, certified_checked
from protocol.ledger.charter import Charter
from protocol.ledger.checkpoint import (
    AskCheckpoint,
    AskHoldings,
    Checkpoint,
    Checkpointed,
    CheckpointVote,
    Holding,
    HoldingsPage,
    checkpoint_seal,
    checkpointed_checked,
    checkpointed_made,
    holdings_checked,
)
from protocol.ledger.sync import Answer, AskRange, Entries
from protocol.limits import CHECKPOINT_HOLDINGS_MAX, RANGE_ENTRIES_MAX

CHAINS_AT_ONCE: Final = 64  # In one round.
PRUNED_PER_SECOND: Final = 2_000  # Entries: others write meanwhile.

_log = Log("ledger")


@dataclass(frozen=True, slots=True)
class Settings:
    """Whether this node prunes, and how often it looks."""

    is_on: bool = False
    round_seconds: float = 3600
    entries_min: int = 1024  # A chain is pruned when it has grown by so much: 700 KB.


class Compaction:
    """Checkpoints of all chains but our own, which stays whole."""

    def __init__(
        self, desk: CheckpointDesk, charter: Charter, sync: Sync, settings: Settings
    ) -> None:
        self._desk, self._store, self._charter = desk, desk.store, charter
        self._sync, self._settings = sync, settings
        self._pace = Pace(PRUNED_PER_SECOND)

    async def run(self) -> None:
        """Prune what has grown, until cancelled; nothing where it is off."""
        while self._settings.is_on:
            await self.compact()
            await trio.sleep(self._settings.round_seconds)
        await trio.sleep_forever()

    async def compact(self) -> int:
        """One round; how many chains were pruned. Raises LocalError when the disk fails."""
        done = 0
        for account in await self._store.due(self._settings.entries_min, CHAINS_AT_ONCE):
            kept = await self._store.kept(account.account)
            if kept is None or kept.pruned == kept.checkpointed.checkpoint.seq:
                checkpointed = await self._sealed(account)
                if checkpointed is None:
                    continue
                await self._store.keep(checkpointed)
            await self._pruned(account.account)
            done += 1
        return done

    async def _sealed(self, account: Account) -> Checkpointed | None:
        """The checkpoint of a chain as it is here; None while fewer than q witnesses seal it."""
        try:
            checkpoint = await self._store.statement(account.account, account.seq)
        except RemoteError:
            return None  # It holds more than a checkpoint can show.
        seals: list[Seal] = []
        async with trio.open_nursery() as nursery:
            for witness in self._charter.witnesses:
                nursery.start_soon(self._ask, witness, checkpoint, seals)
        return checkpointed_made(checkpoint, seals, self._charter)

    async def _ask(self, witness: NodeId, checkpoint: Checkpoint, seals: list[Seal]) -> None:
        ask = AskCheckpoint(checkpoint.account, checkpoint.seq)
        try:
            answer: Answer
            if witness == self._desk.node:
                answer = await self._desk.answer(ask)
            else:
                answer = await self._sync.ask(witness, ask)
            if isinstance(answer, CheckpointVote):
                seals.append(checkpoint_seal(answer.vote, checkpoint, self._charter))
        except (NetworkError, RemoteError) as error:
            # It may lack the newest entries: the next round asks again.
            code = error.code if isinstance(error, RemoteError) else "LOST"
            _log.debug("ledger.no_checkpoint", witness=short(witness), code=code)

    async def _pruned(self, account: NodeId) -> None:
        after = await self._store.prune(account, 0)
        while after:
            await self._pace.spend(PRUNED_AT_ONCE)
            after = await self._store.prune(account, after)
        _log.info("ledger.pruned", account=short(account))

    # Where a chain's beginning is nowhere to be had.

    async def adopt(self, account: NodeId, peer: NodeId) -> bool:
        """Go on from the checkpoint that a peer has of a chain; whether there is one, and it is
        beyond what is here.

        Raises NetworkError; RemoteError for what does not hold.
        """
        shown = await self._shown(account, peer)
        if shown is None:
            return False
        checkpointed, holdings = shown
        holdings_checked(checkpointed, holdings, self._charter)
        if not await self._store.adopt(checkpointed, holdings):
            return False
        await self._fill(checkpointed.checkpoint, peer)
        return True

    async def _shown(
        self, account: NodeId, peer: NodeId
    ) -> tuple[Checkpointed, Sequence[Holding]] | None:
        holdings: list[Holding] = []
        first: Checkpointed | None = None
        while len(holdings) <= CHECKPOINT_HOLDINGS_MAX:
            page = await self._asked(peer, AskHoldings(account, len(holdings)))
            if page is None:
                return None
            if first is None:
                if page.checkpointed.checkpoint.account != account:
                    raise RemoteError(Code.UNEXPECTED, "Another account's checkpoint came.")
                checkpointed_checked(page.checkpointed, self._charter)
                first = page.checkpointed
            if page.checkpointed.checkpoint != first.checkpoint:
                return None  # It has moved on meanwhile; the next round takes that one.
            if not page.holdings:
                return first, holdings
            holdings.extend(page.holdings)
        raise RemoteError(Code.TOO_LARGE, "No checkpoint has so many holdings.")

    async def _asked(self, peer: NodeId, ask: AskHoldings) -> HoldingsPage | None:
        try:
            answer = await self._sync.ask(peer, ask)
        except RemoteError as error:
            if error.code is Code.NOT_FOUND:
                return None
            raise
        if not isinstance(answer, HoldingsPage):
            raise RemoteError(Code.UNEXPECTED, "A peer answered another question.")
        return answer

    async def _fill(self, checkpoint: Checkpoint, peer: NodeId) -> None:
        """What is still needed of the entries before it, and the head."""
        seq = 1
        while seq <= checkpoint.seq:
            page = await self._sync.ask(peer, AskRange(checkpoint.account, seq, RANGE_ENTRIES_MAX))
            if not isinstance(page, Entries):
                raise RemoteError(Code.UNEXPECTED, "A peer answered another question.")
            opened = [(one, certified_checked(one, self._charter)) for one in page.entries]
            seqs = [one.value.seq for _, one in opened]
            if any(one.value.account != checkpoint.account for _, one in opened) or (
                seqs != sorted(set(seqs)) or (seqs and seqs[0] < seq)
            ):
                raise RemoteError(Code.UNEXPECTED, "Entries came out of order.")
            before = [one for one in opened if one[1].value.seq <= checkpoint.seq]
            await self._store.fill(before)
            await self._sync.heed([certified for certified, _ in before])
            if not seqs:
                return
            seq = seqs[-1] + 1
