"""Frames on a stream of bytes: a four-byte big-endian length and that many bytes."""

import trio

from node.network.base import NetworkError, Stream
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId
from protocol.limits import FRAME_BYTES_MAX, FRAME_LENGTH_BYTES, FRAME_SECONDS_MAX

_READ_BYTES = 1 << 16
_FINISH_SECONDS_MAX = 5


class FrameStream:
    """Whole frames over one stream. One task may send while another receives; a second sender
    waits for the first."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._sending = trio.Lock()
        self._cut = False
        self._waited_seconds = 0.0  # In `receive`, for the rest of a frame that has begun.

    @property
    def peer(self) -> NodeId:
        """Who is at the other end: proven by the handshake."""
        return self._stream.peer

    async def send(self, *frames: bytes) -> None:
        """Send frames, in one go: a write costs far more than what is in it. A send cancelled while
        it waits for its turn has sent nothing and the stream goes on; one cancelled later has cut
        a frame, and the stream can send no more.

        Raises NetworkError when the stream is gone, or a frame was cut.
        """
        data = bytearray()
        for frame in frames:
            assert len(frame) <= FRAME_BYTES_MAX, len(frame)
            data += len(frame).to_bytes(FRAME_LENGTH_BYTES, "big")
            data += frame
        async with self._sending:
            if self._cut:
                raise NetworkError("An earlier frame was cut off, so this stream is of no use.")
            self._cut = True  # Until it is known that all of it went.
            await self._stream.send_all(bytes(data))
            self._cut = False

    async def receive(self, size_max: int = FRAME_BYTES_MAX) -> bytes | None:
        """The next frame, or None when the peer has closed its side between two frames. A
        cancelled receive loses nothing: the next one goes on where it was.

        Raises RemoteError TOO_LARGE for a frame above `size_max` bytes (before any of it is
        kept), BAD_FRAME for half a frame or one that takes longer than FRAME_SECONDS_MAX; and
        NetworkError when the stream is gone.
        """
        while True:
            frame = self._taken(size_max)
            if frame is not None:
                return frame
            data = await self._more()
            if data:
                self._buffer += data
            elif self._buffer:
                raise RemoteError(
                    Code.BAD_FRAME, f"The stream ended {len(self._buffer)} bytes into a frame."
                )
            else:
                return None

    def come(self, size_max: int = FRAME_BYTES_MAX) -> bytes | None:
        """A frame that has come whole with those before it; None where one must be waited for.
        Raises RemoteError TOO_LARGE as `receive`."""
        return self._taken(size_max)

    def _taken(self, size_max: int) -> bytes | None:
        """The frame that stands whole at the head of the buffer, if one does."""
        if len(self._buffer) < FRAME_LENGTH_BYTES:
            return None
        size = int.from_bytes(self._buffer[:FRAME_LENGTH_BYTES], "big")
        if size > size_max:
            raise RemoteError(
                Code.TOO_LARGE, f"A frame of {size} bytes was announced; at most {size_max} fit."
            )
        end = FRAME_LENGTH_BYTES + size
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[FRAME_LENGTH_BYTES:end])
        del self._buffer[:end]
        self._waited_seconds = 0.0
        return frame

    async def _more(self) -> bytes:
        """Wait for bytes: for ever between frames, but only so long within one. The time between
        two receives does not count: then we were busy, and the peer not slow."""
        if not self._buffer:
            return await self._stream.receive_some(_READ_BYTES)
        data: bytes | None = None
        began_at = trio.current_time()
        try:
            with trio.move_on_after(max(0.0, FRAME_SECONDS_MAX - self._waited_seconds)):
                data = await self._stream.receive_some(_READ_BYTES)
        finally:
            self._waited_seconds += trio.current_time() - began_at
        if data is None:
            raise RemoteError(
                Code.BAD_FRAME, f"A frame did not end within {FRAME_SECONDS_MAX} seconds."
            )
        return data

    async def close(self) -> None:
        """Close our side in order; never raises."""
        await self._stream.close()

    async def reset(self) -> None:
        """Drop the stream in both directions; never raises."""
        await self._stream.reset()

    async def finish(self) -> None:
        """Close our side and see the peer's close too; what still comes is thrown away, and a
        peer that does not close within five seconds gets a reset. Never raises NetworkError.

        Use it when nothing more is to be read: a stream that only one side has closed is kept in
        memory for as long as the connection lives.
        """
        await self._stream.close()
        with trio.move_on_after(_FINISH_SECONDS_MAX):
            try:
                while await self._stream.receive_some(_READ_BYTES):
                    pass
            except NetworkError:
                pass  # It is gone, which is what we wanted.
            return
        await self._stream.reset()
