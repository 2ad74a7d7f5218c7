"""Frames: whatever way the bytes are cut, whole frames come out or a stable code does."""

from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from node.network.base import NetworkError
from node.network.framing import FrameStream
from node.network.memory_stream import WINDOW_BYTES, MemoryStream
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId
from protocol.limits import FRAME_BYTES_MAX, FRAME_SECONDS_MAX

ANNA, BERTA = NodeId(b"a" * 32), NodeId(b"b" * 32)


def pair() -> tuple[MemoryStream, MemoryStream]:
    return MemoryStream.pair(ANNA, BERTA)


def framed(frame: bytes) -> bytes:
    return len(frame).to_bytes(4, "big") + frame


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


@given(st.lists(st.binary(max_size=50), max_size=8), st.lists(st.integers(0, 500), max_size=12))
def test_frames_come_out_whole_however_they_are_cut(frames: list[bytes], cuts: list[int]) -> None:
    async def main() -> None:
        left, right = pair()
        received: list[bytes | None] = []

        async def read() -> None:
            reader = FrameStream(right)
            while not received or received[-1] is not None:
                received.append(await reader.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for piece in split(b"".join(map(framed, frames)), cuts):
                await left.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
            await left.close()
        assert received == [*frames, None]

    trio.run(main)


@given(st.binary(max_size=40), st.data())
def test_an_end_within_a_frame_is_told_from_one_between(frame: bytes, data: st.DataObject) -> None:
    whole = framed(frame)
    size = data.draw(st.integers(1, len(whole) - 1))

    async def main() -> None:
        left, right = pair()
        await left.send_all(whole[:size])
        await left.close()
        with pytest.raises(RemoteError) as caught:
            await FrameStream(right).receive()
        assert caught.value.code is Code.BAD_FRAME

    trio.run(main)


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_a_code(data: bytes) -> None:
    async def main() -> None:
        left, right = pair()
        await left.send_all(data)
        await left.close()
        reader, codes = FrameStream(right), set[Code]()
        try:
            while (frame := await reader.receive(size_max=64)) is not None:
                assert len(frame) <= 64
        except RemoteError as error:
            codes.add(error.code)
        assert codes <= {Code.BAD_FRAME, Code.TOO_LARGE}

    trio.run(main)


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5), st.lists(st.integers(0, 300)))
def test_a_cancelled_receive_loses_nothing(frames: list[bytes], cuts: list[int]) -> None:
    async def main() -> None:
        left, right = pair()
        reader = FrameStream(right)
        received: list[bytes] = []
        for piece in [*split(b"".join(map(framed, frames)), cuts), b""]:
            while True:  # Take what is there, and give up in the middle of the next frame.
                with trio.move_on_after(0.001) as scope:
                    frame = await reader.receive()
                    assert frame is not None
                    received.append(frame)
                if scope.cancelled_caught:
                    break
            await left.send_all(piece)
        assert received == frames

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_too_large_a_frame_is_refused_by_its_length() -> None:
    left, right = pair()
    await left.send_all((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(RemoteError) as caught:
        await FrameStream(right).receive()
    assert caught.value.code is Code.TOO_LARGE


async def test_a_frame_that_dribbles_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    left, right = pair()

    async def dribble() -> None:
        for byte in framed(b"x" * 100):
            await left.send_all(bytes([byte]))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        with pytest.raises(RemoteError) as caught:
            await FrameStream(right).receive()
        assert caught.value.code is Code.BAD_FRAME
        assert trio.current_time() == pytest.approx(FRAME_SECONDS_MAX, abs=2)
        nursery.cancel_scope.cancel()


async def test_silence_between_frames_is_no_fault(autojump_clock: trio.testing.MockClock) -> None:
    left, right = pair()
    reader = FrameStream(right)
    await left.send_all(framed(b"one"))
    assert await reader.receive() == b"one"

    async def later() -> None:
        await trio.sleep(100 * FRAME_SECONDS_MAX)
        await left.send_all(framed(b"two"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        assert await reader.receive() == b"two"


async def test_a_reader_that_was_busy_blames_nobody(autojump_clock: trio.testing.MockClock) -> None:
    left, right = pair()
    reader = FrameStream(right)
    two = framed(b"two")
    await left.send_all(framed(b"one") + two[:3])
    assert await reader.receive() == b"one"
    await left.send_all(two[3:])
    await trio.sleep(100 * FRAME_SECONDS_MAX)
    assert await reader.receive() == b"two"


async def test_a_cut_frame_is_the_last(autojump_clock: trio.testing.MockClock) -> None:
    left, _right = pair()
    writer = FrameStream(left)
    with trio.move_on_after(1) as scope:
        await writer.send(b"x" * (WINDOW_BYTES + 1))
    assert scope.cancelled_caught
    with pytest.raises(NetworkError, match="cut off"):
        await writer.send(b"next")


async def test_a_sender_that_gives_up_its_turn_has_cut_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = pair()
    writer, reader = FrameStream(left), FrameStream(right)
    large = b"x" * (WINDOW_BYTES + 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.send, large)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await writer.send(b"second")
        assert scope.cancelled_caught
        assert await reader.receive() == large
    await writer.send(b"third")
    assert await reader.receive() == b"third"


async def test_finish_waits_for_the_peer_but_not_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = pair()
    await FrameStream(left).finish()
    assert trio.current_time() == pytest.approx(5, abs=0.1)
    with pytest.raises(NetworkError):
        await right.send_all(b"late")
    left, right = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(FrameStream(left).finish)
        await right.send_all(b"thrown away")
        assert await right.receive_some(1) == b""
        await right.close()
