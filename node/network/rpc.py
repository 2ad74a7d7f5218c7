"""One question, one answer: a frame each way on a stream of its own."""

from collections.abc import Awaitable, Callable

import trio

from node.network.base import Handler, Network, NetworkError, Stream
from node.network.framing import FrameStream
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId
from protocol.limits import FRAME_BYTES_MAX, RPC_SECONDS_MAX

Answer = Callable[[NodeId, bytes], Awaitable[bytes]]
"""(who asks, the request) -> the response. RemoteError when the peer may not ask this: it costs
the peer the stream and counts as a failed check where its code blames the peer."""


async def ask(
    network: Network, peer: NodeId, protocol: str, request: bytes, size_max: int = FRAME_BYTES_MAX
) -> bytes:
    """The response of a connected peer, at most `size_max` bytes.

    Raises NetworkError when the peer is gone, does not speak `protocol`, takes longer than
    RPC_SECONDS_MAX or hangs up without an answer; RemoteError when what comes is no good frame.
    """
    stream: Stream | None = None
    with trio.move_on_after(RPC_SECONDS_MAX):
        stream = await network.open(peer, protocol)
        try:
            response = await _exchange(FrameStream(stream), request, size_max)
        except BaseException:
            await stream.reset()
            raise
        return response
    raise NetworkError(f"No answer on {protocol} within {RPC_SECONDS_MAX} seconds.")


async def _exchange(frames: FrameStream, request: bytes, size_max: int) -> bytes:
    await frames.send(request)
    await frames.close()
    response = await frames.receive(size_max)
    if response is None:
        raise NetworkError("The peer hung up without an answer.")
    if await frames.receive(size_max) is not None:
        raise RemoteError(Code.UNEXPECTED, "A second answer came to one question.")
    return response


def answering(answer: Answer, size_max: int = FRAME_BYTES_MAX) -> Handler:
    """The handler to `serve`: one request of at most `size_max` bytes, one response."""

    async def handle(stream: Stream) -> None:
        frames = FrameStream(stream)
        request: bytes | None = None
        with trio.move_on_after(RPC_SECONDS_MAX) as scope:
            request = await frames.receive(size_max)
            if request is not None:
                await frames.send(await answer(frames.peer, request))
        if scope.cancelled_caught:
            raise NetworkError(f"The exchange took longer than {RPC_SECONDS_MAX} seconds.")

    return handle
