"""What libp2p tells and asks of a network, in the words of `libp2p.Libp2pNetwork`."""

from typing import Any, Protocol

from node.network.peer_id import node_of
from protocol.ids import NodeId


class Hearer(Protocol):
    """The part of a network that events and questions go to."""

    def connected(self, connection: Any) -> None: ...

    def disconnected(self, connection: Any) -> None: ...

    def stream_opened(self, peer: NodeId) -> bool: ...

    def stream_closed(self, peer: NodeId) -> None: ...

    def gossip_came(self, peer: NodeId) -> bool: ...


class Notifee:
    """What libp2p calls on its events; several connections of one peer give several."""

    def __init__(self, network: Hearer) -> None:
        self._network = network

    async def connected(self, _swarm: Any, connection: Any) -> None:
        self._network.connected(connection)

    async def disconnected(self, _swarm: Any, connection: Any) -> None:
        self._network.disconnected(connection)

    async def opened_stream(self, _swarm: Any, _stream: Any) -> None: ...

    async def closed_stream(self, _swarm: Any, _stream: Any) -> None: ...

    async def listen(self, _swarm: Any, _address: Any) -> None: ...

    async def listen_close(self, _swarm: Any, _address: Any) -> None: ...


class StreamGate:
    """The quotas, asked before anything of a stream or of gossip is read."""

    def __init__(self, network: Hearer) -> None:
        self._network = network

    def opened(self, peer: Any) -> bool:
        node = node_of(peer)
        return node is not None and self._network.stream_opened(node)

    def closed(self, peer: Any) -> None:
        node = node_of(peer)
        assert node is not None
        self._network.stream_closed(node)

    def heard(self, peer: Any) -> bool:
        node = node_of(peer)
        return node is not None and self._network.gossip_came(node)
