"""The few verbs that all else depends on: connect, open, serve, publish, subscribe.

Implementations: `node.network.libp2p` (the real one) and `node.network.memory` (in one process).
Streams carry bytes; `node.network.framing` puts frames on them.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from protocol.ids import NodeId


class NetworkError(Exception):
    """The connection or stream is gone, or the peer cannot be reached. Nobody is to blame."""


class Stream(Protocol):
    """An ordered, authenticated pipe of bytes to one peer. Cancelling any await leaves the
    connection, and every other stream on it, usable."""

    @property
    def peer(self) -> NodeId:
        """Who is at the other end: proven by the handshake."""

    async def send_all(self, data: bytes) -> None:
        """Raises NetworkError when the stream is gone."""

    async def receive_some(self, bytes_max: int) -> bytes:
        """At least one byte, or b"" when the peer has closed its side. Raises NetworkError when
        the stream was reset."""

    async def close(self) -> None:
        """Close our side in order; never raises."""

    async def reset(self) -> None:
        """Drop the stream at once in both directions; never raises."""


class Watcher(Protocol):
    """Told of connections; called from the network's own task, so it must not wait."""

    def connected(self, peer: NodeId) -> None: ...

    def disconnected(self, peer: NodeId) -> None: ...


Handler = Callable[[Stream], Awaitable[None]]
"""Serves one stream that a peer opened. The stream is closed when it returns, and reset when it
raises; an exception costs the peer its stream and nothing else."""

Judge = Callable[[NodeId, bytes], bool]
"""(who forwarded it, data) -> keep and pass on? It must be quick, idempotent and never raise: two
copies of a message can be judged at once."""

Topic = Callable[[bytes], None]
"""Takes a message that the judge has kept; it must not wait."""


class Network(Protocol):
    """One node's way to the others."""

    @property
    def node(self) -> NodeId:
        """Our own id."""

    @property
    def addresses(self) -> Sequence[str]:
        """Where others can dial us: `/ip4/../tcp/../p2p/12D3KooW..`, of interfaces, never a
        wildcard."""

    @property
    def peers(self) -> Sequence[NodeId]:
        """Who is connected now."""

    async def connect(self, address: str) -> NodeId:
        """Dial an address that ends in /p2p/<node id>; at once when we are connected already.

        Raises LocalError BAD_REQUEST for an address that is none, NetworkError when nobody
        answers there or somebody else does.
        """

    async def disconnect(self, peer: NodeId) -> None:
        """Close every connection with a peer; never raises."""

    async def open(self, peer: NodeId, protocol: str) -> Stream:
        """A new stream to a connected peer. Raises NetworkError."""

    def serve(self, protocol: str, handler: Handler) -> None:
        """Answer streams of this protocol from now on."""

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip to all who subscribe. Raises NetworkError when it cannot be handed on."""

    async def subscribe(self, topic: str, judge: Judge, take: Topic) -> None:
        """Hear a topic from now on."""

    def watch(self, watcher: Watcher) -> None:
        """Tell this watcher of connections from now on."""


Opened = AbstractAsyncContextManager[Network]
"""What an implementation's `open_network(...)` gives: the network lives inside `async with`, and
on leaving it every connection is closed, in at most 1.5 s."""
