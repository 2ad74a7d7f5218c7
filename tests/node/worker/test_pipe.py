"""The frames between daemon and worker survive any cut and refuse what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.worker import pipe
from protocol.job.sampling import Sampling

ADD = pipe.Add(
    7, b"m" * 32, [("user", "why?")], "", ["\n"], Sampling(top_k=3), b"s" * 32, 2, [5, 6], 100
)
TO_WORKER: list[pipe.ToWorker] = [
    pipe.Start(0, True, "auto", "auto"),
    pipe.Load(b"m" * 32, "tiny", "/w.gguf", "", 2, 0),
    pipe.Measure(b"m" * 32),
    ADD,
    pipe.Cancel(7),
]


def test_messages_come_through_however_the_stream_is_cut() -> None:
    stream = b"".join(pipe.frame(message) for message in TO_WORKER)
    for size in (1, 2, 3, 7, 64, len(stream)):
        frames = pipe.Frames()
        heard = [
            pipe.to_worker(body)
            for at in range(0, len(stream), size)
            for body in frames.feed(stream[at : at + size])
        ]
        assert heard == TO_WORKER


def test_a_frame_that_is_too_long_is_refused_before_it_comes() -> None:
    frames = pipe.Frames()
    with pytest.raises(pipe.PipeError):
        list(frames.feed((pipe.PIPE_FRAME_BYTES_MAX + 1).to_bytes(4, "big")))


@given(st.binary(max_size=200))
def test_garbage_is_a_pipe_error_and_nothing_else(data: bytes) -> None:
    for read in (pipe.to_worker, pipe.from_worker):
        try:
            read(data)
        except pipe.PipeError:
            continue


def test_a_message_out_of_its_bounds_is_refused() -> None:
    body = pipe.frame(pipe.Began(1, 3, b"d" * 32))[4:]
    assert pipe.from_worker(body) == pipe.Began(1, 3, b"d" * 32)
    with pytest.raises(pipe.PipeError):
        pipe.from_worker(pipe.frame(pipe.Began(1, 3, b"short"))[4:])
    with pytest.raises(pipe.PipeError):
        pipe.to_worker(body)
