"""The compiled kernels: finds the library beside this file and gives its functions their types.

The interface is ayni_kernels.h, field by field. A call lets other threads of Python run.
"""

import ctypes
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ABI: Final = 1
ALIGNMENT: Final = 64
THREADS_MAX: Final = 64
OK: Final = 0
NAMES: Final = {"linux": "libayni_kernels.so", "darwin": "libayni_kernels.dylib"}
# From the fastest to the slowest; the numbers are those of the header.
PATHS: Final = ((3, "avx512-vnni"), (2, "avx-vnni"), (1, "avx2"), (4, "neon"), (0, "portable"))

_ERRORS: Final = {1: "a bad argument", 2: "no threads", 3: "a path that is not here"}


class Matrix(ctypes.Structure):
    """ayni_matrix"""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("format", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("columns", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


class Layer(ctypes.Structure):
    """ayni_layer"""

    _fields_ = (
        ("query_key_value", Matrix),
        ("attention_out", Matrix),
        ("gate_up", Matrix),
        ("down", Matrix),
        ("attention_norm", ctypes.c_void_p),
        ("feed_norm", ctypes.c_void_p),
        ("query_norm", ctypes.c_void_p),
        ("key_norm", ctypes.c_void_p),
        ("attention_post_norm", ctypes.c_void_p),
        ("feed_post_norm", ctypes.c_void_p),
        ("rotations", ctypes.c_void_p),
        ("window", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


class Model(ctypes.Structure):
    """ayni_model"""

    _fields_ = (
        ("abi", ctypes.c_int32),
        ("layers", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("inner_width", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("key_heads", ctypes.c_int32),
        ("head_width", ctypes.c_int32),
        ("vocabulary", ctypes.c_int32),
        ("context", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("blocks", ctypes.c_int32),
        ("rows_max", ctypes.c_int32),
        ("norm_epsilon", ctypes.c_float),
        ("attention_scale", ctypes.c_float),
        ("attention_softcap", ctypes.c_float),
        ("logit_softcap", ctypes.c_float),
        ("embedding_scale", ctypes.c_float),
        ("layer", ctypes.POINTER(Layer)),
        ("embedding", Matrix),
        ("head", Matrix),
        ("norm", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
    )


# Of each size the least that the kernels take.
_SMALLEST: Final = Model(
    abi=ABI,
    **dict.fromkeys(("layers", "heads", "key_heads", "vocabulary", "context"), 1),
    **dict.fromkeys(("blocks", "rows_max"), 1),
    **dict.fromkeys(("width", "inner_width", "head_width"), 32),
)


class Batch(ctypes.Structure):
    """ayni_batch"""

    _fields_ = (
        ("rows", ctypes.c_int32),
        ("sequences", ctypes.c_int32),
        ("table_width", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("token", ctypes.c_void_p),
        ("sequence", ctypes.c_void_p),
        ("position", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("hidden", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True)
class Rope:
    """How angles grow: scale * base ** (-i / half) a position, by the divisor of i."""

    base: float
    scale: float
    divisors: int  # The address of `half` float32, or 0 for none.


class Kernels:
    """The functions of one library. Raises OSError where the file is no such library."""

    def __init__(self, path: Path) -> None:
        self.library = library = ctypes.CDLL(str(path))
        try:
            self._paths = library.ayni_paths
            self._compiler = library.ayni_compiler
            self._pool_open = library.ayni_pool_open
            self._pool_close = library.ayni_pool_close
            self._scratch_bytes = library.ayni_scratch_bytes
            self.step = library.ayni_step
            self._rotations = library.ayni_rotations
        except AttributeError:
            raise OSError(f"{path.name} is not what this version of Ayni was built with") from None
        self._paths.argtypes, self._paths.restype = (), ctypes.c_uint32
        self._compiler.argtypes, self._compiler.restype = (), ctypes.c_char_p
        self._pool_open.argtypes, self._pool_open.restype = (ctypes.c_int32,), ctypes.c_void_p
        self._pool_close.argtypes, self._pool_close.restype = (ctypes.c_void_p,), None
        model = ctypes.POINTER(Model)
        self._scratch_bytes.argtypes = (model, ctypes.c_int32)
        self._scratch_bytes.restype = ctypes.c_size_t
        self.step.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)
        self.step.restype = ctypes.c_int32
        self._rotations.argtypes = (
            *(ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_double, ctypes.c_double),
            ctypes.c_void_p,
        )
        self._rotations.restype = None

    @property
    def compiler(self) -> str:
        """What it was compiled with."""
        name: bytes = self._compiler()
        return name.decode("ascii", "replace")

    def paths(self) -> tuple[tuple[int, str], ...]:
        """Number and name of every way to compute that this build and this processor have, the
        fastest first. All give the same bits."""
        bits = int(self._paths())
        return tuple((number, name) for number, name in PATHS if bits >> number & 1)

    def pool_open(self, threads: int) -> int:
        """The address of a pool of threads, to be closed. Raises OSError where there can be
        none."""
        assert 1 <= threads <= THREADS_MAX
        pool = self._pool_open(threads)
        if not pool:
            raise OSError(f"{threads} threads cannot be had")
        return int(pool)

    def pool_close(self, pool: int) -> None:
        self._pool_close(pool)

    def scratch_bytes(self, model: Model, threads: int) -> int:
        """What a step needs besides, or 0 for a model that the kernels refuse."""
        return int(self._scratch_bytes(ctypes.byref(model), threads))

    def rotations(self, address: int, positions: int, half: int, rope: Rope) -> None:
        """Fill [positions][half][2] float32 at `address` with cosines and sines."""
        self._rotations(address, positions, half, rope.base, rope.scale, rope.divisors or None)


def error_text(status: int) -> str:
    """What a status of ayni_step means."""
    return _ERRORS.get(status, f"status {status}")


def library_path(folder: Path) -> Path:
    """Where build.py puts it on this platform."""
    return folder / NAMES.get(sys.platform, "libayni_kernels.dll")


@functools.cache
def load(folder: Path = Path(__file__).parent) -> Kernels | None:
    """The library in `folder`; None where none was built, or it is not for this machine."""
    path = library_path(folder)
    if not path.exists():
        return None
    try:
        kernels = Kernels(path)
    except OSError:
        return None
    # One that was built from another version of the header refuses every model.
    return kernels if kernels.paths() and kernels.scratch_bytes(_SMALLEST, 1) else None
