"""Files of a Hugging Face repository: found in the hub's own cache, or fetched by its library."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import trio

import node
from node.models.catalogue import Hub
from node.models.fetch import reason_given, watch_growth
from node.models.files import Moved
from protocol.errors import Code, LocalError

REF_BYTES_MAX: Final = 100
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_START: Final = (
    "import sys, runpy; sys.path.append(sys.argv[1]); "
    "runpy.run_module('node.models.hub_fetch', run_name='__main__', alter_sys=True)"
)


def hub_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where the hub's programs keep what they fetched: HF_HUB_CACHE, HF_HOME/hub, or the folder
    below XDG_CACHE_HOME or ~/.cache that they take where neither is set."""
    environ = os.environ if environ is None else environ
    if chosen := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(chosen).expanduser()
    if home := environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    cache = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache).expanduser() / "huggingface" / "hub"


def repository_folder(cache: Path, repository: str) -> Path:
    """models--OWNER--NAME, which has refs/, snapshots/ and blobs/."""
    return cache / f"models--{repository.replace('/', '--')}"


def snapshot(cache: Path, repository: str, revision: str = "main") -> Path | None:
    """The folder of files of one commit, or of what a branch or tag last meant here; None where
    it is not in the cache. Its name is the commit."""
    folder = repository_folder(cache, repository)
    try:
        with (folder / "refs" / revision).open("rb") as file:
            revision = file.read(REF_BYTES_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        pass  # Then it is a commit itself, or nothing.
    found = folder / "snapshots" / revision
    return found if COMMIT.fullmatch(revision) and found.is_dir() else None


class HubDownload(Protocol):
    """A way to get files of repositories, and the cache of theirs that is looked into first."""

    @property
    def cache(self) -> Path: ...

    async def get(self, hub: Hub, folder: Path, moved: Moved) -> Path:
        """The file, whole, inside `folder`, where a next call goes on with what an earlier one
        left there; `moved` hears of the bytes so far.

        Raises LocalError UNAVAILABLE when it cannot be had now.
        """


@dataclass(frozen=True, slots=True)
class HubProcess:
    """`huggingface_hub` in a process of its own, with the user's own settings and token of it."""

    cache: Path = field(default_factory=hub_folder)
    variables: Mapping[str, str] = field(default_factory=dict)
    """Settings of the library that go before those of this process, such as HF_ENDPOINT."""

    async def get(self, hub: Hub, folder: Path, moved: Moved) -> Path:
        """As HubDownload.get."""
        assert node.__file__ is not None
        command = [sys.executable, "-P", "-c", _START, str(Path(node.__file__).parent.parent)]
        command += [hub.repository, hub.revision, hub.file, str(folder)]
        variables = {k: v for k, v in os.environ.items() if not k.startswith("AYNI_")}
        variables |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        variables |= self.variables
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_growth, folder, moved)
            done = await trio.run_process(
                command, capture_stdout=True, capture_stderr=True, check=False, env=variables
            )
            nursery.cancel_scope.cancel()
        got = folder / hub.file
        if done.returncode != 0 or not got.is_file():
            raise LocalError(
                Code.UNAVAILABLE,
                f"{hub.file} of {hub.repository} could not be fetched from the hub: "
                f"{reason_given(done.stderr)} Look at the network, and for a repository with a "
                "gate at your token (`hf auth login`), and try again: what came so far is kept. "
                "Or fetch it on another machine and copy its cache folder to this one.",
            )
        return got
