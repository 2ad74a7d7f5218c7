"""The GPUs of this machine, read by NVML; a machine without any is nothing unusual."""

from collections.abc import Callable
from typing import Any, Protocol

from node.discovery.text import cut
from protocol.capacity import Device
from protocol.limits import ADVERT_TEXT_BYTES_MAX


class Nvml(Protocol):
    """What is used of the package `pynvml`; a handle means nothing to us."""

    @property
    def NVMLError(self) -> type[Exception]: ...
    @property
    def nvmlInit(self) -> Callable[[], None]: ...
    @property
    def nvmlShutdown(self) -> Callable[[], None]: ...
    @property
    def nvmlDeviceGetCount(self) -> Callable[[], int]: ...
    @property
    def nvmlDeviceGetHandleByIndex(self) -> Callable[[int], Any]: ...
    @property
    def nvmlDeviceGetName(self) -> Callable[[Any], str | bytes]: ...
    @property
    def nvmlDeviceGetMemoryInfo(self) -> Callable[[Any], Any]: ...
    @property
    def nvmlDeviceGetNumGpuCores(self) -> Callable[[Any], int]: ...


def installed_nvml() -> Nvml | None:
    """NVML's package, or None where it is not installed. It needs no driver to be imported."""
    try:
        import pynvml
    except ImportError:
        return None
    nvml: Nvml = pynvml
    return nvml


def gpus(nvml: Nvml | None) -> tuple[Device, ...]:
    """The NVIDIA GPUs, in the driver's order. No package, no driver, no GPU, or one that has
    fallen off the bus: there are just fewer."""
    if nvml is None:
        return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        indices = range(nvml.nvmlDeviceGetCount())
        found = (_gpu(nvml, index) for index in indices)
        return tuple(device for device in found if device is not None)
    except nvml.NVMLError:
        return ()
    finally:
        _shut_down(nvml)


def _gpu(nvml: Nvml, index: int) -> Device | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = nvml.nvmlDeviceGetName(handle)
    except nvml.NVMLError:
        return None
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    return Device(
        kind="cuda",
        name=cut(text, ADVERT_TEXT_BYTES_MAX),
        memory_bytes=_memory_bytes(nvml, handle),
        cores=_cores(nvml, handle),
    )


def _memory_bytes(nvml: Nvml, handle: object) -> int:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:
        return 0  # A GPU that shares the processor's memory has none of its own to tell of.


def _cores(nvml: Nvml, handle: object) -> int:
    try:
        return int(nvml.nvmlDeviceGetNumGpuCores(handle))
    except nvml.NVMLError:
        return 0  # An older driver does not know this question.


def _shut_down(nvml: Nvml) -> None:
    try:
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        return
