"""One token bucket a node, for as many nodes as there is room for. Pure: time is an argument."""

from collections import OrderedDict

from node.network.quota import Bucket
from protocol.ids import NodeId


class Rates:
    """Each node may do something `size` times at once and `size` times every `seconds`."""

    def __init__(self, size: int, seconds: float, nodes_max: int) -> None:
        self._size, self._seconds, self._nodes_max = size, seconds, nodes_max
        self._buckets: OrderedDict[NodeId, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, node: NodeId, now_ms: int) -> bool:
        """May it, once more? The node longest unheard of makes room for a new one."""
        now = now_ms / 1000
        bucket = self._buckets.get(node)
        if bucket is None:
            if len(self._buckets) >= self._nodes_max:
                self._buckets.popitem(last=False)
            bucket = self._buckets[node] = Bucket(self._size, self._seconds, now)
        self._buckets.move_to_end(node)
        return bucket.take(now)
