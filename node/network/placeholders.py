"""Stand-ins for fastecdsa, which `import libp2p` needs and Linux has no wheel of.

libp2p reaches fastecdsa only for ECDSA keys and SECIO, and we use neither: our keys are Ed25519
and our channel is Noise. So the names that it imports exist here, and using one is an error.
"""

import importlib.util
import sys
from types import ModuleType
from typing import NoReturn

_NAMES = {
    "fastecdsa": (),
    "fastecdsa.curve": ("Curve", "P256"),
    "fastecdsa.encoding": ("util",),
    "fastecdsa.encoding.sec1": ("SEC1Encoder",),
    "fastecdsa.encoding.util": ("int_bytelen",),
    "fastecdsa.keys": (),
    "fastecdsa.point": ("Point",),
}


class _Missing:
    """A name of fastecdsa that nobody may use."""

    def __init__(self, *_arguments: object) -> None:
        self._refuse()

    def __getattr__(self, name: str) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotImplementedError("ECDSA keys and SECIO are not part of Ayni: fastecdsa is absent")


def install() -> None:
    """Put the stand-ins where `import` finds them, unless the real package is there."""
    if "fastecdsa" in sys.modules or importlib.util.find_spec("fastecdsa") is not None:
        return
    for name, members in _NAMES.items():
        module = ModuleType(name, "A stand-in; see node.network.placeholders.")
        for member in members:
            setattr(module, member, _Missing)
        sys.modules[name] = module
    for name in _NAMES:
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])
