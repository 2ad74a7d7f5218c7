"""Which engine runs a model, and what people are told of it."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from node.worker.engine.device import choose
from node.worker.engine.model import Piece
from node.worker.engine.native_model import NativeModel
from node.worker.engine.opening import open_model
from node.worker.engine.packed_file import write_packed
from node.worker.engine.torch_model import TorchModel
from node.worker.pipe import Load, packed_name
from node.worker.weights import open_weights
from protocol.errors import Code, LocalError
from tests.node.worker.native_case import GREEDY, kernels, same_bits, weights_file, whole
from tests.tiny_model import BF16, Q4_1, TinyShape, hollow_model, tiny_gguf, tiny_model

MODEL = bytes(32)
CPU = choose("cpu", "f32")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    file = weights_file(tiny_model(tmp_path / "tiny.gguf", 1, Q4_1))
    return Load(MODEL, "tiny", [file], str(tmp_path / packed_name(MODEL)), "", 2, 256, 0, [])


def test_auto_takes_the_kernels_on_a_cpu_and_says_so(load: Load) -> None:
    kernels()
    opened = open_model(load, CPU, "auto", 1)
    assert isinstance(opened.model, NativeModel)
    assert opened.engine.startswith("native (")
    assert opened.engine.endswith(", 1 thread)")
    assert "It is packed anew at each start" in opened.note
    assert (opened.model.mode, opened.model.width) == ("native-1/gguf", 64)
    assert (opened.model.context_tokens, opened.model.blocks) == (256, 16)


def test_packed_weights_are_taken_where_they_are_and_give_the_same_bits(load: Load) -> None:
    kernels()
    in_memory = open_model(load, CPU, "native", 1)
    with open_weights(load.files) as weights:
        write_packed(Path(load.packed_path), MODEL, weights)
    Path(load.files[0].path).unlink()  # It is not looked at any more.
    mapped = open_model(load, CPU, "native", 2)
    assert mapped.note == ""
    ids = list(range(40))
    assert isinstance(in_memory.model, NativeModel)
    assert isinstance(mapped.model, NativeModel)
    assert same_bits(whole(in_memory.model, ids), whole(mapped.model, ids))


def test_what_was_rounded_is_said(load: Load, tmp_path: Path) -> None:
    kernels()
    file = weights_file(tiny_model(tmp_path / "other.gguf", 1, BF16))
    opened = open_model(msgspec.structs.replace(load, files=[file], packed_path=""), CPU, "auto", 1)
    assert opened.model.mode == "native-1/gguf-q8"
    assert opened.note.startswith("Tensors of BF16 were rounded (15), by 0.")


def test_torch_by_name_needs_no_note(load: Load) -> None:
    opened = open_model(load, CPU, "torch", 1)
    assert isinstance(opened.model, TorchModel)
    assert (opened.engine, opened.note) == ("torch (f32)", "")
    assert opened.model.step([Piece(range(1), 0, [1, 2], [GREEDY])])


def test_a_shape_that_the_kernels_cannot_run_goes_to_torch_and_says_why(
    load: Load, tmp_path: Path
) -> None:
    kernels()
    path = tmp_path / "odd.gguf"
    path.write_bytes(tiny_gguf(kind=BF16, shape=TinyShape(width=72, heads=2, key_heads=1)))
    odd = msgspec.structs.replace(load, files=[weights_file(path)])
    opened = open_model(odd, CPU, "auto", 1)
    assert isinstance(opened.model, TorchModel)
    assert opened.note == "Torch runs it, more slowly: its width is 72, no multiple of 32."
    with pytest.raises(LocalError, match='engine = "native": its width is 72') as refused:
        open_model(odd, CPU, "native", 1)
    assert refused.value.code == Code.UNAVAILABLE


def test_on_a_gpu_torch_needs_no_note_and_native_is_refused(load: Load) -> None:
    # A device of another kind that this machine has too, so that it is really opened.
    elsewhere = replace(CPU, torch_device=torch.device("meta"), name="a GPU")
    with pytest.raises(LocalError, match="it computes on a CPU, and a GPU was chosen"):
        open_model(load, elsewhere, "native", 1)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_model_too_large_is_refused_before_anything_of_it_is_read(
    load: Load, tmp_path: Path, engine: str
) -> None:
    if engine == "native":
        kernels()
    shape = TinyShape(layers=32, width=4096, inner_width=14336, heads=32, key_heads=8)
    path = hollow_model(tmp_path / "large.gguf", shape)
    assert path.stat().st_size > 12 << 30
    large = msgspec.structs.replace(
        load, files=[weights_file(path)], memory_bytes_max=2 << 30, context_tokens_max=0
    )
    with pytest.raises(LocalError, match=r"tiny needs \d+ MiB of memory and there are 2048") as no:
        open_model(large, CPU, engine, 1)
    assert no.value.code == Code.UNAVAILABLE
