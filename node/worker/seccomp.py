"""A seccomp filter: system calls that the worker never makes are refused from now on.

The filter is a classic BPF program over `struct seccomp_data` (call number, architecture, address,
six arguments); https://docs.kernel.org/userspace-api/seccomp_filter.html has the interface.
"""

import ctypes
import errno
import platform
import struct
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

_SET_SECCOMP, _FILTER_MODE = 22, 2  # Of prctl.
_ALLOW: Final = 0x7FFF_0000
_REFUSE: Final = 0x0005_0000  # With the error's number in the lower half.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_CLONE_THREAD: Final = 0x0001_0000
_X32_CALLS: Final = 0x4000_0000  # The same processor's other table of calls begins here.

# By name, as (x86-64, arm64); None where arm64 has no such call.
_REFUSED: Final[dict[str, tuple[int, int | None]]] = {
    # The network, whatever the namespace allows.
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242),
    "bind": (49, 200), "listen": (50, 201), "sendto": (44, 206), "io_uring_setup": (425, 425),
    # Other programs, and other processes' memory.
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    # More rights, other namespaces, the kernel itself.
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430),
    "setns": (308, 268), "unshare": (272, 97), "open_by_handle_at": (304, 265),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104),
    "reboot": (169, 142), "swapon": (167, 224),
}  # fmt: skip


class _Machine(NamedTuple):
    """An architecture as the kernel knows it."""

    audit: int
    column: int  # Of _REFUSED.
    clone: int


_CLONE3: Final = 435
_MACHINES: Final = {
    "x86_64": _Machine(0xC000_003E, 0, 56),
    "aarch64": _Machine(0xC000_00B7, 1, 220),
}


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class _Step(NamedTuple):
    """One instruction; `yes` and `no` are how many of the next ones are passed over."""

    code: int
    value: int
    yes: int = 0
    no: int = 0


def program(machine: _Machine) -> Sequence[_Step]:
    """The filter: another architecture's calls and those above are refused with EPERM, a clone is
    allowed where it makes a thread, and all else is allowed."""
    refuse = _Step(_RETURN, _REFUSE | errno.EPERM)
    allow = _Step(_RETURN, _ALLOW)
    steps = [
        _Step(_LOAD, _ARCHITECTURE_AT),
        _Step(_EQUAL, machine.audit, yes=1),
        refuse,
        _Step(_LOAD, _NUMBER_AT),
        _Step(_AT_LEAST, _X32_CALLS, no=1),
        refuse,
        # Its flags lie in memory, where a filter cannot look: "no such call" sends the C library
        # to the older one.
        _Step(_EQUAL, _CLONE3, no=1),
        _Step(_RETURN, _REFUSE | errno.ENOSYS),
        _Step(_EQUAL, machine.clone, no=4),
        _Step(_LOAD, _FIRST_ARGUMENT_AT),  # The lower half: both architectures are little endian.
        _Step(_ANY_BIT, _CLONE_THREAD, no=1),
        allow,
        refuse,
    ]
    numbers = [call[machine.column] for call in _REFUSED.values()]
    for number in numbers:
        if number is not None:
            steps += [_Step(_EQUAL, number, no=1), refuse]
    return [*steps, allow]


def restrict() -> bool:
    """Set the filter for this process, which has one thread now, and for threads to come. It needs
    "no new privileges". False, and nothing has changed, where that cannot be."""
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.maxsize < 1 << 32:
        return False
    steps = program(machine)
    raw = b"".join(struct.pack("=HBBI", s.code, s.yes, s.no, s.value) for s in steps)
    filled = _Program(len(steps), raw)
    library = ctypes.CDLL(None, use_errno=True)
    wide = ctypes.c_ulong
    return (
        int(library.prctl(_SET_SECCOMP, wide(_FILTER_MODE), ctypes.byref(filled), wide(0), wide(0)))
        == 0
    )
