"""Which build of torch bootstrap.py installs."""

import sys
from collections.abc import Sequence
from pathlib import Path


def has_nvidia_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()


def torch_requirement(version: str, available: Sequence[str], has_gpu: bool) -> tuple[str, bool]:
    """What to ask pip for, and whether it is the large CUDA build.

    `available` are the versions that the configured indexes have. Without a GPU the CPU build is
    taken where there is one; with a GPU the CPU build only where there is nothing else.
    """
    cpu = f"{version}+cpu"
    if cpu in available and (not has_gpu or version not in available):
        return f"torch=={cpu}", False
    # === keeps pip from preferring a local version such as +cpu over the plain one.
    return f"torch==={version}", sys.platform == "linux"
