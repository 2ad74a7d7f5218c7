"""What Landlock and the filter of system calls hold back, tried from inside a confined process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from node.worker import landlock, seccomp

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has been run")

ROOT = Path(__file__).parents[3]

TRY = """
import ctypes, json, os, socket, subprocess, sys, threading
root, open_folder, closed_folder = sys.argv[1:]
sys.path.append(root)
from pathlib import Path
from node.worker import sandbox
from node.worker.pipe import Start

def allowed(what):
    try:
        what()
    except OSError:
        return False
    return True

def write(path, mode="w"):
    with open(path, mode) as file:
        file.write("x")

read, answer = sandbox.take_pipe()
held = sandbox.confine(Start(1, False, "cpu", "f32", "auto", [open_folder]))
seen = {
    "held": held,
    "reads the model": allowed(lambda: Path(open_folder, "model").read_bytes()),
    "lists its folder": allowed(lambda: os.listdir(open_folder)),
    "reads another file": allowed(lambda: Path(closed_folder, "key").read_bytes()),
    "lists another folder": allowed(lambda: os.listdir(closed_folder)),
    "reads the parent's environment":
        allowed(lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes()),
    "writes a model": allowed(lambda: write(Path(open_folder, "model"), "r+")),
    "makes a file": allowed(lambda: Path(open_folder, "other").touch()),
    "removes a file": allowed(lambda: os.unlink(Path(open_folder, "model"))),
    "opens a socket": allowed(lambda: socket.socket().close()),
    "runs a program": allowed(lambda: subprocess.run(["/bin/true"])),
    "forks": allowed(lambda: os.fork() or os._exit(0)),
    "signals its parent": allowed(lambda: os.kill(os.getppid(), 0)),
}
done = []
thread = threading.Thread(target=lambda: done.append(sum(range(1000))))
thread.start()
thread.join()
seen["has threads"] = bool(done)
import torch
seen["computes"] = float(torch.ones(64, 64).mm(torch.ones(64, 64)).sum()) == 64**3
os.write(answer, json.dumps(seen).encode())
"""

KEPT = {"reads the model", "lists its folder", "has threads", "computes"}
BY_LANDLOCK = {
    "reads another file",
    "lists another folder",
    "writes a model",
    "makes a file",
    "removes a file",
}
BY_FILTER = {"opens a socket", "runs a program", "forks"}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process that confined itself could still do."""
    folder = tmp_path_factory.mktemp("confined")
    for name, file in (("open", "model"), ("closed", "key")):
        (folder / name).mkdir()
        (folder / name / file).write_bytes(b"bytes")
    done = subprocess.run(
        [sys.executable, "-I", "-c", TRY, str(ROOT), str(folder / "open"), str(folder / "closed")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_keeps_what_it_needs(seen: dict[str, Any]) -> None:
    assert {what for what in KEPT if seen[what]} == KEPT


def test_files_that_are_not_the_models_are_out_of_reach(seen: dict[str, Any]) -> None:
    if not landlock.version():
        pytest.skip("this kernel has no Landlock")
    assert "own-files-only" in seen["held"]
    assert not {what for what in BY_LANDLOCK if seen[what]}
    assert not seen["reads the parent's environment"]
    if landlock.version() >= 6:
        assert not seen["signals its parent"]


def test_system_calls_of_no_use_are_refused(seen: dict[str, Any]) -> None:
    if "few-system-calls" not in seen["held"]:
        pytest.skip("this kernel or processor takes no filter")
    assert not {what for what in BY_FILTER if seen[what]}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_reads_as_it_is_meant(machine: str) -> None:
    """Run the program by an interpreter of our own, for both architectures."""
    known = seccomp._MACHINES[machine]
    steps = seccomp.program(known)

    def verdict(number: int, audit: int = known.audit, first: int = 0) -> int:
        loaded, at = 0, 0
        fields = {0: number, 4: audit, 16: first}
        while True:
            step = steps[at]
            at += 1
            match step.code:
                case seccomp._LOAD:
                    loaded = fields[step.value]
                case seccomp._RETURN:
                    return step.value
                case seccomp._EQUAL:
                    at += step.yes if loaded == step.value else step.no
                case seccomp._AT_LEAST:
                    at += step.yes if loaded >= step.value else step.no
                case seccomp._ANY_BIT:
                    at += step.yes if loaded & step.value else step.no

    allow, refuse = 0x7FFF_0000, 0x0005_0001
    for name, numbers in seccomp._REFUSED.items():
        number = numbers[known.column]
        if number is not None:
            assert verdict(number) == refuse, name
    reads, clone = {"x86_64": (0, 56), "aarch64": (63, 220)}[machine]
    assert verdict(reads) == allow
    assert verdict(clone, first=0x0001_0000) == allow
    assert verdict(clone, first=17) == refuse
    assert verdict(435) == 0x0005_0000 | 38
    assert verdict(reads, audit=0x4000_0003) == refuse
    assert verdict(reads | 0x4000_0000) == refuse
