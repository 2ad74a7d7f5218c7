"""Serves the ledger's streams: frames in, answers out, each peer within its quota."""

from collections import Counter
from typing import Final

import trio

from node.ledger.witness import Desk
from node.network.base import Network, NetworkError, Stream
from node.network.framing import FrameStream
from node.network.quota import Quotas, is_blamed
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId
from protocol.ledger.sync import Answer, Refusal, ask_decoded, message_encoded
from protocol.limits import FRAME_BYTES_MAX, RPC_SECONDS_MAX

STREAMS_PER_PEER_MAX: Final = 4  # Ours hold two: one for what hurries, one for what does not.
ANSWERING_MAX: Final = 256  # At once, whoever asks: each may hold a frame of a MiB.
IDLE_SECONDS_MAX: Final = 300  # A stream that says nothing is closed; its owner opens another.
BUSY_RETRY_MS: Final = 500

# An honest node checks what it signs and what it hands on, so it never earns one of these.
_BLAMED_REFUSALS: Final = frozenset(
    {
        Code.BAD_CERTIFICATE,
        Code.BAD_PROOF,
        Code.LINK_BROKEN,
        Code.OVERDRAWN,
        Code.BALANCE_WRONG,
        Code.AMOUNT_WRONG,
        Code.NOT_PAYEE,
        Code.ALREADY_CLAIMED,
    }
)


class LedgerCounter:
    """Answers whoever opens a stream, for as long as it has questions."""

    def __init__(self, network: Network, quotas: Quotas, desk: Desk) -> None:
        self._network, self._quotas, self._desk = network, quotas, desk
        self._streams: Counter[NodeId] = Counter()
        self._answering = 0
        self.refused: Counter[str] = Counter()
        """How many questions were refused since the start, by code."""

    async def handle(self, stream: Stream) -> None:
        """The handler to `serve`. Raises RemoteError for a peer that breaks the rules."""
        peer = stream.peer
        if self._streams[peer] >= STREAMS_PER_PEER_MAX:
            raise RemoteError(Code.QUOTA, "A peer has a few streams of the ledger at once.")
        self._streams[peer] += 1
        try:
            await self._serve(FrameStream(stream))
        finally:
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]

    async def _serve(self, frames: FrameStream) -> None:
        while True:
            data: bytes | None = None
            with trio.move_on_after(IDLE_SECONDS_MAX):
                data = await frames.receive(FRAME_BYTES_MAX)
            if data is None:
                return
            if self._quotas.framed(frames.peer, trio.current_time()):
                await self._network.disconnect(frames.peer)
                return
            answer = await self._answered(frames.peer, data)
            with trio.move_on_after(RPC_SECONDS_MAX) as scope:
                await frames.send(message_encoded(answer))
            if scope.cancelled_caught:
                raise NetworkError("The peer asks and does not read what it is answered.")
            if isinstance(answer, Refusal):
                await self._note(frames.peer, answer)

    async def _answered(self, peer: NodeId, data: bytes) -> Answer:
        ask = ask_decoded(data)
        if self._answering >= ANSWERING_MAX:
            sentence = "This node answers many others at the moment; come again."
            return Refusal(Code.BUSY, sentence, retry_ms=BUSY_RETRY_MS)
        self._answering += 1
        try:
            return await self._desk.answer(peer, ask)
        finally:
            self._answering -= 1

    async def _note(self, peer: NodeId, answer: Refusal) -> None:
        self.refused[answer.code] += 1
        blamed = answer.code in _BLAMED_REFUSALS or (
            answer.code in set(Code) and is_blamed(RemoteError(Code(answer.code), ""))
        )
        if blamed and self._quotas.failed(peer, trio.current_time()):
            await self._network.disconnect(peer)
