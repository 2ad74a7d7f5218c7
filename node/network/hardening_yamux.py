"""The guards of the stream multiplexer: cancellation, windows, dead peers; see `hardening`."""

import struct
from collections.abc import Set
from typing import Any

import trio

from protocol.limits import OPEN_SECONDS_MAX

WRITE_SECONDS_MAX = 10  # A frame that does not leave for so long: the connection is dead.
PING_SECONDS = 15  # Between two pings of an idle connection,
PONG_SECONDS_MAX = 30  # and so long may the answer take: a dead peer is known within 45 s.

_YAMUX = "stream_muxer.yamux.yamux"
EXPECTED = {
    f"{_YAMUX}:Yamux.__init__": "self secured_conn peer_id is_initiator on_close",
    f"{_YAMUX}:Yamux._write_frame": "self data",
    f"{_YAMUX}:Yamux._cleanup_on_error": "self",
    f"{_YAMUX}:Yamux._measure_rtt_loop": "self",
    f"{_YAMUX}:Yamux._finalize_stream_locked": "self stream fully_closed",
    f"{_YAMUX}:Yamux.open_stream": "self",
    f"{_YAMUX}:YamuxStream.read": "self n",
    f"{_YAMUX}:YamuxStream.send_window_update": "self increment skip_lock",
}


def install(active: Set[str], yamux: Any, errors: Any, connection: Any) -> None:
    """Put the guards named in `active` into these modules of libp2p."""
    if "F7" in active:
        _guard_writes(yamux, errors)
    if "F8" in active:
        _guard_reads(yamux, errors)
    if "F9" in active:
        _guard_windows(yamux)
    if "F12" in active:
        _guard_openings(yamux, errors, connection)
    if "F13" in active:
        _guard_silence(yamux, errors)


def _guard_writes(yamux: Any, errors: Any) -> None:
    """F7: a cancelled write is cut in the middle of a frame, and the connection with every
    stream on it is lost. So waiting for one's turn can be cancelled, and the frame cannot."""

    async def write_frame(self: Any, data: bytes) -> None:
        async with self._write_lock:
            if self.event_shutting_down.is_set():
                raise errors.MuxedStreamError("the connection is closing")
            deadline = trio.current_time() + WRITE_SECONDS_MAX
            with trio.CancelScope(shield=True, deadline=deadline) as scope:
                await self.secured_conn.write(data)
        if scope.cancelled_caught:  # Half a frame is out, so nothing more can be said.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
                await self._cleanup_on_error()
            raise errors.MuxedStreamError("the write took too long")

    yamux.Yamux._write_frame = write_frame


def _guard_reads(yamux: Any, errors: Any) -> None:
    """F8: a read takes bytes from the buffer and then waits to send a window update, so that one
    cancelled there loses them. Here the credit of earlier reads goes first, in halves of a
    window, and from taking the bytes to returning them nothing waits."""

    async def read(self: Any, n: int | None = None) -> bytes:
        if n == 0:
            return b""
        await _return_credit(self, yamux)
        buffer = await _filled(self, errors)
        size = len(buffer) if n is None or n < 0 else min(n, len(buffer))
        data = bytes(buffer[:size])
        del buffer[:size]
        self._pending_recv_release += size
        if not buffer and self.closed:
            self.conn._finalize_stream_locked(self, fully_closed=True)
        return data

    yamux.YamuxStream.read = read


async def _return_credit(stream: Any, yamux: Any) -> None:
    pending = stream._pending_recv_release
    if pending < yamux.DEFAULT_WINDOW_SIZE // 2 or stream.recv_closed:
        return
    stream._pending_recv_release = 0
    stream.recv_window += pending
    try:
        await stream.send_window_update(pending)
    except trio.Cancelled:  # It waited for its turn to write: nothing was sent.
        stream._pending_recv_release += pending
        stream.recv_window -= pending
        raise


async def _filled(stream: Any, errors: Any) -> bytearray:
    """The stream's buffer, once something is in it."""
    conn, number = stream.conn, stream.stream_id
    while True:
        buffer: bytearray | None = conn.stream_buffers.get(number)
        if buffer:
            return buffer
        # The end in order is told from a loss: an answer that was cut off must not look whole.
        if stream.reset_received or conn.event_shutting_down.is_set():
            raise errors.MuxedStreamReset("the stream was reset, or its connection lost")
        event = conn.stream_events.get(number)
        if buffer is None or event is None or stream.recv_closed:
            raise errors.MuxedStreamEOF("the peer has closed its side")
        if event.is_set():
            event = conn.stream_events[number] = trio.Event()
        await event.wait()


def _guard_windows(yamux: Any) -> None:
    """F9: a peer that sends beyond the receive window is only logged, and what it sends is kept:
    286 MiB in one unread stream. Here it loses its connection at the 256 KiB that it was given;
    and a frame longer than that is refused by its header, not read for up to 16 MiB first."""
    size = yamux.DEFAULT_WINDOW_SIZE
    original = yamux.Yamux.__init__

    class Buffer(bytearray):
        def extend(self, data: Any) -> None:
            if len(self) + len(data) > size:
                # The one exception on which handle_incoming closes the connection.
                raise trio.TooSlowError("the peer overran its window")
            super().extend(data)

    class Buffers(dict[int, bytearray]):
        def __setitem__(self, number: int, buffer: bytearray) -> None:
            super().__setitem__(number, Buffer(buffer))

    def initialise(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.stream_buffers = Buffers()

    yamux.Yamux.__init__ = initialise
    yamux.MAX_WINDOW_SIZE = size


def _guard_openings(yamux: Any, errors: Any, connection: Any) -> None:
    """F12: opening a stream that is cancelled half-way keeps its place among the 256 of a
    connection, and its buffers, for ever. Here it gives them back."""

    async def open_stream(self: Any) -> Any:
        await self.stream_backlog_semaphore.acquire()
        stream: Any = None
        try:
            async with self.streams_lock:
                if self.event_shutting_down.is_set():
                    raise errors.MuxedStreamError("the connection is closing")
                stream = yamux.YamuxStream(self.next_stream_id, self, True)
                self.next_stream_id += 2
                stream._owns_backlog_slot = True
                self.streams[stream.stream_id] = stream
                self.stream_buffers[stream.stream_id] = bytearray()
                self.stream_events[stream.stream_id] = trio.Event()
            header = (0, yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_SYN, stream.stream_id, 0)
            await self._write_frame(struct.pack(yamux.YAMUX_HEADER_FORMAT, *header))
        except BaseException:
            if stream is None:
                self.stream_backlog_semaphore.release()
            else:
                stream.closed = stream.send_closed = stream.recv_closed = True
                self.stream_buffers.pop(stream.stream_id, None)
                self._finalize_stream_locked(stream, fully_closed=True)
            raise
        return stream

    async def new_stream(self: Any) -> Any:
        muxed = await self.muxed_conn.open_stream()
        try:
            return await self._add_stream(muxed)
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + OPEN_SECONDS_MAX):
                self.streams -= {one for one in self.streams if one.muxed_stream is muxed}
                await muxed.reset()
            raise

    yamux.Yamux.open_stream = open_stream
    connection.SwarmConn.new_stream = new_stream


def _guard_silence(yamux: Any, errors: Any) -> None:
    """F13: a peer whose machine lost its power or its link stays "connected" until TCP gives up,
    which can take hours. libp2p pings but ignores that no answer comes."""

    async def ping(self: Any) -> None:
        while not self.event_shutting_down.is_set():
            with trio.move_on_after(PING_SECONDS):
                await self.event_shutting_down.wait()
                return
            self._ping_id = (self._ping_id + 1) % (1 << 32)
            self._ping_event = trio.Event()
            header = struct.pack(
                yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_PING, yamux.FLAG_SYN, 0, self._ping_id
            )
            self._ping_sent_time = trio.current_time()
            with trio.move_on_after(PONG_SECONDS_MAX) as scope:
                try:
                    await self._write_frame(header)
                except errors.MuxedStreamError:
                    return  # The connection closes, and this task ends with it.
                await self._ping_event.wait()
            if scope.cancelled_caught:
                # Closing ends this very task; shielded, so that our side hears of it to the end.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
                    await self._cleanup_on_error()

    yamux.Yamux._measure_rtt_loop = ping
