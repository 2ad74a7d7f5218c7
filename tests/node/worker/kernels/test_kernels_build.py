"""Compilers and ways of optimising: the same bits from each, and what is said when one fails."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node.worker.engine.kernels import build as building
from node.worker.engine.kernels.build import CompilerError, build, library_name
from node.worker.engine.kernels.library import Kernels
from tests.node.worker.kernels.test_kernels_equality import VECTORS, golden

HARNESS = Path(__file__).with_name("harness.c")


@pytest.mark.slow
@pytest.mark.parametrize("optimise", ["-O1", "-O2", "-O3"])
@pytest.mark.parametrize("number", range(len(building.compilers())))
def test_every_compiler_gives_the_same_bits(
    tmp_path: Path, kernels: Kernels, number: int, optimise: str
) -> None:
    built = Kernels(build(tmp_path, building.compilers()[number], optimise))
    assert built.paths() == kernels.paths()
    assert golden(built, every_path=True) == json.loads(VECTORS.read_text())


@pytest.mark.slow
def test_another_processor_can_be_compiled_for(tmp_path: Path) -> None:
    """Without its machine, so only whether it compiles: the portable path, no x86 in sight."""
    pytest.importorskip("ziglang", reason="needs the compiler of the package ziglang")
    zig = [sys.executable, "-m", "ziglang", "cc"]
    for target in ("aarch64-linux-gnu", "aarch64-macos", "x86_64-windows-gnu", "x86_64-linux-musl"):
        assert build(tmp_path / target, [*zig, "-target", target], "-O1").stat().st_size > 0


def test_failing_compiler_is_quoted(tmp_path: Path) -> None:
    script = "import sys; sys.exit('line one\\nno such machine')"
    with pytest.raises(CompilerError, match="no such machine"):
        build(tmp_path, [sys.executable, "-c", script])
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_to_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", building.__name__, str(tmp_path / "file" / "below")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "below" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_compiler_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match="no-such-compiler"):
        build(tmp_path, ["no-such-compiler"])


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        ("linux", "libayni_kernels.so"),
        ("darwin", "libayni_kernels.dylib"),
        ("win32", "ayni_kernels.dll"),
    ],
)
def test_library_has_the_name_that_it_is_looked_for(platform: str, name: str) -> None:
    assert library_name(platform) == name


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(tmp_path: Path, sanitizer: str) -> None:
    """The harness runs small models, extreme numbers and spoilt arguments on every path."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc with its sanitizers")
    program = tmp_path / "harness"
    compiled = [gcc, "-O1", "-g1", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    objects = []
    for source in [*building.SOURCES.glob("*.c"), HARNESS]:
        flags = building.MACHINE_FLAGS.get(source.name, ())
        target = tmp_path / f"{source.stem}.o"
        include = f"-I{building.SOURCES}"
        command = [*compiled, *building.PLAIN, include, *flags, "-c", str(source), "-o", target]
        subprocess.run(command, check=True)
        objects.append(target)
    subprocess.run([*compiled, *objects, "-o", program, "-lm", "-pthread"], check=True)
    rounds = "30" if sanitizer == "thread" else "100"
    ended = subprocess.run([program, rounds], capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "steps" in ended.stdout
