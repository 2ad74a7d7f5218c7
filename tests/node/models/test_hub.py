"""Files of Hugging Face repositories: found in its cache, or fetched by its own library."""

import hashlib
import os
from pathlib import Path

import pytest
import trio

from node.models.cache import ModelCache, Progress
from node.models.catalogue import Hub, Model, ModelFile, Source
from node.models.files import Moved
from node.models.hub import HubProcess, hub_folder, snapshot
from protocol.errors import Code, LocalError
from tests.node.models.hub_fake import COMMIT, REPOSITORY, FakeHub, cached, open_hub

WEIGHTS = bytes(range(256)) * 4096
NAME = "model.safetensors"


def model_of(data: bytes = WEIGHTS, name: str = NAME) -> Model:
    source = Source(hub=Hub(repository=REPOSITORY, revision=COMMIT, file=name))
    file = ModelFile(
        role="weights",
        name=name,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        sources=(source,),
    )
    return Model(name="quinoa", licence="MIT", context_tokens=512, files=(file,))


class FolderHub:
    """Copies from a folder what the hub would send, half of it where it is told to."""

    def __init__(self, cache: Path, files: dict[str, bytes]) -> None:
        self.cache = cache
        self.files = files
        self.kept: list[list[str]] = []
        """What was there of earlier calls, at each call."""
        self.breaks = False

    async def get(self, hub: Hub, folder: Path, moved: Moved) -> Path:
        await trio.lowlevel.checkpoint()
        self.kept.append(os.listdir(folder))
        if self.breaks:
            (folder / "half.incomplete").write_bytes(self.files[hub.file][:100])
            raise LocalError(Code.UNAVAILABLE, "The connection broke.")
        (folder / hub.file).write_bytes(self.files[hub.file])
        moved(len(self.files[hub.file]))
        return folder / hub.file


def cache_of(tmp_path: Path, hub: FolderHub | HubProcess) -> ModelCache:
    return ModelCache(tmp_path / "ours", tmp_path, hub=hub)


async def test_what_the_hubs_cache_has_is_used_where_it_is_and_read_once(tmp_path: Path) -> None:
    folder = cached(tmp_path / "hub", {NAME: WEIGHTS})
    hub = FolderHub(tmp_path / "hub", {})
    seen: list[Progress] = []
    ready = await cache_of(tmp_path, hub).get(model_of(), seen.append)
    assert ready.weights == folder / NAME
    assert {one.stage for one in seen} == {"checking"}
    seen.clear()
    assert await cache_of(tmp_path, hub).get(model_of(), seen.append) == ready
    assert seen == []
    assert hub.kept == []
    assert not (tmp_path / "ours" / hashlib.sha256(WEIGHTS).hexdigest()).exists()


async def test_a_wrong_file_in_the_hubs_cache_is_not_used(tmp_path: Path) -> None:
    cached(tmp_path / "hub", {NAME: WEIGHTS[:-1] + b"x"})
    hub = FolderHub(tmp_path / "hub", {NAME: WEIGHTS})
    ready = await cache_of(tmp_path, hub).get(model_of())
    assert ready.weights.is_relative_to(tmp_path / "ours")
    assert ready.weights.read_bytes() == WEIGHTS


async def test_another_commit_is_another_file(tmp_path: Path) -> None:
    cached(tmp_path / "hub", {NAME: WEIGHTS}, commit="f" * 40)
    assert await cache_of(tmp_path, FolderHub(tmp_path / "hub", {})).find(model_of()) is None


async def test_a_fetch_that_broke_off_goes_on(tmp_path: Path) -> None:
    hub = FolderHub(tmp_path / "hub", {NAME: WEIGHTS})
    hub.breaks = True
    with pytest.raises(LocalError, match="The connection broke") as caught:
        await cache_of(tmp_path, hub).get(model_of())
    assert caught.value.code == Code.UNAVAILABLE
    hub.breaks = False
    await cache_of(tmp_path, hub).get(model_of())
    assert hub.kept == [[], ["half.incomplete"]]
    assert list((tmp_path / "ours" / "staging").glob("*/*")) == []


@pytest.mark.parametrize("data", [WEIGHTS[:-1], b"", WEIGHTS[:-1] + b"x", WEIGHTS + b"x"])
async def test_other_bytes_are_thrown_away(tmp_path: Path, data: bytes) -> None:
    hub = FolderHub(tmp_path / "hub", {NAME: data})
    with pytest.raises(LocalError) as caught:
        await cache_of(tmp_path, hub).get(model_of())
    assert caught.value.code in (Code.DIGEST_MISMATCH, Code.TOO_LARGE)
    hub.files[NAME] = WEIGHTS
    await cache_of(tmp_path, hub).get(model_of())
    assert hub.kept == [[], []]


def test_where_the_hubs_cache_is() -> None:
    assert hub_folder({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}) == Path("/a")
    assert hub_folder({"HF_HOME": "/b"}) == Path("/b/hub")
    assert hub_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")
    assert hub_folder({}) == Path.home() / ".cache" / "huggingface" / "hub"


def test_what_a_branch_means_here(tmp_path: Path) -> None:
    folder = cached(tmp_path, {NAME: WEIGHTS})
    assert snapshot(tmp_path, REPOSITORY) == folder
    assert snapshot(tmp_path, REPOSITORY, COMMIT) == folder
    assert snapshot(tmp_path, REPOSITORY, "other") is None
    assert snapshot(tmp_path, "no/such") is None
    (folder.parent.parent / "refs" / "main").write_text("..")
    assert snapshot(tmp_path, REPOSITORY) is None


# The library itself, in its own process, against a hub on loopback.


async def test_the_library_fetches_and_goes_on_after_a_cut(tmp_path: Path) -> None:
    weights = WEIGHTS * 24  # The library writes ten MiB at a time.
    with open_hub(FakeHub({NAME: weights}, cuts=1)) as hub:
        process = HubProcess(tmp_path / "hub", {"HF_ENDPOINT": hub.url})
        ready = await cache_of(tmp_path, process).get(model_of(weights))
    assert ready.weights.stat().st_size == len(weights)
    ranges = [ranged for method, _, ranged in hub.asked if method == "GET"]
    assert any(ranged.startswith("bytes=") and ranged != "bytes=0-" for ranged in ranges), hub.asked


@pytest.mark.parametrize(
    ("name", "words"), [("other.safetensors", "no such file"), (NAME, "could not be reached")]
)
async def test_what_to_do_is_said_where_the_hub_does_not_help(
    tmp_path: Path, name: str, words: str
) -> None:
    with open_hub(FakeHub({NAME: WEIGHTS})) as hub:
        variables = {"HF_ENDPOINT": hub.url} if name != NAME else {"HF_HUB_OFFLINE": "1"}
        cache = cache_of(tmp_path, HubProcess(tmp_path / "hub", variables))
        with pytest.raises(LocalError) as caught:
            await cache.get(model_of(name=name))
    assert caught.value.code == Code.UNAVAILABLE
    assert words in caught.value.sentence
    assert "copy its cache folder" in caught.value.sentence
