"""A stream of libp2p as the rest of the daemon sees it; see `base.Stream`."""

from typing import Any

import trio

from node.network import hardening
from node.network.base import NetworkError
from protocol.ids import NodeId

_END_SECONDS_MAX = 5
_READ_BYTES = 1 << 16


class Libp2pStream:
    """One end of a stream. A send fails when the peer has read nothing for five seconds, which
    is Yamux's rule: so readers never wait for anything slow."""

    def __init__(self, stream: Any, peer: NodeId) -> None:
        self._stream, self._peer = stream, peer

    @property
    def peer(self) -> NodeId:
        """Who is at the other end: proven by the Noise handshake."""
        return self._peer

    async def send_all(self, data: bytes) -> None:
        """Raises NetworkError when the stream is gone."""
        with hardening.translated("the stream cannot be written to"):
            await self._stream.write(data)

    async def receive_some(self, bytes_max: int) -> bytes:
        """At least one byte, or b"" when the peer has closed its side in order. Raises
        NetworkError when the stream was reset or the connection is lost."""
        assert bytes_max > 0
        with hardening.translated("the stream cannot be read"), hardening.end_as_empty():
            data: bytes = await self._stream.read(bytes_max)
            return data
        return b""

    async def close(self) -> None:
        """Close our side in order; never raises."""
        if not await hardening.quietly(self._stream.close):
            await self.reset()

    async def reset(self) -> None:
        """Drop the stream at once in both directions; never raises."""
        await hardening.quietly(self._stream.reset)

    async def ended(self) -> None:
        """Throw away what still comes until the peer has closed its side, for five seconds at
        most; then drop the stream. Yamux keeps what only one side has closed for ever."""
        with trio.move_on_after(_END_SECONDS_MAX):
            try:
                while await self.receive_some(_READ_BYTES):
                    pass
            except NetworkError:
                pass  # It is gone, which is what we wait for.
            return
        await self.reset()
