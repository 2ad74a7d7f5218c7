"""Which device computes, and in which numbers."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from protocol.errors import Code, LocalError


@dataclass(frozen=True, slots=True)
class Device:
    """`compute` is the first half of a mode's name: who names it promises this kind of noise."""

    torch_device: torch.device
    numbers: torch.dtype
    compute: str  # "cpu-f32", "cpu-bf16" or "cuda-bf16".
    name: str


def choose(device: str, compute: str) -> Device:
    """The device for a setting: "auto" takes a GPU that computes in bf16, else the CPU, and bf16
    on a CPU only where it has instructions for it (without, it is four times slower than f32).

    Raises LocalError BAD_CONFIG for a device that is not there or numbers it does not compute in.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "cpu"
    kind = device.partition(":")[0]
    if kind == "cuda" and torch.cuda.is_available():
        return _cuda(device, compute)
    if device != "cpu":
        raise LocalError(
            Code.BAD_CONFIG, f"The device {device[:40]} is not here: set auto, cpu or cuda."
        )
    if compute not in ("auto", "f32", "bf16"):
        raise LocalError(Code.BAD_CONFIG, f"Unknown numbers {compute[:40]}: set auto, f32 or bf16.")
    if compute == "auto":
        compute = "bf16" if _cpu_has_bf16() else "f32"
    numbers = torch.bfloat16 if compute == "bf16" else torch.float32
    return Device(torch.device("cpu"), numbers, f"cpu-{compute}", "CPU")


def _cuda(device: str, compute: str) -> Device:
    if compute not in ("auto", "bf16"):
        raise LocalError(Code.BAD_CONFIG, "A GPU computes in bf16: set compute to auto or bf16.")
    chosen = torch.device(device)
    if (chosen.index or 0) >= torch.cuda.device_count():
        raise LocalError(
            Code.BAD_CONFIG,
            f"The device {device[:40]} is not here: there are {torch.cuda.device_count()} GPUs.",
        )
    return Device(chosen, torch.bfloat16, "cuda-bf16", torch.cuda.get_device_name(chosen))


def _cpu_has_bf16() -> bool:
    """Torch has no public question for it; elsewhere than on Linux f32 is the safe answer."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
