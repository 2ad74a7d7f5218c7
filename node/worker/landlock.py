"""Landlock: this process gives up the files that it does not need, for good and without root.

The kernel's interface is described in https://docs.kernel.org/userspace-api/landlock.html; Python
and the C library have no functions for it yet, so the three system calls are made by number.
"""

import ctypes
import os
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_AND_REMOVE: Final = 0x1FF0  # Files, folders, links, devices and sockets: eight rights.
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
# What each version of the interface can hold back, beside what the one before it could.
_FILE_RIGHTS: Final = {1: 0x1FFF, 2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEVICE}
_NETWORK_VERSION, _NETWORK_RIGHTS = 4, 0b11  # To bind and to connect by TCP.
_SCOPE_VERSION, _SCOPES = 6, 0b11  # Abstract sockets of others, and signals to others.


@dataclass(frozen=True, slots=True)
class Allowed:
    """What stays open, each with everything beneath it. What is not there is passed over."""

    readable: Sequence[Path]
    writable: Sequence[Path] = ()  # Folders whose files may be made, written and renamed.
    devices: Sequence[Path] = ()  # Read, written and controlled: a GPU's, /dev/null.


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scopes", ctypes.c_uint64),
    )


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # What the kernel calls packed; later Pythons want it said.
    _fields_ = (("rights", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


def version() -> int:
    """Of the kernel's interface; 0 where it has none or it is switched off."""
    if sys.platform != "linux":
        return 0
    return max(0, _call(_CREATE_RULESET, None, 0, _VERSION_FLAG))


def restrict(allowed: Allowed) -> bool:
    """Hold this process and its threads to come to what is allowed. It needs "no new privileges"
    and takes nothing back. False, and nothing has changed, where the kernel cannot."""
    found = version()
    if not found:
        return False
    rights = sum(bits for since, bits in _FILE_RIGHTS.items() if since <= found)
    ruleset = _Ruleset(
        rights,
        _NETWORK_RIGHTS if found >= _NETWORK_VERSION else 0,
        _SCOPES if found >= _SCOPE_VERSION else 0,
    )
    # An older kernel takes a shorter structure, or a longer one whose rest is zero.
    descriptor = _call(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0)
    if descriptor < 0:
        return False
    try:
        read = _READ_FILE | _READ_DIR
        write = read | _WRITE_FILE | _MAKE_AND_REMOVE | _TRUNCATE | _REFER
        device = read | _WRITE_FILE | _IOCTL_DEVICE
        groups: Iterable[tuple[Sequence[Path], int]] = (
            (allowed.readable, read),
            (allowed.writable, write),
            (allowed.devices, device),
        )
        for paths, wanted in groups:
            for path in paths:
                _allow(descriptor, path, wanted & rights)
        return _call(_RESTRICT_SELF, descriptor, 0) == 0
    finally:
        os.close(descriptor)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            # The kernel refuses rights that only folders have.
            rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEVICE
        beneath = _Beneath(rights, descriptor)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(beneath), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(library.syscall(ctypes.c_long(number), *wide))
