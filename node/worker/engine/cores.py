"""How many physical cores this process may use: two threads on one core only slow each other."""

import os
import sys
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


def physical_cores(topology: Path = _TOPOLOGY) -> int:
    """Of the processors that this process may run on, how many are cores of their own; at least
    1. Where the system does not tell (elsewhere than on Linux), all processors are counted."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    allowed = sorted(os.sched_getaffinity(0))
    cores = {_core(topology, processor) for processor in allowed}
    return max(1, len(cores))


def _core(topology: Path, processor: int) -> str:
    """The same text for all processors of one core."""
    folder = topology / f"cpu{processor}" / "topology"
    for name in ("core_cpus_list", "thread_siblings_list"):
        try:
            return (folder / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
    return f"{processor}"
