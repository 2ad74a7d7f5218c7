"""Job messages on one stream: sealed and framed on the way out, judged on the way in."""

from typing import TypeVar

import trio
from msgspec import Struct

from node.network.base import Network, Stream
from node.network.framing import FrameStream
from node.network.quota import Quotas, is_blamed
from protocol import codec
from protocol.envelope import Opened, Signed, seal
from protocol.errors import Code, RemoteError
from protocol.identity import Identity
from protocol.ids import MessageId, NetworkId, NodeId
from protocol.job.terms import Cancel, Delta, Refuse
from protocol.limits import FRAME_BYTES_MAX, SENTENCE_BYTES_MAX
from protocol.messages import is_voucher, job_body, job_frame

B = TypeVar("B", bound=Struct)


class Courier:
    """One job's stream. Signs what must be signed; what comes is typed, its signature is checked
    and its signer is the peer that the handshake proved."""

    def __init__(
        self, stream: Stream, identity: Identity, network_id: NetworkId, quotas: Quotas
    ) -> None:
        self._frames = FrameStream(stream)
        self._identity = identity
        self._network_id = network_id
        self._quotas = quotas
        self.refused = False
        """Whether we have said no: then the peer is to read it before the stream ends."""
        self.takes_vouchers = False
        """Whether vouchers may come: they are handed on as they were signed, and whoever counts
        them checks the signature."""
        self.signature = b""
        """Of the last signed message that came and held."""

    @property
    def peer(self) -> NodeId:
        return self._frames.peer

    async def send(self, message: Struct) -> MessageId:
        """Seal and send; the id is that of the body. Raises NetworkError."""
        signed = seal(self._identity, self._network_id, message)
        await self._frames.send(codec.encode(signed))
        return signed.id

    async def send_signed(self, signed: Signed) -> None:
        """What is signed already. Raises NetworkError."""
        await self._frames.send(codec.encode(signed))

    async def send_unsigned(self, message: Delta | Cancel) -> None:
        """Raises NetworkError."""
        await self._frames.send(codec.encode(message))

    async def refuse(self, refused: bytes, error: RemoteError) -> None:
        """Say no in signed words. Raises NetworkError."""
        self.refused = True
        sentence = error.sentence[:SENTENCE_BYTES_MAX]
        await self.send(Refuse(refused, error.code, sentence, error.retry_ms))

    async def receive(
        self, kind: type[B], size_max: int = FRAME_BYTES_MAX
    ) -> Opened[B] | Signed | Delta | Cancel | None:
        """The next message, or None where the peer has closed its side.

        Raises NetworkError when the stream is gone; RemoteError for a frame or message that does
        not hold, QUOTA for too many. A signed message that does not hold has been refused then.
        """
        data = await self._frames.receive(size_max)
        if data is None:
            return None
        if self._quotas.framed(self.peer, trio.current_time()):
            raise RemoteError(Code.QUOTA, "More frames a second came than one peer may send.")
        frame = job_frame(data)
        if not isinstance(frame, Signed):
            return frame
        try:
            self._check_signer(frame)
            if self.takes_vouchers and is_voucher(frame):
                return frame
            opened = job_body(frame, self._network_id, kind)
            self.signature = frame.signature
            return opened
        except RemoteError as error:
            await self.refuse(frame.id, error)
            raise

    def _check_signer(self, frame: Signed) -> None:
        if frame.signer != self.peer:
            raise RemoteError(
                Code.WRONG_SIGNER,
                "The message is signed by another node than the one that sent it.",
            )

    async def close(self) -> None:
        """Close our side in order; what the peer still says can be received."""
        await self._frames.close()

    async def finish(self) -> None:
        """Close our side, and read until the peer has closed its own or five seconds passed."""
        await self._frames.finish()

    async def reset(self) -> None:
        await self._frames.reset()


async def charge(network: Network, quotas: Quotas, peer: NodeId, error: RemoteError) -> None:
    """Count what did not hold against the peer; past its quota it loses its connection."""
    over = error.code == Code.QUOTA
    if over or (is_blamed(error) and quotas.failed(peer, trio.current_time())):
        await network.disconnect(peer)
