"""What the beginning of a model's files says of it: enough to know early that it will not run.

The daemon loads no model, so this reads a few facts and stops; the worker checks everything.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from protocol.errors import Code, LocalError

ENCODER: Final = "bert"
"""The family whose models make vectors and write nothing."""
FAMILIES: Final = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", ENCODER)
"""What the engine runs, as a GGUF names it."""
_FAMILY_OF_TYPE: Final = {**{name: name for name in FAMILIES}, "gemma3_text": "gemma3"}
"""From `model_type` of a config.json."""
JSON_BYTES_MAX: Final = 4 << 20  # As the worker's; Gemma 3's tokenizer_config.json has 1.2 MB.
HEADER_BYTES_MAX: Final = 16 << 20
_TEXT_BYTES_MAX: Final = 1 << 16
_KEYS_MAX: Final = 4096
_STRING, _ARRAY = 8, 9
# Formats of the values of GGUF's types 0 to 12, but strings and arrays.
_FORMATS: Final = {
    **{0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"},
    **{10: "<Q", 11: "<q", 12: "<d"},
}
_FLOATS: Final = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class Facts:
    """`family` is one of FAMILIES; `context_tokens` what the model was made for."""

    family: str
    context_tokens: int
    licence: str = ""


def gguf_facts(path: Path) -> Facts:
    """Of a GGUF file (version 2 or 3). Raises LocalError BAD_MODEL."""
    try:
        with path.open("rb") as file:
            found = _gguf_values(file)
    except (OSError, struct.error, ValueError) as error:
        raise _bad(path, f"cannot be read as a GGUF: {error}") from None
    family = str(found.get("general.architecture", ""))
    if family not in FAMILIES:
        raise _unknown(path, family)
    context = found.get(f"{family}.context_length", 0)
    if not isinstance(context, int) or context < 1:
        raise _bad(path, "does not say how long its context is")
    return Facts(family, context, str(found.get("general.license", "")))


def _gguf_values(file: IO[bytes]) -> Mapping[str, object]:
    """The keys before the tokenizer's, which are long and tell nothing that is asked here."""
    magic, version, _, keys = struct.unpack("<4sIQQ", _read(file, 24))
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError("it begins otherwise, or is of another version than 2 and 3")
    found: dict[str, object] = {}
    for _ in range(min(keys, _KEYS_MAX)):
        key = _read_string(file)
        family = found.get("general.architecture")
        if key.startswith("tokenizer.") and f"{family}.context_length" in found:
            break
        found[key] = _read_value(file, _read_number(file, "<I"))
    return found


def _read_value(file: IO[bytes], kind: int) -> object:
    if kind == _STRING:
        return _read_string(file)
    if kind in _FORMATS:
        return _read_number(file, _FORMATS[kind])
    if kind != _ARRAY:
        raise ValueError(f"it has a value of the unknown type {kind}")
    inner, count = _read_number(file, "<I"), _read_number(file, "<Q")
    if inner in _FORMATS:
        _read(file, count * struct.calcsize(_FORMATS[inner]))
    elif inner == _STRING and count <= HEADER_BYTES_MAX // 8:
        for _ in range(count):
            _read(file, _read_number(file, "<Q"))
    else:
        raise ValueError("it has an array that nobody could read")
    return None


def _read_string(file: IO[bytes]) -> str:
    size = _read_number(file, "<Q")
    if size > _TEXT_BYTES_MAX:
        raise ValueError(f"it has a text of {size} bytes")
    return _read(file, size).decode("utf-8")


def _read_number(file: IO[bytes], form: str) -> int:
    (value,) = struct.unpack(form, _read(file, struct.calcsize(form)))
    return int(value) if isinstance(value, int) else 0


def _read(file: IO[bytes], size: int) -> bytes:
    if file.tell() + size > HEADER_BYTES_MAX:
        raise ValueError(f"its header is longer than {HEADER_BYTES_MAX} bytes")
    data = file.read(size)
    if len(data) < size:
        raise ValueError("it ends too early")
    return data


def config_facts(path: Path) -> Facts:
    """Of a config.json as Hugging Face writes it. Raises LocalError BAD_MODEL."""
    config = read_json(path)
    kind = str(config.get("model_type", ""))
    if kind not in _FAMILY_OF_TYPE:
        raise _unknown(path, kind)
    if config.get("quantization_config"):
        raise _bad(
            path,
            "is of weights that were quantised by another program; take the original ones, or a "
            "GGUF of this model",
        )
    context = config.get("max_position_embeddings", 0)
    if not isinstance(context, int) or context < 1:
        raise _bad(path, "does not say how long its context is (max_position_embeddings)")
    return Facts(_FAMILY_OF_TYPE[kind], context)


def check_safetensors(path: Path) -> None:
    """Whether a file's header holds and its numbers are floats. Raises LocalError BAD_MODEL."""
    try:
        with path.open("rb") as file:
            size = _read_number(file, "<Q")
            tensors = msgspec.json.decode(_read(file, size), type=dict[str, dict[str, Any]])
    except (OSError, ValueError, RecursionError) as error:
        raise _bad(path, f"cannot be read as safetensors: {error}") from None
    kinds = {str(one.get("dtype")) for name, one in tensors.items() if name != "__metadata__"}
    if others := kinds - _FLOATS - {"I64"}:  # Of places, which some encoders write down.
        raise _bad(
            path,
            f"has numbers of the type {', '.join(sorted(others))}; the engine takes "
            f"{', '.join(sorted(_FLOATS))}, or a GGUF",
        )


def read_json(path: Path) -> dict[str, Any]:
    """An object of a bounded file. Raises LocalError BAD_MODEL."""
    try:
        with path.open("rb") as file:
            data = file.read(JSON_BYTES_MAX + 1)
        if len(data) > JSON_BYTES_MAX:
            raise ValueError(f"it has more than {JSON_BYTES_MAX} bytes")
        return msgspec.json.decode(data, type=dict[str, Any])
    except (OSError, ValueError, RecursionError) as error:
        raise _bad(path, f"cannot be read as JSON: {error}") from None


def _unknown(path: Path, family: str) -> LocalError:
    return _bad(
        path,
        f"is of the family {family[:40]!r}, which the engine does not run; it runs "
        f"{', '.join(FAMILIES)}",
    )


def _bad(path: Path, why: str) -> LocalError:
    return LocalError(Code.BAD_MODEL, f"{path} {why}.")
