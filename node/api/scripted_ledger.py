"""A ledger that plays a script: its numbers move as a real one's, nothing is signed."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from msgspec.structs import replace

from node.api.audit_views import LedgerAudit
from node.api.channel_views import ChannelLine
from node.api.ledger_backend import Payment
from node.api.ledger_shown import reference_text
from node.api.ledger_views import (
    AccountLine,
    Chain,
    HistoryLine,
    Party,
    Sent,
    ShownProof,
    Verification,
    Waiting,
    Wallet,
)
from protocol.errors import AyniError, Code, LocalError
from protocol.ids import MessageId, NodeId, node_text
from protocol.ledger.audit import Depth
from protocol.units import credits_text


def _empty_wallet() -> Wallet:
    return Wallet(
        account=Party(node_text(NodeId(bytes(32)))),
        ready=True,
        seq=0,
        balance_microcredits=0,
        pending_microcredits=0,
        reserved_microcredits=0,
        spendable_microcredits=0,
        claimable_microcredits=0,
        witnesses=0,
        quorum=1,
    )


def _empty_verification() -> Verification:
    return Verification(
        network="",
        depth="full",
        ok=True,
        complete=True,
        accounts=0,
        entries=0,
        signatures=0,
        supply_microcredits=0,
        balances_microcredits=0,
        pays_unclaimed_microcredits=0,
        channels_microcredits=0,
        fees_microcredits=0,
        total_microcredits=0,
        balances=(),
        faults_count=0,
        faults=(),
    )


def _empty_audit() -> LedgerAudit:
    return LedgerAudit(
        keeps="all",
        is_behind=False,
        accounts=0,
        accounts_audited=0,
        entries=0,
        entries_audited=0,
        entries_pulled=0,
        signatures=0,
        faults={},
        checkpoints=0,
        entries_pruned=0,
        findings=(),
        proofs=(),
    )


@dataclass
class ScriptedLedger:
    """What it shows is what a test puts here. A pay is certified at once unless `silent` names
    witnesses; then it waits for them. `file` is an export in pieces, and an error among them
    breaks it off. `asked` are the payments, the depths and the words of the owner so far."""

    purse: Wallet = field(default_factory=_empty_wallet)
    lines: Sequence[HistoryLine] = ()
    chains: Sequence[Chain] = ()
    proven: Sequence[ShownProof] = ()
    verified: Verification = field(default_factory=_empty_verification)
    audited: LedgerAudit = field(default_factory=_empty_audit)
    file: Sequence[bytes | AyniError] = ()
    silent: tuple[Party, ...] = ()
    asked: list[Payment | Depth | bool | MessageId] = field(default_factory=list)
    channel_lines: Sequence[ChannelLine] = ()

    def wallet(self) -> Wallet:
        return self.purse

    def channels(self) -> Sequence[ChannelLine]:
        return self.channel_lines

    async def settle(self, channel: MessageId) -> ChannelLine:
        await trio.lowlevel.checkpoint()
        self.asked.append(channel)
        for line in self.channel_lines:
            if line.channel == channel.hex():
                settling = replace(line, state="settling")
                others = [one for one in self.channel_lines if one is not line]
                self.channel_lines = (*others, settling)
                return settling
        raise LocalError(Code.NOT_FOUND, f"There is no channel {channel.hex()[:16]}.")

    async def send(self, payment: Payment) -> Sent:
        await trio.lowlevel.checkpoint()
        self.asked.append(payment)
        purse, amount, to = self.purse, payment.amount_microcredits, Party(node_text(payment.to))
        if purse.trouble == "halted":
            raise LocalError(Code.HALTED, purse.sentence)
        if to.node == purse.account.node:
            raise LocalError(Code.BAD_REQUEST, "An account cannot pay itself.")
        if amount > purse.spendable_microcredits:
            there = credits_text(purse.spendable_microcredits)
            raise LocalError(
                Code.OVERDRAWN,
                f"{credits_text(amount)} credits were to be sent; {there} can be spent.",
            )
        spendable = purse.spendable_microcredits - amount
        if self.silent:
            return self._waits(payment, to, replace(purse, spendable_microcredits=spendable))
        balance = purse.balance_microcredits - amount
        self.purse = replace(
            purse,
            seq=purse.seq + 1,
            balance_microcredits=balance,
            spendable_microcredits=spendable,
        )
        return Sent(
            to=to,
            amount_microcredits=amount,
            reference=reference_text(payment.reference),
            certified=True,
        )

    def _waits(self, payment: Payment, to: Party, purse: Wallet) -> Sent:
        amount, reference = payment.amount_microcredits, reference_text(payment.reference)
        waiting = Waiting(
            seq=purse.seq + len(purse.waiting) + 1,
            kind="pay",
            amount_microcredits=amount,
            to=to,
            reference=reference,
            seals=max(0, min(purse.quorum - 1, purse.witnesses - len(self.silent))),
            quorum=purse.quorum,
            silent=self.silent,
        )
        self.purse = replace(
            purse,
            pending_microcredits=purse.pending_microcredits + amount,
            waiting=(*purse.waiting, waiting),
        )
        return Sent(
            to=to,
            amount_microcredits=amount,
            reference=reference,
            certified=False,
            waiting=waiting,
        )

    async def history(self, limit: int) -> Sequence[HistoryLine]:
        await trio.lowlevel.checkpoint()
        return self.lines[:limit]

    async def chain(self, account: NodeId, limit: int) -> Chain:
        await trio.lowlevel.checkpoint()
        for chain in self.chains:
            if chain.account.node == node_text(account):
                return replace(chain, entries=chain.entries[:limit])
        return Chain(
            account=Party(node_text(account)),
            seq=0,
            balance_microcredits=0,
            allocated_microcredits=0,
            witnesses=self.purse.witnesses,
            quorum=self.purse.quorum,
            entries=(),
        )

    async def accounts(self, limit: int) -> Sequence[AccountLine]:
        await trio.lowlevel.checkpoint()
        lines = [
            AccountLine(
                account=chain.account,
                seq=chain.seq,
                balance_microcredits=chain.balance_microcredits,
            )
            for chain in self.chains
        ]
        return sorted(lines, key=lambda line: -line.balance_microcredits)[:limit]

    async def proofs(self) -> Sequence[ShownProof]:
        await trio.lowlevel.checkpoint()
        return self.proven

    async def audit(self) -> LedgerAudit:
        await trio.lowlevel.checkpoint()
        return self.audited

    async def verify(self, depth: Depth) -> Verification:
        await trio.lowlevel.checkpoint()
        self.asked.append(depth)
        return replace(self.verified, depth=depth.value)

    @asynccontextmanager
    async def export(self) -> AsyncIterator[AsyncIterator[bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            for piece in self.file:
                await trio.lowlevel.checkpoint()
                if isinstance(piece, AyniError):
                    raise piece
                yield piece

        yield pieces()

    async def resume(self, *, override: bool) -> Wallet:
        await trio.lowlevel.checkpoint()
        self.asked.append(override)
        if self.purse.trouble in ("halted", "lapsed") or (
            override and self.purse.trouble in ("restored", "copied")
        ):
            self.purse = replace(self.purse, trouble="", sentence="", remedy="", ready=True)
        return self.purse
