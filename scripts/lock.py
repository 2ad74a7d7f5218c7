"""Writes lock/*.txt: the exact versions that are installed here, closed under their needs.

To move a version: install it into .venv, run this, run the tests, commit. With --check nothing is
written, and the exit status says whether lock/ is what would be.
"""

import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "lock"
PYTHONS = ("3.11", "3.12", "3.13")
# libp2p asks for fastecdsa, which has no wheel for Linux and serves key types that Ayni does not
# speak: node/network puts placeholders in its place (tests/node/network shows that they do).
LEFT_OUT = {"fastecdsa"}
# A CUDA build of torch brings these itself, at versions that it names exactly.
OF_TORCH = ("cuda-", "nvidia-cu", "nvidia-nccl", "nvidia-nv", "triton")
# No wheel of these exists anywhere; each is one pure Python file, so no compiler is needed.
SOURCE_ONLY = {"python-baseconv", "varint"}
TOOLS = {"pip", "setuptools"}
TORCH = {"torch"}


def environments() -> list[dict[str, str]]:
    """What markers are judged by: Linux x86-64, on each Python that is supported."""
    here = {key: str(value) for key, value in default_environment().items()}
    fixed = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    fixed |= {"platform_machine": "x86_64", "implementation_name": "cpython"}
    return [
        here | fixed | {"python_version": version, "python_full_version": f"{version}.0"}
        for version in PYTHONS
    ]


def installed(name: str) -> Distribution:
    """The distribution of that name; exits with what to do where there is none."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        sys.exit(f"{name} is needed and not installed: install it in .venv, then run this again.")


def wanted(requirement: Requirement, extras: Iterable[str]) -> bool:
    """Whether a requirement holds on any supported Python, given the extras asked for."""
    marker = requirement.marker
    return marker is None or any(
        marker.evaluate(environment | {"extra": extra})
        for environment in environments()
        for extra in (*extras, "")
    )


def closure(requirements: Sequence[str], versions: dict[str, str]) -> dict[str, str]:
    """`versions` with every package that the requirements need, directly or not, at the version
    installed here. Exits where an installed version does not fit what asks for it."""
    found = dict(versions)
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(Requirement(text), frozenset[str]()) for text in requirements]
    while waiting:
        requirement, extras = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT or name.startswith(OF_TORCH) or not wanted(requirement, extras):
            continue
        have = installed(name)
        version = have.version.partition("+")[0]
        if not requirement.specifier.contains(version, prereleases=True):
            sys.exit(f"{name} {version} is installed where {requirement} is needed.")
        found[name] = version
        asked = frozenset(requirement.extras)
        if (name, asked) not in seen:
            seen.add((name, asked))
            waiting += [(Requirement(text), asked) for text in have.requires or ()]
    return found


def lock_text(purpose: str, versions: dict[str, str]) -> str:
    """The text of one lock file, which pip reads as requirements."""
    lines = [f"# {purpose}", "# Written by scripts/lock.py; do not edit.", "--only-binary :all:"]
    lines += [f"--no-binary {name}" for name in sorted(SOURCE_ONLY & set(versions))]
    lines += [f"{name}=={version}" for name, version in sorted(versions.items())]
    return "\n".join(lines) + "\n"


def lock_files() -> dict[str, str]:
    """Every lock file's name and the text it should have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tools = closure(sorted(TOOLS), {})
    runtime = closure(project["dependencies"], tools)
    development = closure(project["optional-dependencies"]["dev"], runtime)
    torch = {name: version for name, version in runtime.items() if name in TORCH}
    apart = set(tools) | set(torch)
    rest = {name: version for name, version in runtime.items() if name not in apart}
    tests = {name: version for name, version in development.items() if name not in runtime}
    return {
        "tools.txt": lock_text("What installs the rest, and comes first.", tools),
        "torch.txt": lock_text("By far the largest, and alone: see scripts/bootstrap.py.", torch),
        "runtime.txt": lock_text("What a node needs to run.", rest),
        "development.txt": lock_text("What scripts/test needs besides.", tests),
    }


def main(arguments: Sequence[str]) -> int:
    if arguments not in ([], ["--check"]):
        sys.exit("usage: scripts/lock.py [--check]")
    files = lock_files()
    stale = [
        name
        for name, text in files.items()
        if not (LOCK / name).exists() or (LOCK / name).read_text() != text
    ]
    if arguments:
        for name in stale:
            print(f"lock/{name} is not what is installed: run .venv/bin/python scripts/lock.py")
        return 1 if stale else 0
    LOCK.mkdir(exist_ok=True)
    for name in stale:
        (LOCK / name).write_text(files[name])
        print(f"lock/{name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
