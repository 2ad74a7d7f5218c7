"""The set-up's decisions, without installing anything."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "scripts"


def loaded(name: str) -> ModuleType:
    """A script as a module: scripts/ is no package."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = loaded("bootstrap")
lock = loaded("lock")


@pytest.mark.parametrize(
    ("available", "has_gpu", "asked", "is_cuda"),
    [
        (["2.14.0", "2.13.0+cpu", "2.13.0"], False, "torch==2.13.0+cpu", False),
        (["2.13.0+cpu"], False, "torch==2.13.0+cpu", False),
        (["2.13.0"], False, "torch===2.13.0", True),
        (["2.13.0+cpu", "2.13.0"], True, "torch===2.13.0", True),
        (["2.13.0+cpu"], True, "torch==2.13.0+cpu", False),
        ([], True, "torch===2.13.0", True),
    ],
)
def test_which_torch(available: list[str], has_gpu: bool, asked: str, is_cuda: bool) -> None:
    is_cuda = is_cuda and sys.platform == "linux"
    assert bootstrap.torch_requirement("2.13.0", available, has_gpu) == (asked, is_cuda)


def test_a_local_build_of_a_pinned_version_fits_and_another_version_does_not() -> None:
    version = bootstrap.pins("torch.txt")["torch"]
    assert bootstrap.missing("torch.txt", {"torch": f"{version}+cpu"}) == []
    assert bootstrap.missing("torch.txt", {"torch": f"{version}1"}) == ["torch"]
    assert bootstrap.missing("torch.txt", {}) == ["torch"]


def test_a_full_disk_is_told_with_what_mends_it() -> None:
    assert bootstrap.lack_of_disk(0) is None
    lack = bootstrap.lack_of_disk(1 << 60)
    assert "GB are needed" in lack
    assert "pip cache purge" in lack


def test_pip_never_installs_elsewhere_than_the_environment() -> None:
    environment = bootstrap.pip_environment()
    assert environment["PIP_USER"] == "0"
    assert not environment.keys() & {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH"}


def test_what_an_interrupted_pip_leaves_is_removed_and_whole_packages_stay(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.0.dist-info", "half-1.0.dist-info", "half"):
        (packages / name).mkdir(parents=True)
        (packages / name / "METADATA").touch()
    (packages / "whole-1.0.dist-info" / "RECORD").touch()
    (tmp_path / "tmp-abc").mkdir()
    bootstrap.remove_leftovers(tmp_path)
    assert sorted(path.name for path in packages.iterdir()) == ["half", "whole-1.0.dist-info"]
    assert not (tmp_path / "tmp-abc").exists()


def test_another_compiler_installs_ayni_anew_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    levels = ("torch", "runtime", "development", "ayni")
    monkeypatch.delenv("CC", raising=False)
    before = {level: bootstrap.fingerprint(level) for level in levels}
    monkeypatch.setenv("CC", "another")
    changed = [level for level in levels if bootstrap.fingerprint(level) != before[level]]
    assert changed == ["ayni"]


def test_a_compiler_that_pip_put_into_the_environment_is_seen_from_any_python(
    tmp_path: Path,
) -> None:
    assert not bootstrap.has_zig(tmp_path)
    (tmp_path / "lib" / "python3.11" / "site-packages" / "ziglang").mkdir(parents=True)
    assert bootstrap.has_zig(tmp_path)


def test_the_kernels_are_among_what_ayni_is_installed_from() -> None:
    found = {path.name for pattern in bootstrap.LEVELS["ayni"] for path in ROOT.glob(pattern)}
    assert {"pyproject.toml", "setup.py", "build.py", "dispatch.c", "ayni_kernels.h"} <= found
    assert not any(name.startswith("libayni") for name in found)


def test_an_old_python_can_read_it_as_far_as_the_sentence() -> None:
    text = (SCRIPTS / "bootstrap.py").read_text()
    ast.parse(text, feature_version=(3, 7))
    guard = text.index("sys.version_info[:2]")
    assert "\ndef " not in text[:guard]
    assert "\nclass " not in text[:guard]


def test_where_no_python_fits_the_command_that_mends_it_is_told(tmp_path: Path) -> None:
    shell = tmp_path / "bash"
    shell.symlink_to("/bin/bash")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "set_up.sh").write_text((SCRIPTS / "set_up.sh").read_text())
    program = "set -u; . scripts/set_up.sh; set_up --dev; echo went on"
    done = subprocess.run(
        [str(shell), "-c", program],
        cwd=tmp_path,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Ayni needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert "brew install python@3.13" in done.stderr


def test_an_index_that_is_not_there_is_told_in_bounded_time() -> None:
    program = (
        "import importlib.util as u, sys;"
        f"s = u.spec_from_file_location('b', {str(SCRIPTS / 'bootstrap.py')!r});"
        "m = u.module_from_spec(s); s.loader.exec_module(m); print(m.lack_of_index())"
    )
    # Port 9 of this machine: nobody answers, and nothing leaves it.
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=kept | nowhere, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "The package index cannot be reached" in done.stdout
    assert "export PIP_INDEX_URL=" in done.stdout


def test_the_lock_is_closed_and_is_what_the_tests_run_on() -> None:
    for name, text in lock.lock_files().items():
        assert (ROOT / "lock" / name).read_text() == text, "run .venv/bin/python scripts/lock.py"


def test_no_package_is_locked_twice() -> None:
    names = [name for path in (ROOT / "lock").glob("*.txt") for name in bootstrap.pins(path.name)]
    assert len(names) == len(set(names))
    assert "fastecdsa" not in names
