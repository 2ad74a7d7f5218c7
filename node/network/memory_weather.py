"""What may befall bytes between two nodes of a MemoryWorld; nothing, unless one says otherwise."""

from collections.abc import Sequence
from typing import Final, Protocol

from protocol.ids import NodeId


class Weather(Protocol):
    """Asked at each step of a message's way. Implementations: `Calm` here, and the simulator's."""

    def delay_seconds(self, sender: NodeId, receiver: NodeId) -> float:
        """How long the next bytes take one way. Those of one stream stay in order."""

    def is_cut(self, sender: NodeId, receiver: NodeId) -> bool:
        """Whether the stream breaks at the next bytes, which are lost then."""

    def is_parted(self, one: NodeId, other: NodeId) -> bool:
        """Whether nothing passes between two nodes now; what is on its way waits."""

    def copies_seconds(self, sender: NodeId, receiver: NodeId) -> Sequence[float]:
        """When each copy of a message of gossip arrives: none is a lost one, two a double one."""


class Calm:
    """Everything arrives at once."""

    def delay_seconds(self, sender: NodeId, receiver: NodeId) -> float:
        """As `Weather.delay_seconds`."""
        return 0.0

    def is_cut(self, sender: NodeId, receiver: NodeId) -> bool:
        """As `Weather.is_cut`."""
        return False

    def is_parted(self, one: NodeId, other: NodeId) -> bool:
        """As `Weather.is_parted`."""
        return False

    def copies_seconds(self, sender: NodeId, receiver: NodeId) -> Sequence[float]:
        """As `Weather.copies_seconds`."""
        return (0.0,)


CALM: Final = Calm()


def _is_weather(calm: Calm) -> Weather:
    return calm  # The type checker compares the two here.
