"""Decoding that keeps pace with signatures: as strict as protocol.codec, twenty times as fast."""

from typing import Generic, TypeVar

import msgspec

from protocol import codec

T = TypeVar("T")

_ENCODER = msgspec.msgpack.Encoder()


def packed(value: msgspec.Struct) -> bytes:
    """The canonical bytes of a struct of the ledger: those that `codec.encode` gives."""
    return _ENCODER.encode(value)


class Decoder(Generic[T]):
    """Decodes one type of message (or union of them), whose own bounds hold while it is read.

    What comes out re-encodes to the same bytes, so it is what `codec.decode` would give. Whatever
    this refuses is given to `codec.decode`, which has the last word and says why.
    """

    def __init__(self, kind: type[T], size_max: int) -> None:
        self._kind = kind
        self._size_max = size_max
        self._decoder = msgspec.msgpack.Decoder(kind)

    def decode(self, data: bytes) -> T:
        """Raises RemoteError TOO_LARGE, BAD_ENCODING or BAD_MESSAGE, as `codec.decode` does."""
        if len(data) <= self._size_max:
            try:
                value = self._decoder.decode(data)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                pass  # The slow decoder finds the same fault and names it.
            else:
                if _ENCODER.encode(value) == data:
                    return value
        return codec.decode(data, self._kind, self._size_max)
