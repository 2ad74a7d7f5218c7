"""Sets up .venv: checks what the machine has, then installs torch, the lock and Ayni itself.

usage: bootstrap.py [--dev] [--without-torch] [--quiet]

It needs nothing but Python's own library, and may be run again at any time: with everything in
place it returns at once, and after an interruption it goes on where it was. It speaks on stderr.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

# Older Pythons read this file up to here, and are told so in words instead of a traceback.
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit("Ayni needs Python 3.11, 3.12 or 3.13; this is " + sys.version.split()[0] + ".")

sys.path.insert(0, str(Path(__file__).resolve().parent))  # An isolated Python looks elsewhere.
from bootstrap_torch import has_nvidia_gpu, torch_requirement

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "lock"
VENV = ROOT / ".venv"
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"  # Of the Python that runs this.
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "set-up.json"
LOG = VENV / "set-up.log"
GIGABYTE = 10**9
DISK_BYTES_MIN = 3 * GIGABYTE
DISK_BYTES_MIN_CUDA = 9 * GIGABYTE  # 3 GB of downloads, and 5 GB that they unpack to.
TORCH_SIZE = "about 200 MB"
TORCH_SIZE_CUDA = "about 3 GB, with NVIDIA's libraries"
ANSWER_SECONDS_MAX = 20
INSTALL = ("install", "--no-deps", "--no-build-isolation")
PROBE = "sniffio"  # Any small package of the lock: can it be had, so can the others.
KERNELS = "node/worker/engine/kernels"
# What each level of the set-up is made of; a change of one of these files makes it stale.
LEVELS = {
    "torch": ("lock/torch.txt",),
    "runtime": ("lock/tools.txt", "lock/runtime.txt"),
    "development": ("lock/development.txt",),
    "ayni": ("pyproject.toml", "setup.py", f"{KERNELS}/*.[ch]", f"{KERNELS}/build.py"),
}


class SetUpError(Exception):
    """What is wrong and what to do about it, as lines for a person."""


class Voice(NamedTuple):
    """Plain lines on stderr; none when quiet, for failures are raised."""

    quiet: bool

    def say(self, line: str) -> None:
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)


# What is there.


def has_zig(venv: Path) -> bool:
    """Whether the compiler of the package ziglang is in an environment; whichever Python asks."""
    return any(venv.glob("lib/python*/site-packages/ziglang"))


def fingerprint(level: str) -> str:
    """Changes with the level's files, the place of the checkout and, for Ayni, the compilers."""
    state = hashlib.sha256(str(VENV).encode())
    for pattern in LEVELS[level]:
        for path in sorted(ROOT.glob(pattern)):
            state.update(path.name.encode() + path.read_bytes())
    if level == "ayni":
        found = [os.environ.get("CC"), *map(shutil.which, ("cc", "gcc", "clang"))]
        state.update(repr((found, has_zig(VENV))).encode())
    return state.hexdigest()


def stamps() -> dict[str, str]:
    """The fingerprint of each level that was finished, and the Python it was finished with."""
    try:
        held = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def is_finished(levels: Sequence[str]) -> bool:
    """Whether nothing is to be done; looks at a few files only."""
    held = stamps()
    if not (VENV / "bin" / "ayni").exists() or not PYTHON.exists():
        return False
    if Path(sys.prefix) == VENV and held.get("python") != VERSION:
        return False  # The system's Python moved on under the environment.
    return all(held.get(level) == fingerprint(level) for level in levels)


def asked(command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """A command that has ended, with what it printed; None when it did not end in time."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            env=pip_environment(),
            timeout=ANSWER_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired:
        return None


def pins(level_file: str) -> dict[str, str]:
    """Name and version of every package in one lock file."""
    lines = (LOCK / level_file).read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def installed() -> dict[str, str]:
    """Name and version of every package in .venv, and "python"; empty where it does not work."""
    ask = (
        "import json, sys, importlib.metadata as m, pip;"
        "version = '.'.join(map(str, sys.version_info[:2]));"
        "print(json.dumps({d.name: d.version for d in m.distributions()} | {'python': version}))"
    )
    if not PYTHON.exists():
        return {}
    answer = asked([str(PYTHON), "-I", "-c", ask])
    if answer is None:  # It says nothing of the environment, which is not to be thrown away.
        raise SetUpError(f"{PYTHON} gave no answer in {ANSWER_SECONDS_MAX} s: is the machine busy?")
    if answer.returncode != 0:
        return {}
    found = json.loads(answer.stdout)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()}


def missing(level_file: str, have: dict[str, str]) -> list[str]:
    """The pins of a lock file that are not installed. A local version, as in 2.13.0+cpu, fits."""
    return [
        name
        for name, version in pins(level_file).items()
        if have.get(name, "").partition("+")[0] != version
    ]


# What is lacking.


def install_command(package: str) -> str:
    """The line that installs a system package here; `package` is Debian's name for it."""
    for program, words in (
        ("apt-get", "sudo apt-get install -y {}"),
        ("dnf", "sudo dnf install -y python3"),
        ("pacman", "sudo pacman -S --needed python"),
        ("brew", "brew install python@3.13"),
    ):
        if shutil.which(program):
            return words.format(package)
    return "install Python from https://www.python.org/downloads/"


def lack_of_venv() -> str | None:
    if all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        return None
    return f"This Python has no venv.\n    {install_command(f'python{VERSION}-venv')}"


def lack_of_disk(bytes_min: int) -> str | None:
    free = shutil.disk_usage(ROOT).free
    if free >= bytes_min:
        return None
    have, need = f"{free / GIGABYTE:.1f} GB", f"{bytes_min / GIGABYTE:.0f} GB"
    return f"{ROOT} has {have} of disk free; {need} are needed.\n    python3 -m pip cache purge"


def pip_before_venv() -> list[str] | None:
    """A pip that runs before .venv is made: this Python's own, or the wheel that venv uses."""
    if PYTHON.exists() and installed():
        return [str(PYTHON), "-m", "pip"]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    folders = [Path("/usr/share/python-wheels")]
    found = importlib.util.find_spec("ensurepip")
    if found and found.origin:
        folders.append(Path(found.origin).parent / "_bundled")
    wheels = [wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"))]
    return [sys.executable, str(wheels[0] / "pip")] if wheels else None


def lack_of_index() -> str | None:
    """Asks the index, as pip is configured here, for one small package."""
    pip = pip_before_venv()
    if pip is None:
        return None  # Nobody to ask; the installation itself will tell.
    requirement = f"{PROBE}=={pins('runtime.txt')[PROBE]}"
    options = ["--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--no-input"]
    options += ["--disable-pip-version-check", "--retries", "1", "--timeout", "8", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        answer = asked([*pip, "download", *options, "--dest", folder, requirement])
    if answer is None:
        reason = f"no answer in {ANSWER_SECONDS_MAX} s"
    elif answer.returncode == 0:
        return None
    else:
        lines = answer.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"pip ended with status {answer.returncode}"
    return (
        f"The package index cannot be reached ({reason}).\n"
        "Connect this machine to the internet; behind a proxy or with a mirror of your own:\n"
        "    export HTTPS_PROXY=http://HOST:PORT    or    export PIP_INDEX_URL=https://HOST/simple"
    )


def check_machine() -> None:
    """Raises SetUpError with every lack at once, and the command that mends each."""
    lacks = [lack_of_venv(), lack_of_disk(DISK_BYTES_MIN), lack_of_index()]
    if any(lacks):
        raise SetUpError("\n".join(lack for lack in lacks if lack))


# Doing it.


def pip_environment() -> dict[str, str]:
    """The user's environment, less what would send packages elsewhere than into .venv."""
    away = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
    kept = {name: value for name, value in os.environ.items() if name not in away}
    return kept | {"PIP_USER": "0"}


def run_pip(arguments: Sequence[str], voice: Voice, is_shown: bool = False) -> None:
    """pip in .venv; what it prints goes to the log, or to the terminal where that helps.

    Raises SetUpError with the end of the log when it fails.
    """
    common = ["--disable-pip-version-check", "--no-input"]
    command = [str(PYTHON), "-I", "-m", "pip", *arguments, *common]
    with tempfile.TemporaryDirectory(dir=VENV, prefix="tmp-") as scratch, LOG.open("ab") as log:
        log.write(f"\n$ {' '.join(command)}\n".encode())
        log.flush()
        # pip unpacks into TMPDIR, and /tmp is often a small piece of memory.
        environment = pip_environment() | {"TMPDIR": scratch}
        is_shown = is_shown and not voice.quiet and sys.stderr.isatty()
        output = sys.stderr.fileno() if is_shown else log
        done = subprocess.run(command, stdout=output, stderr=output, env=environment)
    if done.returncode != 0:
        tail = "" if is_shown else "\n".join(LOG.read_text(errors="replace").splitlines()[-20:])
        raise SetUpError(f"{tail}\npip failed; all of its output is in {LOG}. Mend and run again.")


def make_venv(voice: Voice) -> None:
    """A fresh .venv, unless a working one stands that was made for this place."""
    if installed() and stamps().get("place", str(VENV)) == str(VENV):
        return
    voice.say(f"making .venv with Python {VERSION}")
    shutil.rmtree(VENV, ignore_errors=True)
    # This may run under the environment that was just removed, so it asks the Python beneath.
    beneath = Path(sys.base_prefix) / "bin" / f"python{VERSION}"
    python = str(beneath) if beneath.exists() else sys.executable
    done = subprocess.run([python, "-m", "venv", str(VENV)], stdout=sys.stderr.fileno())
    if done.returncode != 0:
        raise SetUpError(f"{python} -m venv failed.\n    {install_command('python3-venv')}")


def torch_versions() -> list[str]:
    """Every version of torch that pip could install here."""
    answer = asked([str(PYTHON), "-I", "-m", "pip", "index", "versions", "torch", "--no-input"])
    stdout = answer.stdout if answer else ""
    found = re.search(r"^Available versions: (.*)$", stdout, re.MULTILINE)
    return found[1].split(", ") if found else []


def install_torch(voice: Voice) -> None:
    """First and alone, for it is larger than all the rest together."""
    version = pins("torch.txt")["torch"]
    requirement, is_cuda = torch_requirement(version, torch_versions(), has_nvidia_gpu())
    options = ["install", "--only-binary", ":all:", requirement]
    if is_cuda:
        lack = lack_of_disk(DISK_BYTES_MIN_CUDA)
        if lack:
            raise SetUpError(lack)
        options += ["--constraint", str(LOCK / "runtime.txt")]
        if not has_nvidia_gpu():
            voice.say("no CPU build is in your index; PIP_EXTRA_INDEX_URL can add one that has it")
    else:
        options += ["--no-deps"]  # What it needs is in the lock.
    size = TORCH_SIZE_CUDA if is_cuda else TORCH_SIZE
    voice.say(f"installing {requirement.replace('===', '==')} ({size} to download)")
    run_pip(options, voice, is_shown=True)


def install_lock(name: str, have: dict[str, str], voice: Voice) -> None:
    lacking = missing(name, have)
    if not lacking:
        return
    voice.say(f"installing from lock/{name}: {len(lacking)} to go")
    run_pip([*INSTALL, "--requirement", str(LOCK / name)], voice)


def remove_leftovers(venv: Path) -> None:
    """What an interrupted pip leaves: downloads, and packages that look whole and are not, for a
    package's RECORD is the last file that pip writes."""
    folders = [*venv.glob("tmp-*"), *venv.glob("lib/python*/site-packages/*.dist-info")]
    for folder in folders:
        if not (folder / "RECORD").exists():
            shutil.rmtree(folder)


def remove_trio_stubs() -> None:
    """trio-typing, which libp2p needs, brings stubs of an old trio that hide trio's own types."""
    for folder in VENV.glob("lib/python*/site-packages/trio-stubs"):
        shutil.rmtree(folder)


def set_up(levels: Sequence[str], voice: Voice) -> None:
    """Brings .venv to the given levels, one after another; each is stamped when it is done."""
    have = installed()
    if any(missing(f"{name}.txt", have) for name in ("tools", *levels[:-1])):
        check_machine()
    make_venv(voice)
    remove_leftovers(VENV)
    have = installed()
    install_lock("tools.txt", have, voice)
    done = {"place": str(VENV), "python": have["python"]}
    for level in levels:
        if level == "torch":
            if missing("torch.txt", have):
                install_torch(voice)
        elif level == "runtime":
            install_lock("runtime.txt", have, voice)
            remove_trio_stubs()
        elif level == "development":
            install_lock("development.txt", have, voice)
        else:
            voice.say("installing ayni from this checkout")
            run_pip([*INSTALL, "--editable", str(ROOT)], voice)
            if not any((ROOT / KERNELS).glob("libayni_kernels.*")):
                voice.say("its kernels need a C compiler: without, torch runs models, more slowly")
                voice.say(f"install gcc, or {PYTHON} -m pip install ziglang, and run this again")
        done[level] = fingerprint(level)
        STAMP.write_text(json.dumps(stamps() | done, indent=1) + "\n")


@contextmanager
def alone(voice: Voice) -> Iterator[None]:
    """One set-up at a time; a second waits for the first."""
    import fcntl  # Not on Windows, where bash scripts run in its Linux subsystem.

    with (ROOT / ".set-up.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            voice.say("waiting for another set-up of this checkout to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Sets up .venv for Ayni.")
    parser.add_argument("--dev", action="store_true", help="also what scripts/test needs")
    parser.add_argument("--without-torch", action="store_true", help="no worker will run")
    parser.add_argument("--quiet", action="store_true", help="print failures only")
    options = parser.parse_args(arguments)
    levels = [] if options.without_torch else ["torch"]
    # Ayni itself is last: a compiler may be among what development needs.
    levels += ["runtime", "development", "ayni"] if options.dev else ["runtime", "ayni"]
    if is_finished(levels):
        return 0
    voice = Voice(options.quiet)
    began = time.monotonic()
    try:
        with alone(voice):
            if not is_finished(levels):
                set_up(levels, voice)
    except SetUpError as error:
        print(f"Ayni cannot be set up yet.\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. Run it again to go on.", file=sys.stderr)
        return 130
    if options.without_torch:
        voice.say("torch was left out, as asked: no worker will run")
    voice.say(f"set up in {time.monotonic() - began:.0f} s: {VENV / 'bin' / 'ayni'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
