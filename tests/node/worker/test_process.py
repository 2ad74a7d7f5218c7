"""The real process at the end of a real pipe: it never outlives whoever holds the other end."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.jobs.worker_process import worker_command, worker_environment
from node.worker import pipe
from protocol.job.sampling import Sampling
from tests.tiny_model import tiny_model

MODEL = b"m" * 32
START = pipe.Start(1, False, "cpu", "f32", "auto", [tempfile.gettempdir()])


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        worker_command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=worker_environment({}),
    ) as child:
        yield child
        child.kill()


def say(process: subprocess.Popen[bytes], *messages: pipe.ToWorker) -> None:
    assert process.stdin is not None
    process.stdin.write(b"".join(pipe.frame(message) for message in messages))
    process.stdin.flush()


def hear(process: subprocess.Popen[bytes]) -> pipe.FromWorker:
    assert process.stdout is not None
    size = int.from_bytes(process.stdout.read(4), "big")
    return pipe.from_worker(process.stdout.read(size))


def test_it_ends_in_mid_answer_when_the_pipe_closes(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    files = [pipe.File("weights", "tiny.gguf", str(tiny_model(tmp_path / "tiny.gguf")))]
    load = pipe.Load(MODEL, "tiny", files, "", "", 1, 1000, 0, [])
    add = pipe.Add(1, MODEL, b"", [], "a secret word", [], Sampling(), bytes(32), 0, [], 900)
    say(process, START, load, add)
    kinds = [type(hear(process)) for _ in range(4)]
    assert kinds == [pipe.Ready, pipe.Loaded, pipe.Began, pipe.Progress]
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=30) == 0
    assert process.stderr is not None
    assert b"secret" not in process.stderr.read()


@pytest.mark.parametrize(
    "data", [b"\0\0\0\1x", b"\xff\xff\xff\xff", pipe.frame(pipe.Cancel(1)), b"\0\0"]
)
def test_a_first_message_that_is_none_ends_it(
    process: subprocess.Popen[bytes], data: bytes
) -> None:
    _, errors = process.communicate(data, timeout=30)
    assert process.returncode == 1
    assert errors.startswith(b"worker fault: PipeError")


def test_a_device_that_is_not_here_is_said_and_ends_it(process: subprocess.Popen[bytes]) -> None:
    say(process, pipe.Start(1, False, "tpu", "auto", "auto", []))
    assert process.wait(timeout=60) == 1
    assert process.stderr is not None
    assert b"The device tpu is not here" in process.stderr.read()
