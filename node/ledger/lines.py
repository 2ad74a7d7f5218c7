"""Questions to peers: one long-lived stream to each, so that a question costs one round trip."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from node.network.base import Network, NetworkError, Stream
from node.network.framing import FrameStream
from protocol.ids import NodeId
from protocol.ledger.sync import LEDGER_PROTOCOL, Answer, Ask, answer_decoded, message_encoded
from protocol.limits import DIAL_SECONDS_MAX, FRAME_BYTES_MAX, OPEN_SECONDS_MAX, RPC_SECONDS_MAX

LINES_MAX: Final = 128  # Streams kept open; beyond it the least used one is closed.

Connect = Callable[[NodeId], Awaitable[None]]
"""Be connected to a node when this returns. Raises NetworkError."""


class _Line:
    def __init__(self) -> None:
        self.turn = trio.Lock()
        self.frames: FrameStream | None = None


class Lines:
    """Asks one question of each peer at a time; others wait for their turn."""

    def __init__(self, network: Network, connect: Connect) -> None:
        self._network, self._connect = network, connect
        self._lines: OrderedDict[NodeId, _Line] = OrderedDict()

    async def ask(self, peer: NodeId, ask: Ask) -> Answer:
        """The answer of a peer, its form checked, to which a connection is made if need be.

        Raises NetworkError when the peer cannot be reached, is gone or takes too long;
        RemoteError for what is no answer.
        """
        line = self._lines.setdefault(peer, _Line())
        self._lines.move_to_end(peer)
        request = message_encoded(ask)
        async with line.turn:
            await self._close_idle()
            is_old = line.frames is not None
            try:
                return answer_decoded(await self._exchanged(line, peer, request))
            except NetworkError:
                if not is_old:
                    raise
            # The stream may have been closed for its silence, which the peer may do at any time.
            # Asking a second time is harmless: no question changes anything twice.
            return answer_decoded(await self._exchanged(line, peer, request))

    async def _exchanged(self, line: _Line, peer: NodeId, request: bytes) -> bytes:
        is_whole = False
        try:
            if line.frames is None:
                line.frames = FrameStream(await self._opened(peer))
            with trio.move_on_after(RPC_SECONDS_MAX):
                await line.frames.send(request)
                answer = await line.frames.receive(FRAME_BYTES_MAX)
                if answer is None:
                    raise NetworkError("The peer hung up without an answer.")
                is_whole = True
                return answer
            raise NetworkError(f"No answer came within {RPC_SECONDS_MAX} seconds.")
        finally:
            # A late answer must not be taken for that to the next question.
            if not is_whole and line.frames is not None:
                frames, line.frames = line.frames, None
                with trio.CancelScope(shield=True):
                    await frames.reset()

    async def _opened(self, peer: NodeId) -> Stream:
        with trio.move_on_after(DIAL_SECONDS_MAX + OPEN_SECONDS_MAX):
            if peer not in self._network.peers:
                await self._connect(peer)
            return await self._network.open(peer, LEDGER_PROTOCOL)
        raise NetworkError("The peer could not be reached in time.")

    async def _close_idle(self) -> None:
        if len(self._lines) <= LINES_MAX:
            return
        for peer, line in self._lines.items():
            if not line.turn.locked():
                del self._lines[peer]
                if line.frames is not None:
                    await line.frames.finish()
                return
