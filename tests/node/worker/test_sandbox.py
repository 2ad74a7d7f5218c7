"""What the worker gives up, seen from inside a process that has given it up."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

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
