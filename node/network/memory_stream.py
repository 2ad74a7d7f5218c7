"""Two ends of a pipe in one process, with bounded buffers: what memory.py's streams are."""

from collections import deque
from collections.abc import Callable

import trio

from node.network.base import NetworkError
from node.network.memory_weather import CALM, Weather
from protocol.ids import NodeId

WINDOW_BYTES = 256 << 10  # As much as libp2p's: whoever does not read soon stops the sender.

Heard = Callable[[NodeId, NodeId, bytes], None]
"""(sender, receiver, bytes) as they are handed to a stream; it must neither wait nor raise."""


def _unheard(_sender: NodeId, _receiver: NodeId, _data: bytes) -> None:
    """Nobody listens."""


class _Lane:
    """The bytes on their way in one direction."""

    def __init__(self, sender: NodeId, receiver: NodeId, weather: Weather) -> None:
        self.sender, self.receiver, self.weather = sender, receiver, weather
        self.buffer = bytearray()
        self.closed = False  # The sender has closed its side in order,
        self.ended = False  # and the receiver could know.
        self.broken = False  # Reset, or the connection is gone.
        self._flying: deque[tuple[float, bytes]] = deque()  # When each arrives; b"" is the end.
        self._flying_bytes = 0
        self._parked = trio.lowlevel.ParkingLot()

    @property
    def room(self) -> int:
        """How many bytes more may be sent before some are read."""
        return WINDOW_BYTES - len(self.buffer) - self._flying_bytes

    def put(self, data: bytes) -> None:
        """Send these bytes, or the end; what was sent first arrives first."""
        seconds = self.weather.delay_seconds(self.sender, self.receiver)
        if seconds > 0 or self._flying:
            arrives = trio.current_time() + seconds
            if self._flying:
                arrives = max(arrives, self._flying[-1][0])
            self._flying.append((arrives, data))
            self._flying_bytes += len(data)
        else:
            self._arrive(data)
        self.changed()

    def land(self) -> None:
        """Take in what has arrived by now."""
        if self.weather.is_parted(self.sender, self.receiver):
            return
        while self._flying and self._flying[0][0] <= trio.current_time():
            _, data = self._flying.popleft()
            self._flying_bytes -= len(data)
            self._arrive(data)

    def _arrive(self, data: bytes) -> None:
        if data:
            self.buffer += data
        else:
            self.ended = True

    def break_off(self) -> None:
        """Nothing more comes."""
        self.broken = True
        self.buffer.clear()
        self._flying.clear()
        self._flying_bytes = 0
        self.changed()

    def drop(self) -> None:
        """Throw away what has arrived."""
        self.buffer.clear()
        self.changed()

    def changed(self) -> None:
        self._parked.unpark_all()

    async def change(self) -> None:
        """Wait until something has changed, or the next bytes are here."""
        if not self._flying or self.weather.is_parted(self.sender, self.receiver):
            await self._parked.park()
            return
        with trio.move_on_at(self._flying[0][0]):
            await self._parked.park()


class MemoryStream:
    """One end of a stream between two nodes of a MemoryWorld; see `base.Stream`."""

    def __init__(self, peer: NodeId, incoming: _Lane, outgoing: _Lane, heard: Heard) -> None:
        self._peer, self._in, self._out, self._heard = peer, incoming, outgoing, heard
        self._twin = self
        self._over: Callable[[], None] | None = None

    @classmethod
    def pair(
        cls, opener: NodeId, server: NodeId, weather: Weather = CALM, heard: Heard = _unheard
    ) -> "tuple[MemoryStream, MemoryStream]":
        """(the opener's end, the server's end)."""
        there, back = _Lane(opener, server, weather), _Lane(server, opener, weather)
        ours, theirs = cls(server, back, there, heard), cls(opener, there, back, heard)
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
        out = self._out
        rest = memoryview(data)
        # It is said, also where it is lost on the way: the sender does not know.
        self._heard(out.sender, out.receiver, data)
        if out.weather.is_cut(out.sender, out.receiver):
            self.break_off()
        while True:
            if out.broken:
                raise NetworkError("The stream was reset.")
            if out.closed:
                raise NetworkError("We have closed our side of this stream.")
            out.land()  # Whoever waits for room looks at what the other end has not.
            room = out.room
            if rest and room:
                out.put(bytes(rest[:room]))
                rest = rest[room:]
            if not rest:
                return
            await out.change()

    async def receive_some(self, bytes_max: int) -> bytes:
        """At least one byte, or b"" at the end. Raises NetworkError after a reset."""
        assert bytes_max > 0
        await trio.lowlevel.checkpoint()
        self._in.land()
        while not self._in.buffer:
            if self._in.broken:
                raise NetworkError("The stream was reset.")
            if self._in.ended:
                return b""
            await self._in.change()
            self._in.land()
        data = bytes(self._in.buffer[:bytes_max])
        del self._in.buffer[:bytes_max]
        self._in.changed()
        return data

    async def close(self) -> None:
        """Close our side in order; never raises."""
        if not (self._out.closed or self._out.broken):
            self._out.closed = True
            self._out.put(b"")
        if self._in.closed:
            self._finish()

    async def reset(self) -> None:
        """Drop the stream at once in both directions; never raises."""
        self.break_off()

    def break_off(self) -> None:
        """What a reset and a lost connection do: nothing more comes or goes, either way."""
        for lane in (self._in, self._out):
            lane.break_off()
        self._finish()

    def look(self) -> None:
        """The weather has changed: see what arrives now."""
        for lane in (self._in, self._out):
            lane.changed()

    async def ended(self) -> None:
        """Throw away what still comes until the peer has closed its side, for five seconds at
        most; then drop the stream. For the end that has closed its own side and reads no more."""
        with trio.move_on_after(5):
            self._in.land()
            while not (self._in.ended or self._in.broken):
                self._in.drop()
                await self._in.change()
                self._in.land()
            self._finish()
            return
        self.break_off()

    def _finish(self) -> None:
        for end in (self, self._twin):
            if end._over is not None:
                end._over()
