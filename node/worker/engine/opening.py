"""From the files of a model to a model that runs: on the native kernels where they fit, else torch.

Nothing is chosen silently: what was lost, or is slower than it could be, is said in a note.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

import torch

from node.worker.engine.cores import physical_cores
from node.worker.engine.device import Device
from node.worker.engine.kernels import library
from node.worker.engine.kernels.library import Kernels
from node.worker.engine.model import OpenedModel
from node.worker.engine.native_model import NativeModel
from node.worker.engine.native_plan import need
from node.worker.engine.packed_file import map_packed
from node.worker.engine.packed_index import NotPackedError, obstacle
from node.worker.engine.packed_model import (
    MemorySink,
    PackedModel,
    pack_model,
    packed_model_bytes,
)
from node.worker.engine.room import Asked, Room, room
from node.worker.engine.torch_model import TorchModel, need_of
from node.worker.engine.torch_threads import one_thread
from node.worker.pipe import Load
from node.worker.shape import Shape
from node.worker.weights import Weights, open_weights
from protocol.errors import Code, LocalError

ENGINES: Final = ("auto", "native", "torch")
HOW_TO_BUILD: Final = (
    "install a C compiler (or `pip install ziglang`), run `python -m "
    "node.worker.engine.kernels.build` and start again"
)


def open_model(load: Load, device: Device, engine: str, threads: int) -> OpenedModel:
    """`engine` is one of ENGINES; `threads` is the most that may run at once.

    Raises LocalError: BAD_MODEL or NOT_FOUND for the files, UNAVAILABLE when memory does not
    suffice (before anything is loaded) or the native engine, asked for by name, cannot run this.
    """
    if engine == "torch":
        return _open_torch(load, device, "")
    kernels, why = _kernels(device)
    if kernels is not None:
        try:
            return _open_packed(load, kernels, threads)
        except NotPackedError as error:
            note = f"It is packed anew at each start: {error}." if load.packed_path else ""
        with open_weights(load.files) as weights:
            why = obstacle(weights.shape)
            if not why:
                opened = _pack_and_open(load, weights, kernels, threads)
                return replace(opened, note=_together(note, opened.note))
    if engine == "native":
        raise LocalError(
            Code.UNAVAILABLE,
            f'{load.name} cannot run with engine = "native": {why}. Set it to auto.',
        )
    # On a GPU torch is the best that there is, which needs no note.
    is_note = device.torch_device.type == "cpu"
    return _open_torch(load, device, f"Torch runs it, more slowly: {why}." if is_note else "")


def _kernels(device: Device) -> tuple[Kernels | None, str]:
    """The native kernels, or why there are none for this device."""
    if device.torch_device.type != "cpu":
        return None, f"it computes on a CPU, and {device.name} was chosen"
    kernels = library.load()
    if kernels is None:
        return None, f"there is no compiled kernel on this machine: {HOW_TO_BUILD}"
    return kernels, ""


def _open_packed(load: Load, kernels: Kernels, threads: int) -> OpenedModel:
    """From the file of packed weights. Raises NotPackedError where it is not there."""
    if not load.packed_path:
        raise NotPackedError("there is no place for what is packed")
    packed = map_packed(Path(load.packed_path), load.model)
    found = _room(load, packed.index.shape, packed.index.end, kernels, threads)
    return _native(load, packed, kernels, found, threads)


def _pack_and_open(load: Load, weights: Weights, kernels: Kernels, threads: int) -> OpenedModel:
    size = packed_model_bytes(weights)
    found = _room(load, weights.shape, size, kernels, threads)
    try:
        with torch.inference_mode(), one_thread():
            sink = MemorySink(size)
            index = pack_model(weights, sink)
    except (MemoryError, RuntimeError) as error:
        _refuse_memory(load, error)
    return _native(load, PackedModel(index, sink.data), kernels, found, threads)


def _room(load: Load, shape: Shape, size: int, kernels: Kernels, threads: int) -> Room:
    wanted = need(shape, size, kernels, _threads(threads), load.slots)
    return room(wanted, _asked(load, load.memory_bytes_max), shape.context_tokens)


def _native(
    load: Load, packed: PackedModel, kernels: Kernels, found: Room, threads: int
) -> OpenedModel:
    number, name = kernels.paths()[0]
    count = _threads(threads)
    try:
        model = NativeModel(packed, kernels, found, count, number)
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"{load.name} cannot be run: {error}.") from None
    except (MemoryError, RuntimeError) as error:
        _refuse_memory(load, error)
    notes = [*packed.index.losses, found.note]
    if name == "portable":
        notes.append("This processor has no instructions that the kernels know: it is slow.")
    plural = "thread" if count == 1 else "threads"
    return OpenedModel(model, f"native ({name}, {count} {plural})", _together(*notes))


def _open_torch(load: Load, device: Device, note: str) -> OpenedModel:
    with open_weights(load.files) as weights:
        bytes_max = load.memory_bytes_max
        if not bytes_max and device.torch_device.type == "cuda":
            bytes_max = torch.cuda.mem_get_info(device.torch_device)[0]
        shape = weights.shape
        found = room(need_of(shape, device), _asked(load, bytes_max), shape.context_tokens)
        model = TorchModel(weights, device, found.blocks, found.context_tokens)
    return OpenedModel(model, model.engine, _together(note, found.note))


def _together(*notes: str) -> str:
    return " ".join(filter(None, notes))


def _asked(load: Load, bytes_max: int) -> Asked:
    return Asked(load.name, load.slots, load.context_tokens_max, bytes_max)


def _threads(threads: int) -> int:
    return max(1, min(threads, physical_cores(), library.THREADS_MAX))


def _refuse_memory(load: Load, error: MemoryError | RuntimeError) -> NoReturn:
    # Torch's allocator for the CPU has no class of error of its own.
    if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
        raise error
    raise LocalError(
        Code.UNAVAILABLE,
        f"There is not enough memory for {load.name}: share a smaller model, fewer slots or a "
        "shorter context.",
    ) from None
