"""Packed weights on disk: whole or not at all, and never taken for what they are not."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from node.jobs.worker_process import packer_command
from node.worker import pack
from node.worker.engine.packed_file import is_intact, map_packed, write_packed
from node.worker.engine.packed_index import (
    PRELUDE_BYTES,
    Header,
    NotPackedError,
    obstacle,
    prelude,
    read_header,
    read_index,
)
from node.worker.engine.packed_model import MemorySink, pack_model, packed_model_bytes
from node.worker.pipe import (
    PACKED_LAYOUT,
    File,
    Load,
    Measure,
    PipeError,
    Start,
    ToWorker,
    frame,
    packed_name,
)
from node.worker.shape_limits import is_sound
from node.worker.weights import open_weights
from protocol.errors import LocalError
from tests.node.worker.native_case import kernels, weights_file
from tests.tiny_model import Q4_1, Q8_0, tiny_model

MODEL = bytes(range(32))


@pytest.fixture
def files(tmp_path: Path) -> list[File]:
    return [weights_file(tiny_model(tmp_path / "tiny.gguf", 1, Q4_1))]


@pytest.fixture
def packed(tmp_path: Path, files: list[File]) -> Path:
    return written(tmp_path / "packed", files)


def written(folder: Path, files: Sequence[File]) -> Path:
    path = folder / packed_name(MODEL)
    with open_weights(files) as weights:
        write_packed(path, MODEL, weights)
    return path


def test_what_is_mapped_is_what_is_packed_in_memory(packed: Path, files: list[File]) -> None:
    with open_weights(files) as weights:
        sink = MemorySink(packed_model_bytes(weights))
        index = pack_model(weights, sink)
    assert sink.place == packed_model_bytes(weights)
    mapped = map_packed(packed, MODEL)
    assert mapped.index == index == read_index(packed, MODEL)
    assert torch.equal(mapped.data, sink.data)
    assert mapped.data.data_ptr() % 64 == 0
    assert is_intact(packed, MODEL)
    assert obstacle(index.shape) == ""
    assert is_sound(replace(index.shape, vocabulary=(1 << 19) - 1))
    assert not is_sound(replace(index.shape, vocabulary=1 << 19))


def test_nothing_but_the_file_is_left_and_it_is_not_written_twice(
    packed: Path, files: list[File]
) -> None:
    assert [path.name for path in packed.parent.iterdir()] == [packed_name(MODEL)]
    before = packed.stat()
    written(packed.parent, files)
    assert (packed.stat().st_ino, packed.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("end", [0, 8, 63, 64, 5000, -1])
def test_one_that_was_cut_short_is_not_taken_and_made_again(
    packed: Path, files: list[File], end: int
) -> None:
    whole = packed.read_bytes()
    packed.write_bytes(whole[:end])
    with pytest.raises(NotPackedError):
        map_packed(packed, MODEL)
    written(packed.parent, files)
    assert packed.read_bytes() == whole


@pytest.mark.parametrize("at", [0, 8, 12, 16, 24, 60, -1, -400])
def test_a_damaged_header_is_seen(packed: Path, at: int) -> None:
    data = bytearray(packed.read_bytes())
    data[at] ^= 1
    packed.write_bytes(data)
    if at == 60:  # Filling.
        map_packed(packed, MODEL)
        return
    with pytest.raises(NotPackedError):
        map_packed(packed, MODEL)


def test_damaged_weights_are_seen_by_who_reads_them_all(packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    data[70] ^= 1
    packed.write_bytes(data)
    map_packed(packed, MODEL)
    assert not is_intact(packed, MODEL)


def test_another_models_is_not_taken(packed: Path) -> None:
    with pytest.raises(NotPackedError, match="another model"):
        map_packed(packed, bytes(32))


@pytest.mark.parametrize("changes", [{"windowed": ()}, {"norm_epsilon": -1.0}])
def test_a_shape_that_no_model_has_is_not_taken(packed: Path, changes: dict[str, Any]) -> None:
    with packed.open("rb") as file:
        header = read_header(file, MODEL)
    wrong = msgspec.structs.replace(header.index, shape=replace(header.index.shape, **changes))
    raw = msgspec.msgpack.encode(Header(MODEL, header.digest, wrong))
    body = packed.read_bytes()[PRELUDE_BYTES : PRELUDE_BYTES + wrong.end]
    packed.write_bytes(prelude(wrong.end, raw) + body + raw)
    with pytest.raises(NotPackedError, match="does not fit"):
        map_packed(packed, MODEL)


def test_one_of_another_layout_is_not_taken_and_goes(packed: Path, files: list[File]) -> None:
    data = bytearray(packed.read_bytes())
    data[8:12] = (PACKED_LAYOUT + 1).to_bytes(4, "little")
    other = packed.with_name(f"{MODEL.hex()}-{PACKED_LAYOUT + 1}.ayni")
    stranger = packed.with_name(f"{bytes(32).hex()}-{PACKED_LAYOUT}.ayni")
    for path in (packed, other, stranger):
        path.write_bytes(data)
    with pytest.raises(NotPackedError, match="layout"):
        map_packed(packed, MODEL)
    written(packed.parent, files)
    assert {path.name for path in packed.parent.iterdir()} == {packed.name, stranger.name}


def test_what_a_crash_left_is_written_over(tmp_path: Path, files: list[File]) -> None:
    part = tmp_path / "packed" / (packed_name(MODEL) + ".part")
    part.parent.mkdir()
    part.write_bytes(os.urandom(1 << 20))
    path = written(part.parent, files)
    assert is_intact(path, MODEL)
    assert [each.name for each in part.parent.iterdir()] == [path.name]


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny.gguf", 1, Q8_0)
    with open_weights([weights_file(path)]) as weights:
        # It becomes shorter after its header was read: the last tensors are not there.
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(LocalError, match="ends in the middle"):
            write_packed(tmp_path / "packed" / "a", MODEL, weights)
    assert list((tmp_path / "packed").iterdir()) == []


# The process that the daemon runs.


def run(
    loads: Sequence[Load], engine: str = "auto", prefix: Sequence[str] = ()
) -> "subprocess.CompletedProcess[bytes]":
    words = b"".join(map(frame, [Start(1, False, "cpu", "f32", engine, ["/"]), *loads]))
    return subprocess.run([*prefix, *packer_command()], input=words, capture_output=True)


def load(files: list[File], path: Path) -> Load:
    return Load(MODEL, "tiny", files, str(path), "", 1, 0, 0, [])


def test_the_process_packs_what_is_not_packed_yet(tmp_path: Path, files: list[File]) -> None:
    kernels()
    path = tmp_path / "packed" / packed_name(MODEL)
    for _ in range(2):
        done = run([load(files, path)])
        assert (done.returncode, done.stderr) == (0, b"")
        assert is_intact(path, MODEL)


@pytest.mark.slow
def test_two_processes_that_want_the_same_file_make_one(tmp_path: Path, files: list[File]) -> None:
    kernels()
    path = tmp_path / "packed" / packed_name(MODEL)
    words = frame(Start(1, False, "cpu", "f32", "auto", ["/"])) + frame(load(files, path))
    both = [
        subprocess.Popen(packer_command(), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for each in both:
        assert each.stdin is not None
        each.stdin.write(words)
        each.stdin.close()
    assert [each.wait() for each in both] == [0, 0]
    assert [each.stderr.read() for each in both if each.stderr is not None] == [b"", b""]
    for each in both:
        assert each.stderr is not None
        each.stderr.close()
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert is_intact(path, MODEL)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_where_the_disk_takes_no_more_it_says_so_and_leaves_nothing(
    tmp_path: Path, files: list[File]
) -> None:
    kernels()
    path = tmp_path / "packed" / packed_name(MODEL)
    limited = ["bash", "-c", 'ulimit -f 40; exec "$@"', "bash"]  # KiB; it would be some 90.
    done = run([load(files, path)], prefix=limited)
    assert done.returncode == 1
    assert done.stderr.startswith(b"worker: tiny cannot be kept packed in ")
    assert b"File too large" in done.stderr
    assert list(path.parent.iterdir()) == []


def test_it_does_nothing_for_torch_nor_for_what_is_packed(
    packed: Path, files: list[File], tmp_path: Path
) -> None:
    start = Start(1, False, "cpu", "f32", "auto", ["/"])
    nowhere = load(files, tmp_path / "new" / packed_name(MODEL))
    assert pack.wanted([start, load(files, packed), nowhere]) == (start, [nowhere])
    assert run([nowhere], "torch").returncode == 0
    assert not (tmp_path / "new").exists()


def test_what_is_wrong_with_a_model_the_worker_will_say(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + bytes(100))
    path = tmp_path / "packed" / packed_name(MODEL)
    assert pack.pack(load([weights_file(bad)], path)) == ""
    assert not path.exists()


@pytest.mark.parametrize(
    "heard", [[], [Measure(MODEL)], [Start(1, False, "cpu", "f32", "auto", ["/"]), Measure(MODEL)]]
)
def test_only_a_start_and_models_are_heard(heard: list[ToWorker]) -> None:
    with pytest.raises(PipeError):
        pack.wanted(heard)


def test_words_that_are_none_end_it_without_repeating_them() -> None:
    done = subprocess.run(packer_command(), input=b"\0\0\0\5hello", capture_output=True)
    assert done.returncode == 1
    assert b"PipeError" in done.stderr
    assert b"hello" not in done.stderr
