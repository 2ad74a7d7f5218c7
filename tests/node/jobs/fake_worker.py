"""A worker process without a model: speaks the pipe, and misbehaves when the prompt asks it to."""

import os
import signal
import sys

from node.worker import pipe
from protocol.errors import Code

measures: list[bytes] = []
forgotten: set[int] = set()


def say(*messages: pipe.FromWorker) -> None:
    for message in messages:
        sys.stdout.buffer.write(pipe.frame(message))
    sys.stdout.buffer.flush()


def answer(add: pipe.Add) -> None:
    match add.text:
        case "die":
            sys.stderr.write("a secret word\nworker fault: RuntimeError at loop.py:1 run\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        case "garbage":
            sys.stdout.buffer.write(b"\0\0\0\1x")
            sys.stdout.buffer.flush()
        case "flood":
            say(*[pipe.Progress(add.task, [1], "x", [], [])] * (add.output_tokens_max + 10))
        case "stranger":
            say(pipe.Ended(add.task + 1000, "stop"))
        case "refuse":
            say(pipe.Failed(add.task, Code.BAD_REQUEST, "no such thing"))
        case "environment":
            names = " ".join(sorted(os.environ))
            say(pipe.Progress(add.task, [1], names, [], []), pipe.Ended(add.task, "stop"))
        case "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say(pipe.Began(add.task, 1, bytes(32)))
            while True:
                signal.pause()
        case "leaves":
            say(pipe.Began(add.task, 1, bytes(32)))
            say(pipe.Progress(add.task, [1, 2], "one two", [bytes(32)], []))
        case "unasked":
            say(pipe.Opened(add.task, []))
        case "rows":
            # A leaf of zeros says of a fake what it is.
            say(pipe.Began(add.task, 1, bytes(32)))
            say(pipe.Progress(add.task, [1, 2], "one two", [bytes(32)] * 2, []))
            say(pipe.Ended(add.task, "stop"))
        case "wait":
            say(pipe.Began(add.task, 1, bytes(32)), pipe.Progress(add.task, [1], "one", [], []))
        case text:
            say(pipe.Began(add.task, len(text), bytes(32)))
            say(pipe.Progress(add.task, [1], text, [], []), pipe.Ended(add.task, "stop"))


def loaded(load: pipe.Load) -> pipe.Loaded:
    return pipe.Loaded(
        load.model, "cpu-f32/gguf", 100, load.slots, 9, 4, "generate", "fake", "a note"
    )


def take(message: pipe.ToWorker) -> None:
    match message:
        case pipe.Start():
            say(pipe.Ready("fake", "cpu-f32", "0", ["nothing"]))
        case pipe.Load(model, name):
            if name == "broken":
                say(pipe.LoadFailed(model, Code.BAD_MODEL, "broken cannot be used"))
            else:
                say(loaded(message))
        case pipe.Measure(model):
            measures.append(model)
            times = measures.count(model)  # It gets faster.
            say(pipe.Measured(model, 2000 * times, 1000 * times))
        case pipe.Add():
            answer(message)
        case pipe.Open(task, places):
            if places == [666]:
                os.kill(os.getpid(), signal.SIGKILL)
            rows = [b"" if task in forgotten else bytes([task, place]) for place in places]
            say(pipe.Opened(task, rows))
        case pipe.Forget(task):
            forgotten.add(task)
        case pipe.Cancel(task):
            say(pipe.Ended(task, "cancelled"))


def main() -> None:
    frames = pipe.Frames()
    while data := os.read(0, 65536):
        for body in frames.feed(data):
            take(pipe.to_worker(body))


main()
