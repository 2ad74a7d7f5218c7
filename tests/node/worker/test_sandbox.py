"""What the worker gives up, seen from inside a process that has given it up."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from node.worker import landlock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has been run")

ROOT = Path(__file__).parents[3]

LOOK = """
import json, os, resource, socket, sys
sys.path.append(sys.argv[1])
from node.worker import sandbox
from node.worker.pipe import Start
read, write = sandbox.take_pipe()
held = sandbox.confine(Start(1, True, "cpu", "f32", "auto", [sys.argv[2]]))
print("this goes to stderr")
try:
    with open(sys.argv[2] + "/file", "w") as file:
        file.write("x")
    wrote = True
except OSError:
    wrote = False
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[3])), timeout=1).close()
    reached = True
except OSError:
    reached = False
seen = {
    "held": held, "wrote": wrote, "reached": reached,
    "environment": sorted(os.environ),
    "descriptors": sorted({int(n) for n in os.listdir("/proc/self/fd")} - {read, write}),
    "scheduler": os.sched_getscheduler(0), "session": os.getsid(0) == os.getpid(),
    "core": resource.getrlimit(resource.RLIMIT_CORE), "heard": os.read(read, 5).decode(),
}
os.write(write, json.dumps(seen).encode())
"""


def test_it_gives_up_what_it_does_not_need() -> None:
    inherited, other = os.pipe()
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-I", "-c", LOOK, str(ROOT), folder, port],
            input=b"hello",
            capture_output=True,
            pass_fds=[inherited, other],
            env={"AYNI_PASSPHRASE": "x", "LANG": "C.UTF-8"},
            check=True,
        )
    os.close(inherited)
    os.close(other)
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["heard"] == "hello"
    assert b"this goes to stderr" in done.stderr
    assert set(seen["environment"]) <= {"LANG", "LC_ALL", "OMP_WAIT_POLICY"}
    # Its standard ones, and the one by which it looks into the folder.
    assert len(seen["descriptors"]) == 4
    assert seen["descriptors"][:3] == [0, 1, 2]
    assert seen["scheduler"] == os.SCHED_IDLE
    assert seen["session"]
    assert seen["core"] == [0, 0]
    assert not seen["wrote"]
    assert {"no-files-written", "no-core-dump", "own-session", "idle-priority"} <= set(seen["held"])
    assert seen["reached"] == ("no-network" not in seen["held"])


AS_A_USER = """
import ctypes, os, resource, sys
sys.path.append(sys.argv[1])
from node.worker import sandbox
from node.worker.pipe import Start
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # "Dumpable", as a program is that a user starts.
print(sorted(sandbox.confine(Start(1, True, "cpu", "f32", "auto", []))))
with open("/proc/self/autogroup") as file:
    print(file.read().split()[-1])
"""


def test_the_session_of_a_user_that_is_not_root_weighs_least_too() -> None:
    group = Path("/proc/self/autogroup")
    if not group.exists() or not group.read_text():
        pytest.skip("this kernel does not weigh sessions against each other")
    done = subprocess.run(
        [sys.executable, "-I", "-c", AS_A_USER, str(ROOT)], capture_output=True, check=True
    )
    held, nice = done.stdout.decode().splitlines()
    assert "no-core-dump" in held
    assert "idle-priority" in held
    assert nice == "19"


LIMITED = """
import resource, sys
sys.path.append(sys.argv[1])
from node.worker import sandbox
from node.worker.pipe import Start
resource.setrlimit(resource.RLIMIT_DATA, (1 << 32, 1 << 32))
print(sandbox.confine(Start(1, False, "cpu", "f32", "auto", [])))
print(max(resource.getrlimit(resource.RLIMIT_DATA)))
"""


def test_a_bound_of_memory_that_the_system_set_is_not_raised() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", LIMITED, str(ROOT)], capture_output=True, check=True
    )
    held, most = done.stdout.decode().splitlines()
    assert "bounded-memory" in held
    assert int(most) <= 1 << 32


LIBRARIES = """
import os, sys
from pathlib import Path
sys.path.append(sys.argv[1])
from node.worker import sandbox
from node.worker.pipe import Start
sandbox.confine(Start(1, False, "cpu", "f32", "auto", []))

def readable(path):
    try:
        return bool(Path(path).read_bytes())
    except OSError:
        return False

print(*map(readable, sys.argv[2:]))
"""


def confined_reads(packages: Path, paths: Sequence[Path], libraries: Path) -> list[str]:
    """Whether a worker that is installed in `packages` can read each of the paths."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", LIBRARIES, str(packages), *map(str, paths)],
        capture_output=True,
        env={"LD_LIBRARY_PATH": f":{libraries}:."},
        check=True,
    )
    return done.stdout.decode().split()


def test_libraries_where_the_owner_put_them_are_read(tmp_path: Path) -> None:
    """`pip install --user` and `--target` put Ayni and what it needs into one folder, outside of
    Python's own; a checkout's folder may hold anything."""
    if not landlock.version():
        pytest.skip("this kernel has no Landlock")
    installed, checkout, libraries = (tmp_path / name for name in ("installed", "work", "lib"))
    for folder in (installed, checkout):
        for name in ("node", "protocol"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so")
            )
        (folder / "beside").write_text("x")
    (installed / "ayni-0.1.dist-info").mkdir()
    libraries.mkdir()
    (libraries / "libany.so").write_text("x")
    paths = [installed / "beside", libraries / "libany.so"]
    assert confined_reads(installed, paths, libraries) == ["True", "True"]
    assert confined_reads(checkout, [checkout / "beside"], libraries) == ["False"]


def test_a_fault_shows_its_place_and_not_its_words() -> None:
    code = (
        "import sys, threading; sys.path.append(sys.argv[1])\n"
        "from node.worker import sandbox\n"
        "sandbox.quiet_faults()\n"
        "def fail(): raise ValueError('a secret word')\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
        "fail()\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(ROOT)], capture_output=True, check=False
    )
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("worker fault: ValueError at ") for line in lines)
    assert b"secret" not in done.stderr
