"""Files of safetensors are untrusted: read right when they are right, refused when they are not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.worker.pipe import File
from node.worker.safetensors import SafetensorsFiles
from node.worker.weights import open_weights
from protocol.errors import Code, LocalError
from tests.node.worker import tiny_families
from tests.node.worker.tiny_families import FAMILIES, safetensors

TENSORS = {
    "a": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "c": torch.arange(4, dtype=torch.bfloat16),
}
WHOLE = safetensors(TENSORS)


def refusal(path: Path, data: bytes) -> str:
    """The sentence with which the file, or a tensor of it, is refused; empty if it is read."""
    path.write_bytes(data)
    try:
        with SafetensorsFiles([path]) as files:
            for name, tensor in list(files.tensors.items())[:4]:
                if len(tensor.shape) and tensor.size_bytes:
                    files.tensor(name, tensor.shape)
    except LocalError as error:
        return error.sentence if error.code == Code.BAD_MODEL else f"not as a bad model: {error}"
    return ""


def test_every_type_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(WHOLE)
    with SafetensorsFiles([tmp_path / "x.safetensors"]) as files:
        for name, values in TENSORS.items():
            assert torch.equal(files.tensor(name, tuple(values.shape)), values.float())
        assert files.format("b") == "F16"
        with pytest.raises(LocalError, match="is needed"):
            files.tensor("a", (4, 3))
        with pytest.raises(LocalError, match="no tensor"):
            files.tensor("d", (4,))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"a": {"dtype": "F32", "shape": [3, 5], "data_offsets": [0, 48]}}, "agree"),
        ({"a": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 48]}}, "agree"),
        ({"a": {"dtype": "F32", "shape": [1 << 63], "data_offsets": [0, 48]}}, "no list"),
        ({"a": {"dtype": "F32", "shape": [-3, -4], "data_offsets": [0, 48]}}, "no list"),
        ({"a": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}}, "no list"),
        ({"a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [48, 0]}}, "agree"),
        ({"a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}}, "holes"),
        ({"b": {"dtype": "F16", "shape": [2, 3], "data_offsets": [36, 48]}}, "overlap"),
        ({"b": None}, "holes"),
        ({"c": None}, "elsewhere"),
        ({"d": {"dtype": "F32", "shape": [1], "data_offsets": [68, 72]}}, "elsewhere"),
        ({"c": {"dtype": "I16", "shape": [4], "data_offsets": [60, 68]}}, "I16"),
        ({"c": {"dtype": "Q9", "shape": [4], "data_offsets": [60, 68]}}, "Q9"),
        ({"c": {"dtype": "BF16", "shape": [4], "data_offsets": [60, 68], "x": 1}}, "no list"),
        ({"c": [1, 2]}, "no list"),
    ],
)
def test_what_lies_is_refused(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    assert word in refusal(tmp_path / "odd.safetensors", safetensors(TENSORS, changes))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        b"\0" * 8,
        (1 << 63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        (200_006).to_bytes(8, "little") + b'{"a":' + b"[" * 200_000 + b"}",
        b"\x80\x02}q\x00." + bytes(60),  # A pickle.
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, data: bytes) -> None:
    assert refusal(tmp_path / "none.safetensors", data)


@given(st.integers(0, len(WHOLE) - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, size: int) -> None:
    assert refusal(tmp_path / "cut.safetensors", WHOLE[:size])


@given(st.integers(0, len(WHOLE)), st.binary(min_size=1, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_a_changed_file_is_read_or_refused(tmp_path: Path, at: int, junk: bytes) -> None:
    sentence = refusal(tmp_path / "junk.safetensors", WHOLE[:at] + junk + WHOLE[at + len(junk) :])
    assert not sentence.startswith("not as")


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    for path in paths:
        path.write_bytes(WHOLE)
    with pytest.raises(LocalError, match="another file"):
        SafetensorsFiles(paths)


def test_a_file_cut_while_it_is_open_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(WHOLE)
    with SafetensorsFiles([path]) as files:
        path.write_bytes(WHOLE[:-30])
        with pytest.raises(LocalError, match="in the middle of a tensor"):
            files.tensor("b", (2, 3))


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    files = tiny_families.save(tmp_path / "m", FAMILIES["llama"], parts=3)
    with open_weights(files) as weights:
        assert weights.container == "safetensors"
    without = [file for file in files if "00002-of" not in file.name]
    with pytest.raises(LocalError, match=r"00002-of-00003\.safetensors: a part is missing"):
        open_weights(without)


def test_weights_without_their_configuration_are_refused(tmp_path: Path) -> None:
    files = tiny_families.save(tmp_path / "m", FAMILIES["llama"])
    with pytest.raises(LocalError, match=r"config\.json"):
        open_weights([file for file in files if file.role == "weights"])
    (tmp_path / "m" / "config.json").write_text("[" * 100_000)
    with pytest.raises(LocalError, match="no JSON object"):
        open_weights(files)
    (tmp_path / "m" / "config.json").write_text(json.dumps([]))
    with pytest.raises(LocalError, match="no JSON object"):
        open_weights(files)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "weights.npz"])
def test_what_may_hold_programs_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """It is not even opened."""
    with pytest.raises(LocalError, match=name) as caught:
        open_weights([File("weights", name, str(tmp_path / name))])
    assert caught.value.code == Code.BAD_MODEL
    with pytest.raises(LocalError, match="no file of weights"):
        open_weights([])
