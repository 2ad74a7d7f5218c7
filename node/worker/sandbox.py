"""What the worker does to itself before anything else: it gives up what it does not need.

Each step is best effort, says whether it held, and takes nothing back. Linux is run and tested;
macOS and Windows are written from their manuals and not yet run.
"""

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

from node.worker import landlock, seccomp
from node.worker.pipe import ENVIRONMENT_ALLOWED, Start

DESCRIPTORS_MAX: Final = 1024  # A model comes in some 200 files at most.
AUTOGROUP_TRIES: Final = 10  # Linux takes ten weights a second, of all users together.
# What Python, torch and the thread library read of the system. Nothing of it is secret.
SYSTEM_FILES: Final = (
    "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/lib", "/lib64",
    "/nix/store", "/gnu/store",
    "/etc/ld.so.cache", "/etc/localtime", "/proc/self", "/proc/cpuinfo", "/proc/meminfo",
    "/proc/stat", "/proc/sys/vm", "/sys/devices/system", "/sys/fs/cgroup",
    "/dev/zero", "/dev/random", "/dev/urandom",
)  # fmt: skip
# Not yet run: what the manuals of NVIDIA's and AMD's drivers name.
GPU_FILES: Final = (
    "/proc/driver/nvidia", "/proc/devices", "/proc/modules", "/sys/bus/pci", "/sys/class",
    "/sys/devices", "/sys/module", "/usr/local/cuda", "/usr/local/nvidia", "/opt/rocm",
    "/usr/share/nvidia", "/etc/nvidia", "/dev/shm",
)  # fmt: skip
GPU_DEVICES: Final = ("nvidia*", "nvidia-caps/*", "dri/*", "kfd")

_NEW_USER_NAMESPACE: Final = 0x10000000
_NEW_NET_NAMESPACE: Final = 0x40000000
_SET_DUMPABLE: Final = 4
_SET_NO_NEW_PRIVILEGES: Final = 38
_WINDOWS_IDLE_PRIORITY: Final = 0x40
_DARWIN_PROCESS: Final = 4
_DARWIN_BACKGROUND: Final = 0x1000


def take_pipe() -> tuple[int, int]:
    """Move the pipe away from descriptors 0 and 1, so that a library that prints cannot corrupt
    it, and close all others but stderr. Gives the descriptors to read and to write."""
    read, write = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    if sys.platform == "win32":
        os.close(null)
        return read, write
    kept = sorted((read, write))
    os.closerange(3, kept[0])
    os.closerange(kept[0] + 1, kept[1])
    os.closerange(kept[1] + 1, _descriptors_max())
    return read, write


def _descriptors_max() -> int:
    if sys.platform == "win32":
        return 2048
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def confine(start: Start, writable: Sequence[str] = ()) -> list[str]:
    """Give up the network, new rights, core dumps, files written (but in the `writable` folders),
    files read (but Python's own and the models'), other programs, the terminal's signals and, if
    asked, the processor whenever somebody else wants it. Gives the names of what held."""
    steps: dict[str, Callable[[], bool]] = {"own-session": _own_session}
    if start.idle_priority:
        # Before the refusal of dumps: from then on the files of /proc that tell of this process,
        # by one of which a session's weight is set, are root's.
        steps["idle-priority"] = _yield_processor
    steps |= {
        "no-network": _leave_network,
        "no-new-privileges": _refuse_privileges,
        "no-core-dump": _refuse_dumps,
        "bounded-memory": partial(_bound_memory, start.device),
        "bounded-descriptors": _bound_descriptors,
    }
    if not writable:
        steps["no-files-written"] = _refuse_files
    # These two come last: the steps before them need what they take away.
    steps["own-files-only"] = partial(_keep_files, start, writable)
    steps["few-system-calls"] = seccomp.restrict
    held = [name for name, step in steps.items() if step()]
    # The daemon decides when a Ctrl-C ends the worker: it lets running jobs finish first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_environment()
    return held


def threads_wanted(threads: int) -> int:
    """One fewer than the cores that this process may use, at least 1, unless it was set."""
    if threads:
        return threads
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores - 1)


def quiet_faults() -> None:
    """Let an exception print its type and places only: its words could repeat a prompt."""

    def in_thread(arguments: threading.ExceptHookArgs) -> None:
        error = arguments.exc_value or arguments.exc_type()
        _print_places(arguments.exc_type, error, arguments.exc_traceback)

    sys.excepthook = _print_places
    threading.excepthook = in_thread


def _print_places(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    frames = traceback.extract_tb(trace)[-8:]
    places = " < ".join(
        f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in reversed(frames)
    )
    sys.stderr.write(f"worker fault: {kind.__name__} at {places}\n")
    sys.stderr.flush()


def _linux_call(name: str, *arguments: int) -> bool:
    """Call a function of the C library that gives 0 when it did what was asked."""
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    return int(getattr(library, name)(*(ctypes.c_ulong(value) for value in arguments))) == 0


def _leave_network() -> bool:
    """An empty network namespace. Root needs no user namespace for it, others do; some systems
    forbid both, and then the process simply never opens a socket."""
    return _linux_call("unshare", _NEW_NET_NAMESPACE) or _linux_call(
        "unshare", _NEW_USER_NAMESPACE | _NEW_NET_NAMESPACE
    )


def _refuse_privileges() -> bool:
    return _linux_call("prctl", _SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def _refuse_dumps() -> bool:
    """No core file, and no other process of this user may read our memory: prompts are in it."""
    if sys.platform == "win32":
        return False
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return sys.platform != "linux" or _linux_call("prctl", _SET_DUMPABLE, 0, 0, 0, 0)


def _refuse_files() -> bool:
    """A write to a file fails; pipes and devices are not concerned."""
    if sys.platform == "win32":
        return False
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    return True


def _bound_memory(device: str) -> bool:
    """What this process allocates may not pass the memory of the machine: the kernel would end
    other programs then. Drivers of GPUs reserve far more than they use, so it holds for a CPU."""
    if sys.platform != "linux" or device != "cpu":
        return False
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = machine if hard == resource.RLIM_INFINITY else min(hard, machine)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    return True


def _bound_descriptors() -> bool:
    if sys.platform == "win32":
        return False
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return True


def _keep_files(start: Start, writable: Sequence[str]) -> bool:
    """Python with its packages, the system's libraries, what tells of the processor, and the
    models; of devices the harmless ones, and a GPU's where one may be used."""
    package = Path(__file__).resolve().parents[2]
    # Where pip put this package beside those that it needs (`--user`, `--target`); the folder of a
    # checkout may hold anything.
    is_installed = any(package.glob("*.dist-info"))
    libraries = os.environ.get("LD_LIBRARY_PATH", "").replace(";", ":").split(":")
    readable = [
        *([package] if is_installed else []),
        *(Path(folder) for folder in libraries if os.path.isabs(folder)),
        Path(sys.prefix),
        Path(sys.base_prefix),
        *(Path(place) for place in sys.path if place and Path(place) != package),
        package / "node",
        package / "protocol",
        *map(Path, SYSTEM_FILES),
        *map(Path, start.readable),
    ]
    devices = [Path(os.devnull)]
    if start.device != "cpu":
        readable += map(Path, GPU_FILES)
        devices += [path for pattern in GPU_DEVICES for path in Path("/dev").glob(pattern)]
    return landlock.restrict(
        landlock.Allowed(readable, [Path(folder) for folder in writable], devices)
    )


def _own_session() -> bool:
    """Away from the terminal. The kernel also weighs sessions against each other (autogroup):
    an own session can then be given the lowest weight, which `nice` alone cannot do."""
    if sys.platform == "win32":
        return False
    try:
        os.setsid()
    except PermissionError:
        return False
    return True


def _lighten_session() -> None:
    try:
        descriptor = os.open("/proc/self/autogroup", os.O_WRONLY)
    except OSError:
        return
    try:
        for _ in range(AUTOGROUP_TRIES):
            try:
                os.write(descriptor, b"19")
                return
            except BlockingIOError:
                time.sleep(0.1)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _yield_processor() -> bool:
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        _lighten_session()
        return True  # A kernel without autogroups weighs by other means.
    if sys.platform == "darwin":
        library = ctypes.CDLL(None, use_errno=True)
        return int(library.setpriority(_DARWIN_PROCESS, 0, _DARWIN_BACKGROUND)) == 0
    if sys.platform == "win32":
        kernel = ctypes.windll.kernel32
        return bool(kernel.SetPriorityClass(kernel.GetCurrentProcess(), _WINDOWS_IDLE_PRIORITY))
    return False


def _keep_environment() -> None:
    for name in list(os.environ):
        if name not in ENVIRONMENT_ALLOWED:
            del os.environ[name]
    # Threads that wait for work must sleep: a spinning barrier loses 3 to 20 times when another
    # program wants the core. The thread library reads this when torch is imported.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
