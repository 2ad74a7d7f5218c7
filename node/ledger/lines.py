"""Questions to peers: one long-lived stream to each; those that wait together travel together.

Most of what a question costs is the write and the read of a stream. So while one exchange is on
its way the questions that come are gathered, and the next exchange takes them all.
"""

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from node.network.base import Network, NetworkError, Stream
from node.network.framing import FrameStream
from protocol.ids import NodeId
from protocol.ledger.sync import LEDGER_PROTOCOL, Answer, Ask, answer_decoded, message_encoded
from protocol.limits import (
    DIAL_SECONDS_MAX,
    FRAME_BYTES_MAX,
    LEDGER_ASKS_AT_ONCE_MAX,
    OPEN_SECONDS_MAX,
    RPC_SECONDS_MAX,
)

LINES_MAX: Final = 128  # Streams kept open; beyond it the least used one is closed.
TOGETHER_BYTES_MAX: Final = 1 << 16  # Of questions that travel together; a larger one goes alone.

Connect = Callable[[NodeId], Awaitable[None]]
"""Be connected to a node when this returns. Raises NetworkError."""


class _Question:
    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answer: bytes | None = None
        self.error: NetworkError | None = None

    @property
    def is_over(self) -> bool:
        return self.answer is not None or self.error is not None

    def told(self) -> Answer:
        """What was answered. Raises NetworkError, and RemoteError for what is no answer."""
        if self.error is not None:
            raise NetworkError(str(self.error))
        assert self.answer is not None
        return answer_decoded(self.answer)


class _Line:
    def __init__(self) -> None:
        self.turn = trio.Lock()
        self.waiting: deque[_Question] = deque()
        self.frames: FrameStream | None = None

    def taken(self) -> list[_Question]:
        """The questions of the next exchange."""
        together = [self.waiting.popleft()]
        size = len(together[0].request)
        while self.waiting and len(together) < LEDGER_ASKS_AT_ONCE_MAX:
            size += len(self.waiting[0].request)
            if size > TOGETHER_BYTES_MAX:
                break
            together.append(self.waiting.popleft())
        return together


class Lines:
    """Has one exchange with each peer at a time, of all the questions that wait for it."""

    def __init__(self, network: Network, connect: Connect) -> None:
        self._network, self._connect = network, connect
        self._lines: OrderedDict[NodeId, _Line] = OrderedDict()

    async def ask(self, peer: NodeId, ask: Ask) -> Answer:
        """The answer of a peer, its form checked, to which a connection is made if need be.

        Raises NetworkError when the peer cannot be reached, is gone or takes too long;
        RemoteError for what is no answer.
        """
        (answer,) = await self.ask_all(peer, [ask])
        return answer

    async def ask_all(self, peer: NodeId, asks: Sequence[Ask]) -> Sequence[Answer]:
        """The answers to several questions, which travel together and are answered in order.
        Raises as `ask`."""
        line = self._lines.setdefault(peer, _Line())
        self._lines.move_to_end(peer)
        questions = [_Question(message_encoded(ask)) for ask in asks]
        line.waiting.extend(questions)
        try:
            # Whoever has the turn asks for all; those who come after it find their answers here.
            async with line.turn:
                while not all(question.is_over for question in questions):
                    await self._close_idle()
                    await self._exchange(line, peer)
        finally:
            for question in questions:
                if not question.is_over:
                    question.error = NetworkError("Nobody waits for the answer any more.")
                if question in line.waiting:
                    line.waiting.remove(question)
        return [question.told() for question in questions]

    async def _exchange(self, line: _Line, peer: NodeId) -> None:
        """One exchange of what waits; each question has its answer or its error after it."""
        together = line.taken()
        is_old = line.frames is not None
        try:
            try:
                await self._exchanged(line, peer, together)
            except NetworkError:
                if not is_old:
                    raise
                # The stream may have been closed for its silence, which the peer may do at any
                # time. Asking a second time is harmless: no question changes anything twice.
                left = [question for question in together if not question.is_over]
                await self._exchanged(line, peer, left)
        except NetworkError as error:
            for question in together:
                if not question.is_over:
                    question.error = error
        finally:
            # We were cancelled: the next one asks for those who wait still.
            line.waiting.extendleft(one for one in reversed(together) if not one.is_over)

    async def _exchanged(self, line: _Line, peer: NodeId, together: Sequence[_Question]) -> None:
        is_whole = False
        try:
            if line.frames is None:
                line.frames = FrameStream(await self._opened(peer))
            with trio.move_on_after(RPC_SECONDS_MAX):
                await line.frames.send(*(question.request for question in together))
                for question in together:
                    question.answer = await line.frames.receive(FRAME_BYTES_MAX)
                    if question.answer is None:
                        raise NetworkError("The peer hung up without an answer.")
                is_whole = True
                return
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
            if not line.turn.locked() and not line.waiting:
                del self._lines[peer]
                if line.frames is not None:
                    await line.frames.finish()
                return
