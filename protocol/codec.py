"""One value, one encoding: canonical MessagePack of typed structs, strictly bounded.

A struct is an array of its tag and fields, so there are no maps to order and no optional
keys; integers take their shortest form; there are no floats, no extension types. A decoder
accepts only bytes that re-encode to themselves.
"""

from typing import TypeVar

import msgpack
import msgspec

from protocol.errors import Code, RemoteError
from protocol.limits import CODEC_DEPTH_MAX, CODEC_ITEMS_MAX, FRAME_BYTES_MAX

T = TypeVar("T")


def encode(value: object) -> bytes:
    """The canonical bytes of a struct of this protocol."""
    plain = msgspec.to_builtins(value, builtin_types=(bytes,))
    packed = msgpack.packb(plain, use_bin_type=True)
    assert isinstance(packed, bytes)
    return packed


def decode(data: bytes, kind: type[T], size_max: int = FRAME_BYTES_MAX) -> T:
    """The value of type `kind` that `data` encodes; `kind` may be a union of tagged structs.

    Raises RemoteError: TOO_LARGE beyond `size_max` bytes, BAD_ENCODING for what is not the
    canonical MessagePack of anything, BAD_MESSAGE for what is not a `kind`.
    """
    if len(data) > size_max:
        raise RemoteError(
            Code.TOO_LARGE, f"A message of {len(data)} bytes came; at most {size_max} are taken."
        )
    plain = _plain(data)
    try:
        value = msgspec.convert(plain, kind, strict=True)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise RemoteError(Code.BAD_MESSAGE, f"The message does not fit: {error}") from None
    if encode(value) != data:
        raise RemoteError(Code.BAD_ENCODING, "The message is not in its one canonical form.")
    return value


def _plain(data: bytes) -> object:
    try:
        plain: object = msgpack.unpackb(
            data,
            raw=False,
            max_str_len=len(data),
            max_bin_len=len(data),
            max_array_len=min(CODEC_ITEMS_MAX, len(data)),  # An item takes a byte at least.
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise RemoteError(Code.BAD_ENCODING, f"Not MessagePack: {type(error).__name__}") from None
    _check(plain)
    return plain


def _check(plain: object) -> None:
    level, items, depth = [plain], 1, 0
    while level:
        depth += 1
        below: list[object] = []
        for value in level:
            if isinstance(value, list):
                below += value
            elif value is not None and type(value) not in (int, str, bytes, bool):
                raise RemoteError(Code.BAD_ENCODING, f"A {type(value).__name__} has no place here.")
        items += len(below)
        if depth > CODEC_DEPTH_MAX or items > CODEC_ITEMS_MAX:
            raise RemoteError(Code.BAD_ENCODING, "The message is too deep or has too many items.")
        level = below
