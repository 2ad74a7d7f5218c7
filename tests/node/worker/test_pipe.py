"""The frames between daemon and worker survive any cut and refuse what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.worker import pipe
from protocol.job.sampling import Sampling

ADD = pipe.Add(
    task=7,
    model=b"m" * 32,
    requester=b"r" * 32,
    messages=[("user", "why?")],
    text="",
    stop=["\n"],
    sampling=Sampling(top_k=3),
    seed=b"s" * 32,
    first_t=2,
    prefix_ids=[5, 6],
    output_tokens_max=100,
)
LOAD = pipe.Load(
    model=b"m" * 32,
    name="tiny",
    files=[pipe.File("weights", "w.gguf", "w.gguf")],
    packed_path="",
    chat_template="",
    slots=2,
    context_tokens_max=0,
    memory_bytes_max=0,
    public_prefixes=["You are kind."],
)
TO_WORKER: list[pipe.ToWorker] = [
    pipe.Start(0, True, "auto", "auto", "native", ["models"]),
    LOAD,
    pipe.Measure(b"m" * 32),
    ADD,
    pipe.Cancel(7),
    pipe.Open(7, [2, 3]),
    pipe.Forget(7),
    pipe.Embed(8, b"m" * 32, b"", ["one", "two"]),
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
