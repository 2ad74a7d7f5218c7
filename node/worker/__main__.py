"""The worker process: `python -I -c .. node.worker`, started by the daemon and by nobody else."""

import os
import sys
import warnings

from node.worker import sandbox
from node.worker.pipe import Frames, PipeError, Start, ToWorker, to_worker

LENGTH_AT_START = 1 << 20  # A start message names files; the rest is heard later.


def first_message(descriptor: int) -> ToWorker:
    """Read exactly the first frame, so that what follows it stays in the pipe."""
    frames = Frames()
    needed = 4
    data = b""
    while len(data) < needed:
        piece = os.read(descriptor, needed - len(data))
        if not piece:
            raise PipeError("it ended before the first message")
        data += piece
        if len(data) == 4:
            needed = 4 + min(int.from_bytes(data, "big"), LENGTH_AT_START)
    for body in frames.feed(data):
        return to_worker(body)
    raise PipeError("the first message is no start")


def main() -> int:
    """The exit status: 0 when the daemon is gone, 1 for a fault of our own."""
    sandbox.quiet_faults()
    warnings.simplefilter("ignore")  # A warning prints values; ours must print none.
    read, write = sandbox.take_pipe()
    start = first_message(read)
    if not isinstance(start, Start):
        raise PipeError("the first message is no start")
    confined = sandbox.confine(start)
    # Torch starts threads, and only a process of one thread can leave its network: so it comes
    # after the sandbox, and the reader thread after that.
    try:
        import torch

        from node.worker import loop
        from protocol.errors import LocalError
    except ImportError as error:
        # No prompt has come yet, so these words may be shown.
        sys.stderr.write(f"worker: it cannot import what it needs: {error}\n")
        return 1
    threads = sandbox.threads_wanted(start.threads)
    torch.set_num_threads(threads)
    try:
        loop.run(start, threads, loop.Inbox(read), write, confined)
    except LocalError as error:
        sys.stderr.write(f"worker: {error.sentence}\n")
        return 1
    except OSError:
        return 0  # The daemon is gone.


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # At once: the reader thread waits in a system call, and torch takes its time to tidy up.
    os._exit(status)
