"""Which device computes, and in which numbers."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from protocol.errors import Code, LocalError

NUMBERS: Final = {"f32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Device:
    """`compute` is the first half of a mode's name: who names it promises this kind of noise."""

    torch_device: torch.device
    numbers: torch.dtype
    compute: str  # The kind of device and the numbers: "cpu-f32", "cuda-bf16", "mps-bf16" ...
    name: str


def choose(device: str, compute: str) -> Device:
    """The device for a setting. "auto" takes a GPU of CUDA's kind (ROCm's too: torch calls them
    so), else Apple's, else the CPU; and bf16 where there are instructions for it, else f32: what
    is imitated is several times slower.

    Raises LocalError BAD_CONFIG for a device that is not there or numbers it does not compute in.
    """
    if compute not in ("auto", *NUMBERS):
        raise LocalError(Code.BAD_CONFIG, f"Unknown numbers {compute[:40]}: set auto, f32 or bf16.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else _without_cuda()
    kind = device.partition(":")[0]
    if kind == "cuda" and torch.cuda.is_available():
        return _cuda(device, compute)
    if device == "mps" and torch.backends.mps.is_available():
        has_bf16 = torch.backends.mps.is_macos_or_newer(14, 0)
        return _device(device, "mps", compute, has_bf16, "Apple GPU")
    if device != "cpu":
        raise LocalError(
            Code.BAD_CONFIG, f"The device {device[:40]} is not here: set auto, cpu, cuda or mps."
        )
    return _device(device, "cpu", compute, _cpu_has_bf16(), "CPU")


def _without_cuda() -> str:
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _device(device: str, kind: str, compute: str, has_bf16: bool, name: str) -> Device:
    if compute == "auto":
        compute = "bf16" if has_bf16 else "f32"
    return Device(torch.device(device), NUMBERS[compute], f"{kind}-{compute}", name)


def _cuda(device: str, compute: str) -> Device:
    number = device.partition(":")[2] or "0"
    count = torch.cuda.device_count()
    if not number.isascii() or not number.isdigit() or int(number) >= count:
        raise LocalError(
            Code.BAD_CONFIG, f"The device {device[:40]} is not here: there are {count} GPUs."
        )
    with torch.cuda.device(int(number)):
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    kind = "cuda" if torch.version.hip is None else "rocm"
    return _device(
        f"cuda:{number}", kind, compute, has_bf16, torch.cuda.get_device_name(int(number))
    )


def _cpu_has_bf16() -> bool:
    """Torch has no public question for it; elsewhere than on Linux f32 is the safe answer."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
