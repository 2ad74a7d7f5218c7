"""Where a chain in an export begins at a checkpoint: its frames, and the state to go on from."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from protocol.errors import Code, RemoteError
from protocol.ids import NodeId
from protocol.ledger.account import Account
from protocol.ledger.certificate import Certified
from protocol.ledger.charter import Charter
from protocol.ledger.checkpoint import Checkpointed, Holding, Holdings, holdings_checked
from protocol.limits import CHECKPOINT_HOLDINGS_MAX

HELD_PER_FRAME: Final = 256  # Then a frame is no larger than one with the largest entry.


class Resumed(Struct, frozen=True, array_like=True, tag="resumed", forbid_unknown_fields=True):
    """The chain of this account begins after this checkpoint."""

    checkpointed: Checkpointed


class Held(Struct, frozen=True, array_like=True, tag="held", forbid_unknown_fields=True):
    """Holdings of the checkpoint before it, in order."""

    holdings: Annotated[tuple[Holding, ...], Meta(min_length=1, max_length=HELD_PER_FRAME)]


class Kept(Struct, frozen=True, array_like=True, tag="kept", forbid_unknown_fields=True):
    """A certified entry from before the checkpoint, by which something can still be claimed."""

    certified: Certified


class Resuming:
    """Gathers the frames before the first entry of such a chain."""

    def __init__(self, resumed: Resumed) -> None:
        self.checkpointed = resumed.checkpointed
        self.holdings: list[Holding] = []

    @property
    def account(self) -> NodeId:
        """Whose chain it is."""
        return self.checkpointed.checkpoint.account

    def add(self, held: Held) -> None:
        """More of its holdings. Raises RemoteError TOO_LARGE beyond what any checkpoint has."""
        self.holdings.extend(held.holdings)
        if len(self.holdings) > CHECKPOINT_HOLDINGS_MAX:
            raise RemoteError(Code.TOO_LARGE, "No checkpoint has so many holdings.")

    def state(self, charter: Charter) -> tuple[Account, Holdings]:
        """What the chain goes on from. Raises RemoteError as `holdings_checked`."""
        return holdings_checked(self.checkpointed, self.holdings, charter)
