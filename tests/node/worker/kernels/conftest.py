"""The kernels, compiled from the sources as they are now: once for each version of them."""

import hashlib
import tempfile
from pathlib import Path

import pytest

from node.worker.engine.kernels import build as building
from node.worker.engine.kernels.library import Kernels

SOURCES = sorted(
    [*building.SOURCES.glob("*.c"), *building.SOURCES.glob("*.h"), building.SOURCES / "build.py"]
)


def sources_digest() -> str:
    """Of all C and of how it is compiled."""
    digest = hashlib.sha256(repr(building.compilers()).encode())
    for path in SOURCES:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:20]


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    """The library that is installed, where it is younger than its sources; else one built now."""
    installed = building.SOURCES / building.library_name()
    if installed.exists():
        built = installed.stat().st_mtime
        if all(path.stat().st_mtime < built for path in SOURCES):
            return Kernels(installed)
    if not building.compilers():
        pytest.skip("there is no C compiler here")
    folder = Path(tempfile.gettempdir()) / f"ayni-kernels-{sources_digest()}"
    path = folder / building.library_name()
    return Kernels(path if path.exists() else building.build(folder))
