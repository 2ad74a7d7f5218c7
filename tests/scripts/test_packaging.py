"""What `pip` makes of the checkout: with a C compiler and without. Slow."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from node.worker.engine.kernels import build
from tests.pages import ROOT

pytestmark = pytest.mark.slow
FOLDER = "node/worker/engine/kernels/"


def wheel(tmp_path: Path, compiler: str | None) -> tuple[str, list[str]]:
    """The wheel's name and what is in it; built from a copy, so that nothing here is touched."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    source = tmp_path / "source"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    environment = {name: value for name, value in os.environ.items() if name != "CC"}
    if compiler is not None:
        environment["CC"] = compiler
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(tmp_path), "."],
        cwd=source,
        env=environment,
        check=True,
        capture_output=True,
    )
    (made,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        return made.name, archive.namelist()


def test_with_a_compiler_the_kernels_are_in_the_wheel_and_any_python_takes_it(
    tmp_path: Path,
) -> None:
    if not build.compilers():
        pytest.skip("no C compiler is here")
    name, files = wheel(tmp_path, None)
    assert "-py3-none-" in name
    assert not name.endswith("-any.whl")
    assert FOLDER + build.library_name() in files


def test_without_a_compiler_it_installs_and_can_be_built_later(tmp_path: Path) -> None:
    name, files = wheel(tmp_path, "false")
    assert name.endswith("-py3-none-any.whl")
    assert FOLDER + build.library_name() not in files
    assert {FOLDER + "build.py", FOLDER + "ayni_kernels.h", FOLDER + "dispatch.c"} <= set(files)
