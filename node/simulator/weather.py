"""The network's weather in a simulated world, drawn from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from protocol.ids import NodeId


@dataclass(slots=True)
class Climate:
    """How bad it is now; faults change it for a while."""

    delay_seconds_max: float = 0.0
    cut_share: float = 0.0
    """Of all pieces of bytes on a stream: those at which it breaks."""
    lost_share: float = 0.0
    """Of all messages of gossip, and for each of its receivers."""
    double_share: float = 0.0


class SeededWeather:
    """Implements `node.network.memory_weather.Weather`."""

    def __init__(self, chance: Random, climate: Climate) -> None:
        self._chance, self.climate = chance, climate
        self._sides: dict[NodeId, int] = {}

    def split(self, sides: dict[NodeId, int]) -> None:
        """From now on only nodes of one side hear each other; none is said of is on side 0."""
        self._sides = sides

    def delay_seconds(self, sender: NodeId, receiver: NodeId) -> float:
        """As `Weather.delay_seconds`: mostly short, with a long tail."""
        longest = self.climate.delay_seconds_max
        return longest * self._chance.random() ** 4 if longest else 0.0

    def is_cut(self, sender: NodeId, receiver: NodeId) -> bool:
        """As `Weather.is_cut`."""
        share = self.climate.cut_share
        return share > 0 and self._chance.random() < share

    def is_parted(self, one: NodeId, other: NodeId) -> bool:
        """As `Weather.is_parted`."""
        return bool(self._sides) and self._sides.get(one, 0) != self._sides.get(other, 0)

    def copies_seconds(self, sender: NodeId, receiver: NodeId) -> Sequence[float]:
        """As `Weather.copies_seconds`."""
        if self.is_parted(sender, receiver) or self._chance.random() < self.climate.lost_share:
            return ()
        copies = 2 if self._chance.random() < self.climate.double_share else 1
        return [self.delay_seconds(sender, receiver) for _ in range(copies)]
