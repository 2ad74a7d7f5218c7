"""Packs models for the native engine into files: `python -I -c .. node.worker.pack`.

A process of its own that the daemon runs before the worker, which may write no files. It hears a
Start and a Load for each model, until its input ends; where a file is there already, or could not
be used, it does nothing, and mostly without importing torch. What went wrong is said on stderr, and
then the worker packs that model in memory, at each start.
"""

import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

from node.worker import sandbox
from node.worker.engine.kernels import library
from node.worker.engine.packed_index import NotPackedError, obstacle, read_index
from node.worker.pipe import Frames, Load, PipeError, Start, ToWorker, to_worker
from protocol.errors import LocalError


def messages(descriptor: int) -> list[ToWorker]:
    """All that was said, to the end of the input. Raises PipeError for what is no message."""
    frames, heard = Frames(), list[ToWorker]()
    while data := os.read(descriptor, 64 << 10):
        heard += [to_worker(body) for body in frames.feed(data)]
    return heard


def wanted(heard: list[ToWorker]) -> tuple[Start, list[Load]]:
    """How the worker will start, and the models that are to be packed for it and are not yet.
    Raises PipeError for a message that has no place here."""
    if not heard or not isinstance(start := heard[0], Start):
        raise PipeError("the first message is no start")
    lacking = []
    for load in heard[1:]:
        if not isinstance(load, Load):
            raise PipeError("only models can be packed")
        if load.packed_path and not _is_packed(load):
            lacking.append(load)
    return start, lacking


def _is_packed(load: Load) -> bool:
    try:
        read_index(Path(load.packed_path), load.model)
    except NotPackedError:
        return False
    return True


def pack(load: Load) -> str:
    """Write one file. Gives what went wrong, for people; "" where it was written, or would be of
    no use. What is wrong with the model itself the worker will say."""
    from node.worker.engine.packed_file import write_packed
    from node.worker.weights import open_weights

    try:
        with open_weights(load.files) as weights:
            if not obstacle(weights.shape):
                write_packed(Path(load.packed_path), load.model, weights)
    except LocalError:
        return ""
    except OSError as error:
        where = Path(load.packed_path).parent
        return f"{load.name} cannot be kept packed in {where}: {error.strerror}"
    return ""


def main() -> int:
    """The exit status: 0 when all that can be packed is."""
    sandbox.quiet_faults()
    warnings.simplefilter("ignore")
    read, _ = sandbox.take_pipe()
    start, lacking = wanted(messages(read))
    if start.engine == "torch" or not lacking or library.load() is None:
        return 0
    folders = sorted({str(Path(load.packed_path).parent) for load in lacking})
    for folder in folders:
        with suppress(OSError):  # What cannot be made will be said of the file in it.
            Path(folder).mkdir(parents=True, exist_ok=True)
    sandbox.confine(start, writable=folders)
    from node.worker.engine.device import choose

    try:
        device = choose(start.device, start.compute)
    except LocalError as error:
        sys.stderr.write(f"worker: {error.sentence}\n")
        return 1
    if device.torch_device.type != "cpu":
        return 0
    faults = [fault for load in lacking if (fault := pack(load))]
    for fault in faults:
        sys.stderr.write(f"worker: {fault}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
