"""Whom to dial next: a few neighbours, chosen by us, with a growing wait after each failure.

Pure: time and chance are arguments. Neighbours are counted only when we have chosen them, so
that somebody who opens many connections to us does not become all of our world.
"""

from collections import OrderedDict
from collections.abc import Iterable, Set
from dataclasses import dataclass
from random import Random

from protocol.ids import NodeId
from protocol.limits import DIRECTORY_PEERS_MAX

NEIGHBOURS_TARGET = 8  # Gossip keeps a mesh of six; in a smaller network this is everybody.
WAIT_MS_MIN = 1_000
WAIT_MS_MAX = 300_000


@dataclass(frozen=True, slots=True)
class _Failures:
    count: int
    again_at_ms: int


class DialPlan:
    """Keeps `target` of the known nodes as neighbours."""

    def __init__(
        self,
        chance: Random,
        target: int = NEIGHBOURS_TARGET,
        failures_max: int = DIRECTORY_PEERS_MAX,
    ) -> None:
        self._chance, self._target, self._failures_max = chance, target, failures_max
        self._neighbours: set[NodeId] = set()
        self._dialling: set[NodeId] = set()
        self._failures: OrderedDict[NodeId, _Failures] = OrderedDict()

    @property
    def neighbours(self) -> Set[NodeId]:
        """Those that we have chosen and were connected when the plan last looked."""
        return self._neighbours

    def choose(
        self,
        preferred: Iterable[NodeId],
        others: Iterable[NodeId],
        connected: Set[NodeId],
        now_ms: int,
    ) -> list[NodeId]:
        """The nodes to dial now. `failed` or `succeeded` must follow for each.

        The preferred are taken first, the others by chance; who is connected already becomes a
        neighbour without being dialled.
        """
        self._neighbours &= connected
        chosen: list[NodeId] = []
        for node in self._ready(preferred, others, now_ms):
            if len(self._neighbours) + len(self._dialling) >= self._target:
                break
            if node in connected:
                self._neighbours.add(node)
            else:
                self._dialling.add(node)
                chosen.append(node)
        return chosen

    def succeeded(self, node: NodeId) -> None:
        """It is connected."""
        self._failures.pop(node, None)
        if node in self._dialling:
            self._dialling.discard(node)
            self._neighbours.add(node)

    def failed(self, node: NodeId, now_ms: int) -> None:
        """It did not answer: leave it alone for a second, then two, up to five minutes, each
        half to one and a half times as long by chance, so that nodes do not dial in step."""
        self._dialling.discard(node)
        before = self._failures.pop(node, None)
        count = 1 if before is None else before.count + 1
        wait_ms = min(WAIT_MS_MIN << min(count - 1, 16), WAIT_MS_MAX)
        wait_ms = int(wait_ms * (0.5 + self._chance.random()))
        self._failures[node] = _Failures(count, now_ms + wait_ms)
        if len(self._failures) > self._failures_max:
            self._failures.popitem(last=False)

    def given_up(self, node: NodeId) -> None:
        """A dial was cancelled: nothing is known of its node."""
        self._dialling.discard(node)

    def wake_at(self, known: Iterable[NodeId]) -> int | None:
        """When the next of the known nodes may be dialled again; None when no more neighbours
        are wanted or none of them waits."""
        if len(self._neighbours) + len(self._dialling) >= self._target:
            return None
        waits = (self._failures[node].again_at_ms for node in known if node in self._failures)
        return min(waits, default=None)

    def _ready(
        self, preferred: Iterable[NodeId], others: Iterable[NodeId], now_ms: int
    ) -> Iterable[NodeId]:
        if len(self._neighbours) + len(self._dialling) >= self._target:
            return
        first = list(dict.fromkeys(preferred))
        rest = sorted(set(others).difference(first))  # Sorted, so that chance alone decides.
        self._chance.shuffle(rest)
        for node in (*first, *rest):
            failures = self._failures.get(node)
            waits = failures is not None and failures.again_at_ms > now_ms
            if not waits and node not in self._neighbours and node not in self._dialling:
                yield node
