"""What this machine is made of, as an advert tells it: processor, memory, GPUs."""

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import psutil

from node.discovery.gpus import gpus, installed_nvml
from node.discovery.text import cut
from protocol.capacity import Device
from protocol.limits import ADVERT_DEVICES_MAX, ADVERT_TEXT_BYTES_MAX

_COMMAND_SECONDS_MAX = 2
_FILE_BYTES_MAX = 1 << 16  # The first processor of /proc/cpuinfo tells all; a server has many.
_CORES_MAX = 1 << 20
_WINDOWS_KEY = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
# Fields of /proc/cpuinfo that name the processor: x86, ARM boards, older ARM, POWER.
_LINUX_FIELDS = ("model name", "Model", "Hardware", "cpu")


class Machine(Protocol):
    """Where the facts come from; each text is "" where there is none."""

    @property
    def system(self) -> str:
        """ "Linux", "Darwin" or "Windows"."""

    @property
    def architecture(self) -> str:
        """Such as "x86_64"; the name of last resort."""

    @property
    def cores_physical(self) -> int | None: ...

    @property
    def cores_logical(self) -> int | None: ...

    @property
    def memory_bytes(self) -> int: ...

    def file(self, path: str) -> str: ...

    def output(self, command: Sequence[str]) -> str: ...

    def registry(self, key: str, name: str) -> str: ...


class ThisMachine:
    """The machine that this process runs on."""

    @property
    def system(self) -> str:
        return platform.system()

    @property
    def architecture(self) -> str:
        return platform.machine()

    @property
    def cores_physical(self) -> int | None:
        return psutil.cpu_count(logical=False)

    @property
    def cores_logical(self) -> int | None:
        return psutil.cpu_count(logical=True)

    @property
    def memory_bytes(self) -> int:
        return int(psutil.virtual_memory().total)

    def file(self, path: str) -> str:
        try:
            with Path(path).open("rb") as file:
                return file.read(_FILE_BYTES_MAX).decode("utf-8", "replace").replace("\0", "")
        except OSError:
            return ""

    def output(self, command: Sequence[str]) -> str:
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                check=True,
                stdin=subprocess.DEVNULL,
                timeout=_COMMAND_SECONDS_MAX,
            )
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.decode("utf-8", "replace")

    def registry(self, key: str, name: str) -> str:
        if sys.platform != "win32":
            return ""
        import winreg

        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
                return str(winreg.QueryValueEx(opened, name)[0])
        except OSError:
            return ""


def devices() -> tuple[Device, ...]:
    """The processor and the GPUs of this machine. It may take a second: call it in a thread."""
    return (processor(ThisMachine()), *gpus(installed_nvml()))[:ADVERT_DEVICES_MAX]


def processor(machine: Machine) -> Device:
    """The processor with the machine's memory. Its cores are the physical ones, because that is
    what inference scales with; the logical ones count where the system does not tell."""
    cores = machine.cores_physical or machine.cores_logical or 1
    return Device(
        kind="cpu",
        name=cut(_processor_name(machine), ADVERT_TEXT_BYTES_MAX),
        memory_bytes=max(0, machine.memory_bytes),
        cores=min(cores, _CORES_MAX),
    )


def _processor_name(machine: Machine) -> str:
    """What its maker calls it. Run on Linux; not yet run on macOS and Windows."""
    match machine.system:
        case "Linux":
            name = _linux_name(machine)
        case "Darwin":
            name = machine.output(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"])
        case "Windows":
            name = machine.registry(_WINDOWS_KEY, "ProcessorNameString")
        case _:
            name = ""
    return name.strip() or machine.architecture or "unknown"


def _linux_name(machine: Machine) -> str:
    fields: dict[str, str] = {}
    for line in machine.file("/proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon and value.strip():
            fields.setdefault(key.strip(), value.strip())
    named = (fields[field] for field in _LINUX_FIELDS if field in fields)
    return next(named, machine.file("/sys/firmware/devicetree/base/model"))
