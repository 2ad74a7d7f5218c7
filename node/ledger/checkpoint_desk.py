"""What this node answers about checkpoints: its seal as a witness, the states that it keeps."""

import trio

from node.storage.checkpoints import CheckpointStore
from protocol.errors import Code, RemoteError
from protocol.identity import Identity
from protocol.ids import NodeId
from protocol.ledger.charter import Charter
from protocol.ledger.checkpoint import (
    AskHoldings,
    CheckpointVote,
    HoldingsPage,
    checkpoint_signed,
)
from protocol.ledger.sync import CheckpointAsk


class CheckpointDesk:
    """Signing a checkpoint binds a witness to nothing new: it says what certificates say."""

    def __init__(self, identity: Identity, charter: Charter, store: CheckpointStore) -> None:
        self._identity, self._charter, self.store = identity, charter, store
        self._turn = trio.Lock()

    @property
    def node(self) -> NodeId:
        """This node."""
        return self._identity.node

    async def answer(self, ask: CheckpointAsk) -> CheckpointVote | HoldingsPage:
        """Raises RemoteError NOT_FOUND, and NOT_WITNESS where a seal is asked of a node whose seal
        counts for nothing; LocalError UNAVAILABLE when the disk fails."""
        # A long chain takes a part of a second: whoever asks, one is read at a time.
        async with self._turn:
            return await self._answer(ask)

    async def _answer(self, ask: CheckpointAsk) -> CheckpointVote | HoldingsPage:
        if isinstance(ask, AskHoldings):
            return await self.store.page(ask.account, ask.skip)
        if self._charter.number(self.node) is None:
            raise RemoteError(Code.NOT_WITNESS, "Only a witness's seal under a checkpoint counts.")
        checkpoint = await self.store.statement(ask.account, ask.seq)
        return CheckpointVote(checkpoint_signed(self._identity, checkpoint, self._charter))
