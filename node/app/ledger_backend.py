"""What the API asks of a node's ledger, answered by the ledger and the channels."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from node.api import ledger_views as views
from node.api.audit_views import LedgerAudit
from node.api.channel_views import ChannelLine
from node.api.ledger_backend import LedgerBackend, Payment
from node.api.ledger_shown import Showing, reference_text
from node.app import showing_channels, showing_ledger
from node.app.showing_audit import audit_shown
from node.channels.service import Channels
from node.ledger.base import Waiting
from node.ledger.service import NodeLedger
from protocol.errors import Code, LocalError
from protocol.ids import MessageId, NodeId
from protocol.ledger.audit import Depth
from protocol.units import credits_text

PIECE_BYTES: Final = 1 << 16


class OwnLedgerBackend(LedgerBackend):
    """The ledger of one running node, `own`. `folder` takes an export while it is handed on."""

    def __init__(
        self, ledger: NodeLedger, channels: Channels, showing: Showing, own: NodeId, folder: Path
    ) -> None:
        self._ledger, self._channels, self._showing = ledger, channels, showing
        self._own, self._folder = own, folder

    @property
    def _trouble(self) -> views.Trouble:
        journal = self._ledger.journal
        if not self._ledger.trouble:
            return ""
        if journal.halted:
            return "halted"
        if journal.rival:
            return "copied"
        if journal.restored:
            return "restored"
        if self._ledger.twin.seen is not None:
            return "doubled"
        return "lapsed" if self._showing.charter.witnesses else "unwitnessed"

    def wallet(self) -> views.Wallet:
        return showing_ledger.wallet(
            self._ledger, self._channels, self._showing, self._own, trouble=self._trouble
        )

    def channels(self) -> Sequence[ChannelLine]:
        return showing_channels.lines(self._channels, self._showing)

    async def settle(self, channel: MessageId) -> ChannelLine:
        before = [one for one in self._channels.lines() if one.id == channel]
        await self._channels.settle(channel)
        after = [one for one in self._channels.lines() if one.id == channel]
        (shown, *_) = [*after, *before]  # What was settled and claimed at once is over.
        return showing_channels.line(shown, self._showing)

    async def send(self, payment: Payment) -> views.Sent:
        if self._trouble == "halted":
            raise LocalError(Code.HALTED, self._ledger.trouble)
        # The ledger itself lets a payment with a reference pass: that is owed already.
        spendable = self._ledger.standing().spendable
        fee = self._showing.charter.entry_fee
        if payment.amount_microcredits + fee > spendable:
            raise LocalError(
                Code.OVERDRAWN,
                f"{credits_text(payment.amount_microcredits)} credits were to be sent; "
                f"{credits_text(spendable)} can be spent. `ayni wallet` shows why.",
            )
        await self._ledger.pay(payment.to, payment.amount_microcredits, payment.reference)
        with trio.move_on_after(payment.wait_ms / 1000):
            await self._until_certified(payment)
        waiting = self._waiting(payment)
        return views.Sent(
            to=self._showing.party(payment.to),
            amount_microcredits=payment.amount_microcredits,
            reference=reference_text(payment.reference),
            certified=waiting is None,
            waiting=None if waiting is None else showing_ledger.waiting(waiting, self._showing),
        )

    async def _until_certified(self, payment: Payment) -> None:
        while True:
            changed = self._ledger.journal.certified_changed.coming()
            if self._waiting(payment) is None:
                return
            await changed.wait()

    def _waiting(self, payment: Payment) -> Waiting | None:
        """The entry of a payment while it is on its way; one like it stands for it."""
        wanted = (payment.to, payment.amount_microcredits, payment.reference)
        for one in self._ledger.waiting():
            if (one.to, one.amount, one.reference) == wanted:
                return one
        return None

    async def history(self, limit: int) -> Sequence[views.HistoryLine]:
        lines = await self._ledger.views.history(limit)
        return [showing_ledger.history_line(line, self._showing) for line in lines]

    async def chain(self, account: NodeId, limit: int) -> views.Chain:
        charter = self._showing.charter
        lines = {line.account: line for line in await self._ledger.views.accounts()}
        line = lines.get(account)
        seq = 0 if line is None else line.seq
        return views.Chain(
            account=self._showing.party(account),
            seq=seq,
            balance_microcredits=0 if line is None else line.balance,
            allocated_microcredits=charter.allocations.get(account, 0),
            witnesses=len(charter.witnesses),
            quorum=charter.quorum,
            entries=tuple(await self._newest(account, seq, limit)),
        )

    async def _newest(self, account: NodeId, seq: int, limit: int) -> list[views.ShownEntry]:
        """The last entries up to `seq`, the newest first."""
        certified = await self._ledger.views.chain(account, max(1, seq - limit + 1), limit)
        return [self._showing.certified(one) for one in reversed(certified)]

    async def accounts(self, limit: int) -> Sequence[views.AccountLine]:
        lines = await self._ledger.views.accounts()
        richest = sorted(lines, key=lambda line: (-line.balance, line.account))
        return [showing_ledger.account_line(line, self._showing) for line in richest[:limit]]

    async def proofs(self) -> Sequence[views.ShownProof]:
        shown = [self._showing.proof(proof) for proof in await self._ledger.views.proofs()]
        return sorted(shown, key=lambda proof: proof.kind)

    async def audit(self) -> LedgerAudit:
        ledger = self._ledger
        return audit_shown(
            ledger.audited,
            await ledger.coverage(),
            await ledger.pruned(),
            keeps=ledger.keeps,
            proofs=await self.proofs(),
            showing=self._showing,
        )

    async def verify(self, depth: Depth) -> views.Verification:
        return self._showing.verification(await self._ledger.views.verify(depth))

    @asynccontextmanager
    async def export(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """By way of a file, so that a slow reader holds no moment of the store open."""
        with tempfile.TemporaryDirectory(prefix="export-", dir=self._folder) as folder:
            path = Path(folder) / "ledger"
            await self._ledger.views.export(path)
            async with await trio.open_file(path, "rb") as file:
                yield _pieces(file)

    async def resume(self, *, override: bool) -> views.Wallet:
        if self._trouble in ("halted", "lapsed"):
            await self._ledger.resume()
        elif self._trouble and override:
            await self._ledger.override()
        return self.wallet()


async def _pieces(file: Any) -> AsyncIterator[bytes]:
    """Of a file that trio opened."""
    while piece := await file.read(PIECE_BYTES):
        yield piece
