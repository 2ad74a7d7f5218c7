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
    _scan(data)
    try:
        plain: object = msgpack.unpackb(
            data,
            raw=False,
            max_str_len=len(data),
            max_bin_len=len(data),
            max_array_len=min(CODEC_ITEMS_MAX, len(data)),
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteError(Code.BAD_ENCODING, f"Not MessagePack: {type(error).__name__}") from None
    return plain


# What follows each head byte: a scalar of so many bytes with its head, or a length of so many
# bytes and then that many bytes or items. Heads that are in none of these have no place here.
_SCALARS = {
    **dict.fromkeys((*range(128), *range(224, 256), 192, 194, 195), 1),
    **{0xA0 + size: 1 + size for size in range(32)},
    **{0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9},
}
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAY_LENGTHS = {0xDC: 2, 0xDD: 4}


def _scan(data: bytes) -> None:
    """Walk over the heads of one value, so that nothing is allocated for what is only claimed:
    an unpacker makes room for an array, and for those nested in it, as their heads say."""
    position, items = 0, 0
    left = [1]  # Values still to come, at each level.
    while left:
        if not left[-1]:
            left.pop()
            continue
        left[-1] -= 1
        items += 1
        if position >= len(data):
            raise RemoteError(Code.BAD_ENCODING, "The message ends too soon.")
        head = data[position]
        if (size := _SCALARS.get(head)) is not None:
            position += size
        elif (size := _LENGTHS.get(head)) is not None:
            position += 1 + size
            position += int.from_bytes(data[position - size : position], "big")
        elif 0x90 <= head <= 0x9F:
            position += 1
            left.append(head - 0x90)
        elif (size := _ARRAY_LENGTHS.get(head)) is not None:
            position += 1 + size
            left.append(int.from_bytes(data[position - size : position], "big"))
        else:
            raise RemoteError(Code.BAD_ENCODING, f"The head {head:#x} has no place here.")
        # An item takes a byte at least. The first level is that of the message itself.
        if len(left) > CODEC_DEPTH_MAX or left[-1] > len(data) - position:
            raise RemoteError(Code.BAD_ENCODING, "The message is nested too deep, or cut off.")
        if items > CODEC_ITEMS_MAX:
            raise RemoteError(Code.BAD_ENCODING, f"More than {CODEC_ITEMS_MAX} items came.")
    if position != len(data):
        raise RemoteError(Code.BAD_ENCODING, "The message is cut off, or something follows it.")
