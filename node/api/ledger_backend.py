"""All that the API asks of a node's ledger; a part of `node.api.backend.Backend`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from node.api.audit_views import LedgerAudit
from node.api.channel_views import ChannelLine
from node.api.ledger_views import (
    AccountLine,
    Chain,
    HistoryLine,
    Sent,
    ShownProof,
    Verification,
    Wallet,
)
from protocol.ids import MessageId, NodeId
from protocol.ledger.audit import Depth


class Payment(Struct, frozen=True, kw_only=True):
    """What the owner sends: at least 1 microcredit. `reference` is 32 bytes, all zero for none."""

    to: NodeId
    amount_microcredits: int
    reference: bytes
    wait_ms: int
    """For so long the answer may wait for the certificate; 0 does not wait."""


class LedgerBackend(Protocol):
    """The ledger of one running node. All methods are called from its own trio thread."""

    def wallet(self) -> Wallet: ...

    def channels(self) -> Sequence[ChannelLine]:
        """Channels that are not over; those that this node pays from come first."""

    async def settle(self, channel: MessageId) -> ChannelLine:
        """Settle a channel that pays this node, or ask the payee of one that this node pays from:
        it goes on by itself then, and is asked again where it does not answer.

        Raises LocalError: NOT_FOUND where it is no open channel of this node; UNAVAILABLE where
        the disk fails.
        """

    async def send(self, payment: Payment) -> Sent:
        """Pay somebody. When this returns the payment is on disk.

        Raises LocalError: OVERDRAWN for more than is spendable, whatever the reference;
        BAD_REQUEST for a pay to oneself or below the network's least; HALTED.
        """

    async def history(self, limit: int) -> Sequence[HistoryLine]:
        """Own entries, the newest first, those that wait before all."""

    async def chain(self, account: NodeId, limit: int) -> Chain:
        """The newest entries of an account; none for one that this node has nothing of."""

    async def accounts(self, limit: int) -> Sequence[AccountLine]:
        """Accounts with credits from the genesis or a chain, the largest balance first."""

    async def proofs(self) -> Sequence[ShownProof]:
        """Breaches before contradictions."""

    async def audit(self) -> LedgerAudit:
        """What was verified of the others' chains, and what was found."""

    async def verify(self, depth: Depth) -> Verification:
        """Verify all chains that this node has, from their bytes on."""

    def export(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes of all chains in `protocol.ledger.export`'s form. An iteration that raises
        has given too little, and the answer must break off."""

    async def resume(self, *, override: bool) -> Wallet:
        """The owner has read why: a ledger that halted goes on with the chains that are here, a
        witness that lapsed votes again. With `override` also an account that is restored or
        copied signs again, at its own risk. A repeat changes nothing."""
