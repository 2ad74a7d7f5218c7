"""Two ends of a pipe in one process, with bounded buffers: what memory.py's streams are."""

from collections.abc import Callable

import trio

from node.network.base import NetworkError
from protocol.ids import NodeId

WINDOW_BYTES = 256 << 10  # As much as libp2p's: whoever does not read soon stops the sender.


class _Lane:
    """The bytes on their way in one direction."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.ended = False  # The sender has closed its side in order.
        self.broken = False  # Reset, or the connection is gone.
        self._parked = trio.lowlevel.ParkingLot()

    def changed(self) -> None:
        self._parked.unpark_all()

    async def change(self) -> None:
        await self._parked.park()


class MemoryStream:
    """One end of a stream between two nodes of a MemoryWorld; see `base.Stream`."""

    def __init__(self, peer: NodeId, incoming: _Lane, outgoing: _Lane) -> None:
        self._peer, self._in, self._out = peer, incoming, outgoing
        self._twin = self
        self._over: Callable[[], None] | None = None

    @classmethod
    def pair(cls, opener: NodeId, server: NodeId) -> "tuple[MemoryStream, MemoryStream]":
        """(the opener's end, the server's end)."""
        there, back = _Lane(), _Lane()
        ours, theirs = cls(server, back, there), cls(opener, there, back)
        ours._twin, theirs._twin = theirs, ours
        return ours, theirs

    @property
    def peer(self) -> NodeId:
        """Who is at the other end."""
        return self._peer

    def when_over(self, call: Callable[[], None]) -> None:
        """Called, possibly more than once, when both sides are closed or the stream was reset."""
        self._over = call

    async def send_all(self, data: bytes) -> None:
        """Raises NetworkError when the stream is gone or we have closed our side."""
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while True:
            if self._out.broken:
                raise NetworkError("The stream was reset.")
            if self._out.ended:
                raise NetworkError("We have closed our side of this stream.")
            room = WINDOW_BYTES - len(self._out.buffer)
            if rest and room:
                self._out.buffer += rest[:room]
                rest = rest[room:]
                self._out.changed()
            if not rest:
                return
            await self._out.change()

    async def receive_some(self, bytes_max: int) -> bytes:
        """At least one byte, or b"" at the end. Raises NetworkError after a reset."""
        assert bytes_max > 0
        await trio.lowlevel.checkpoint()
        while not self._in.buffer:
            if self._in.broken:
                raise NetworkError("The stream was reset.")
            if self._in.ended:
                return b""
            await self._in.change()
        data = bytes(self._in.buffer[:bytes_max])
        del self._in.buffer[:bytes_max]
        self._in.changed()
        return data

    async def close(self) -> None:
        """Close our side in order; never raises."""
        self._out.ended = True
        self._out.changed()
        if self._in.ended:
            self._finish()

    async def reset(self) -> None:
        """Drop the stream at once in both directions; never raises."""
        self.break_off()

    def break_off(self) -> None:
        """What a reset and a lost connection do: nothing more comes or goes, either way."""
        for lane in (self._in, self._out):
            lane.broken = True
            lane.buffer.clear()
            lane.changed()
        self._finish()

    async def ended(self) -> None:
        """Throw away what still comes until the peer has closed its side, for five seconds at
        most; then drop the stream. For the end that has closed its own side and reads no more."""
        with trio.move_on_after(5):
            while not (self._in.ended or self._in.broken):
                self._in.buffer.clear()
                self._in.changed()
                await self._in.change()
            self._finish()
            return
        self.break_off()

    def _finish(self) -> None:
        for end in (self, self._twin):
            if end._over is not None:
                end._over()
