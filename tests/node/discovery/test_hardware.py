"""This machine's parts, from scripted sources and from the machine itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil
import pytest

from node.discovery.gpus import gpus, installed_nvml
from node.discovery.hardware import ThisMachine, devices, processor
from node.discovery.text import cut
from protocol import codec
from protocol.capacity import Device

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 33
model name\t: AMD Ryzen 7 5800X   8-Core Processor
flags\t\t: fpu vme
processor\t: 1
model name\t: another
"""
RASPBERRY = """processor\t: 0
BogoMIPS\t: 108.00
CPU implementer\t: 0x41
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


@dataclass
class Scripted:
    system: str = "Linux"
    architecture: str = "x86_64"
    cores_physical: int | None = 8
    cores_logical: int | None = 16
    memory_bytes: int = 32 << 30
    texts: dict[object, str] = field(default_factory=dict)

    def file(self, path: str) -> str:
        return self.texts.get(path, "")

    def output(self, command: Sequence[str]) -> str:
        return self.texts.get(tuple(command), "")

    def registry(self, key: str, name: str) -> str:
        return self.texts.get((key, name), "")


SYSCTL = ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")
REGISTRY = (r"HARDWARE\DESCRIPTION\System\CentralProcessor\0", "ProcessorNameString")
BOARD = "/sys/firmware/devicetree/base/model"


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (Scripted(texts={"/proc/cpuinfo": X86}), "AMD Ryzen 7 5800X 8-Core Processor"),
        (Scripted(texts={"/proc/cpuinfo": RASPBERRY}), "Raspberry Pi 5 Model B Rev 1.0"),
        (Scripted(texts={BOARD: "Rock 5B"}, architecture="aarch64"), "Rock 5B"),
        (Scripted(architecture="riscv64"), "riscv64"),
        (Scripted(system="Darwin", texts={SYSCTL: "Apple M3 Pro\n"}), "Apple M3 Pro"),
        (Scripted(system="Darwin", architecture="arm64"), "arm64"),
        (Scripted(system="Windows", texts={REGISTRY: " Intel(R) Core i5 "}), "Intel(R) Core i5"),
        (Scripted(system="Haiku", architecture=""), "unknown"),
        (Scripted(texts={"/proc/cpuinfo": "model name: " + "ü" * 99}), "ü" * 48),
    ],
)
def test_the_processor_is_called_what_its_system_calls_it(machine: Scripted, name: str) -> None:
    assert processor(machine) == Device("cpu", name, 32 << 30, 8)


def test_logical_cores_count_where_the_system_hides_the_physical_ones() -> None:
    assert processor(Scripted(cores_physical=None)).cores == 16
    assert processor(Scripted(cores_physical=None, cores_logical=None)).cores == 1


def test_this_machine_can_be_read_and_fits_an_advert() -> None:
    found = devices()
    assert found[0].kind == "cpu"
    assert found[0].memory_bytes == psutil.virtual_memory().total
    assert found[0].name
    for device in found:
        assert codec.decode(codec.encode(device), Device) == device


def test_a_source_that_is_not_there_is_no_error() -> None:
    machine = ThisMachine()
    assert machine.file("/nowhere/at/all") == ""
    assert machine.output(["/nowhere/at/all"]) == ""
    assert machine.registry("no", "key") == ""


def test_text_is_cut_between_characters_and_on_one_line() -> None:
    assert cut("  a\tb\n\x00c ", 96) == "a b c"
    assert cut("aü", 2) == "a"
    assert cut("\ud800", 96) == "?" or cut("\ud800", 96) == ""


class NvmlFault(Exception):
    pass


@dataclass(frozen=True)
class Memory:
    total: int


class ScriptedNvml:
    """A driver that tells of these GPUs; an exception in place of a fact is raised."""

    NVMLError = NvmlFault

    def __init__(self, *cards: dict[str, object], init: Exception | None = None) -> None:
        self.cards, self.init, self.open = cards, init, 0

    def nvmlInit(self) -> None:
        if self.init is not None:
            raise self.init
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, object]:
        return self.cards[index]

    def nvmlDeviceGetName(self, card: dict[str, object]) -> str:
        return self._fact(card, "name")  # type: ignore[return-value]

    def nvmlDeviceGetMemoryInfo(self, card: dict[str, object]) -> Memory:
        return Memory(self._fact(card, "memory"))  # type: ignore[arg-type]

    def nvmlDeviceGetNumGpuCores(self, card: dict[str, object]) -> int:
        return self._fact(card, "cores")  # type: ignore[return-value]

    def _fact(self, card: dict[str, object], name: str) -> object:
        fact = card[name]
        if isinstance(fact, Exception):
            raise fact
        return fact


CARD: dict[str, object] = {"name": "NVIDIA GeForce RTX 4090", "memory": 24 << 30, "cores": 16384}


def test_each_gpu_is_told_with_its_memory_and_cores() -> None:
    nvml = ScriptedNvml(CARD, CARD | {"name": b"NVIDIA T4"})
    assert gpus(nvml) == (
        Device("cuda", "NVIDIA GeForce RTX 4090", 24 << 30, 16384),
        Device("cuda", "NVIDIA T4", 24 << 30, 16384),
    )
    assert nvml.open == 0


def test_a_driver_that_knows_less_tells_less() -> None:
    lost = CARD | {"name": NvmlFault("the GPU has fallen off the bus")}
    shared = CARD | {"memory": NvmlFault("not supported"), "cores": NvmlFault("no such function")}
    nvml = ScriptedNvml(lost, shared)
    assert gpus(nvml) == (Device("cuda", "NVIDIA GeForce RTX 4090", 0, 0),)
    assert nvml.open == 0


def test_no_package_or_no_driver_is_no_gpu() -> None:
    assert gpus(None) == ()
    assert gpus(ScriptedNvml(CARD, init=NvmlFault("driver not loaded"))) == ()
    assert gpus(ScriptedNvml()) == ()


def test_the_real_package_has_the_calls_that_are_used() -> None:
    nvml = installed_nvml()
    assert nvml is not None
    for name in (name for name in dir(ScriptedNvml) if name.startswith(("nvml", "NVML"))):
        assert callable(getattr(nvml, name))
    assert isinstance(gpus(nvml), tuple)
