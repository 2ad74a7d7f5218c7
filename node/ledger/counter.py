"""Serves the ledger's streams: frames in, answers out, each peer within its quota."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, get_args

import trio

from node.ledger.witness import Desk
from node.network.base import Network, NetworkError, Stream
from node.network.framing import FrameStream
from node.network.quota import Quotas, is_blamed
from protocol.errors import Code, LocalError, RemoteError
from protocol.ids import NodeId
from protocol.ledger.sync import (
    Announce,
    Answer,
    Ask,
    AskReport,
    AskSettlement,
    Lock,
    Propose,
    Refusal,
    SettlementAsk,
    Submit,
    TellSettlement,
    ask_decoded,
    message_encoded,
)
from protocol.limits import FRAME_BYTES_MAX, LEDGER_ASKS_AT_ONCE_MAX, RPC_SECONDS_MAX

STREAMS_PER_PEER_MAX: Final = 4  # Ours hold two: one for what hurries, one for what does not.
ANSWERING_MAX: Final = 256  # At once, whoever asks: each may hold a frame of a MiB.
IDLE_SECONDS_MAX: Final = 300  # A stream that says nothing is closed; its owner opens another.
BUSY_RETRY_MS: Final = 500
DISK_RETRY_MS: Final = 5_000

# Questions with small answers, so that those to many of them fit in memory.
_SMALL: Final = (Submit, Announce, *get_args(SettlementAsk))

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
        Code.BAD_VOUCHER,
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
            asks = [ask_decoded(data)]
            # What has come with it is answered with it: most of the cost is in reads and writes.
            while isinstance(asks[-1], _SMALL) and len(asks) < LEDGER_ASKS_AT_ONCE_MAX:
                if (data := frames.come()) is None:
                    break
                asks.append(ask_decoded(data))
            if any(self._quotas.framed(frames.peer, trio.current_time()) for _ in asks):
                await self._network.disconnect(frames.peer)
                return
            await self._answer(frames, asks)

    async def _answer(self, frames: FrameStream, asks: Sequence[Ask]) -> None:
        answers = await self._answered_all(frames.peer, asks)
        with trio.move_on_after(RPC_SECONDS_MAX) as scope:
            await frames.send(*(message_encoded(answer) for answer in answers))
        if scope.cancelled_caught:
            raise NetworkError("The peer asks and does not read what it is answered.")
        for answer in answers:
            if isinstance(answer, Refusal):
                await self._note(frames.peer, answer)

    async def _answered_all(self, peer: NodeId, asks: Sequence[Ask]) -> Sequence[Answer]:
        """The answers, in the order of the questions. Those about different accounts share waits
        for the disk; those about one account are answered one after another, since what comes
        first may be what the next one needs."""
        if len(asks) == 1:
            return [await self._answered(peer, asks[0])]
        answers: dict[int, Answer] = {}
        by_account: dict[object, list[int]] = {}
        for place, ask in enumerate(asks):
            by_account.setdefault(_account(ask), []).append(place)

        async def answer_some(places: Sequence[int]) -> None:
            for place in places:
                answers[place] = await self._answered(peer, asks[place])

        async with trio.open_nursery() as nursery:
            for places in by_account.values():
                nursery.start_soon(answer_some, places)
        return [answers[place] for place in range(len(asks))]

    async def _answered(self, peer: NodeId, ask: Ask) -> Answer:
        if self._answering >= ANSWERING_MAX:
            sentence = "This node answers many others at the moment; come again."
            return Refusal(Code.BUSY, sentence, retry_ms=BUSY_RETRY_MS)
        self._answering += 1
        try:
            return await self._desk.answer(peer, ask)
        except LocalError as error:
            if error.code is not Code.UNAVAILABLE:
                raise
            # A disk that takes nothing now. Where and why is for the owner alone.
            sentence = "This node cannot write to its disk now; come again."
            return Refusal(Code.BUSY, sentence, retry_ms=DISK_RETRY_MS)
        finally:
            self._answering -= 1

    async def _note(self, peer: NodeId, answer: Refusal) -> None:
        self.refused[answer.code] += 1
        blamed = answer.code in _BLAMED_REFUSALS or (
            answer.code in set(Code) and is_blamed(RemoteError(Code(answer.code), ""))
        )
        if blamed and self._quotas.failed(peer, trio.current_time()):
            await self._network.disconnect(peer)


def _account(ask: Ask) -> object:
    """Whose chain or channel a question is about."""
    match ask:
        case Submit(entry):
            return entry.signer
        case Announce(certified):
            return certified.entry.signer
        case AskReport() | Propose() | Lock() | TellSettlement():
            return ask.open.entry.id
        case AskSettlement(channel):
            return channel
        case _:
            return type(ask)
