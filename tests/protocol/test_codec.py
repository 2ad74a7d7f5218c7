"""The codec: any bytes are a value or a RemoteError, and a value has one encoding."""

import tracemalloc

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from protocol import codec
from protocol.errors import Code, RemoteError
from protocol.limits import CODEC_DEPTH_MAX, CODEC_ITEMS_MAX
from tests.protocol.samples import CANCEL, DELTA, MESSAGES, STARTED
from tests.protocol.strategies import values

KINDS: list[type[Struct]] = sorted({type(value) for value in MESSAGES.values()}, key=str)
ENCODED = [(type(value), codec.encode(value)) for value in MESSAGES.values()]


def code_of(data: bytes, kind: type[Struct]) -> Code:
    """Why these bytes are refused."""
    with pytest.raises(RemoteError) as caught:
        codec.decode(data, kind)
    return caught.value.code


def taken(data: bytes, kind: type[Struct]) -> bool:
    """Whether the bytes are accepted; checks that only RemoteError is ever raised, and that what
    is accepted re-encodes to itself and means the same to msgspec's own decoder."""
    try:
        value = codec.decode(data, kind)
    except RemoteError:
        assert code_of(data, kind) in (Code.BAD_ENCODING, Code.BAD_MESSAGE)
        return False
    assert codec.encode(value) == data
    assert msgspec.msgpack.decode(data, type=kind) == value
    return True


@given(st.data())
def test_every_message_comes_back_as_it_went(data):
    kind = data.draw(st.sampled_from(KINDS))
    value = data.draw(values(kind))
    encoded = codec.encode(value)
    assert codec.decode(encoded, kind) == value
    assert taken(encoded, kind)
    assert not any(taken(encoded, other) for other in KINDS if other is not kind)


@given(st.binary(max_size=200), st.sampled_from(KINDS))
def test_any_bytes_are_a_value_or_a_remote_error(data, kind):
    taken(data, kind)


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=33)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=9)),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=24,
)


@given(plain_values, st.sampled_from(KINDS))
def test_any_messagepack_is_a_value_or_a_remote_error(plain, kind):
    taken(msgpack.packb(plain), kind)
    tag = kind.__struct_config__.tag
    if isinstance(plain, list):
        taken(msgpack.packb([tag, *plain]), kind)


@given(st.sampled_from(ENCODED), st.data())
def test_a_changed_message_is_another_message_or_refused(sample, data):
    kind, encoded = sample
    place = data.draw(st.integers(0, len(encoded) - 1))
    change = data.draw(st.sampled_from(["replace", "insert", "delete", "cut"]))
    byte = data.draw(st.binary(min_size=1, max_size=1))
    changed = {
        "replace": encoded[:place] + byte + encoded[place + 1 :],
        "insert": encoded[:place] + byte + encoded[place:],
        "delete": encoded[:place] + encoded[place + 1 :],
        "cut": encoded[:place],
    }[change]
    if taken(changed, kind):
        same = codec.decode(changed, kind) == codec.decode(encoded, kind)
        assert same == (changed == encoded)


@pytest.mark.parametrize(("kind", "encoded"), ENCODED)
def test_trailing_bytes_are_refused(kind, encoded):
    assert code_of(encoded + b"\x00", kind) is Code.BAD_ENCODING
    assert code_of(encoded + encoded, kind) is Code.BAD_ENCODING


LONGER_FORMS = {
    "an integer of 16 bits": (b"\x07", b"\xcd\x00\x07"),
    "an integer of 32 bits": (b"\x07", b"\xce\x00\x00\x00\x07"),
    "an integer of 64 bits": (b"\x07", b"\xcf" + bytes(7) + b"\x07"),
    "a signed integer": (b"\x07", b"\xd0\x07"),
    "a signed integer of 64 bits": (b"\x07", b"\xd3" + bytes(7) + b"\x07"),
    "a float": (b"\x07", b"\xca\x40\xe0\x00\x00"),
    "a tag of 8 bits of length": (b"\xa7started", b"\xd9\x07started"),
    "a tag as bytes": (b"\xa7started", b"\xc4\x07started"),
    "an array of 16 bits of length": (b"\x94", b"\xdc\x00\x04"),
    "an array of 32 bits of length": (b"\x94", b"\xdd\x00\x00\x00\x04"),
    "bytes of 16 bits of length": (b"\xc4\x20", b"\xc5\x00\x20"),
    "bytes as text": (b"\xc4\x20", b"\xd9\x20"),
}


@pytest.mark.parametrize("name", LONGER_FORMS)
def test_only_the_shortest_form_of_a_value_is_taken(name):
    encoded = codec.encode(STARTED)
    short, long = LONGER_FORMS[name]
    assert short in encoded
    assert not taken(encoded.replace(short, long, 1), type(STARTED))


def test_bytes_in_base64_text_are_refused():
    # msgspec by itself would read these as the bytes they stand for.
    order = "AAAA" * 10 + "AAA="
    assert not taken(msgpack.packb(["cancel", order]), type(CANCEL))


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"cancel": 1},
        1.5,
        float("nan"),
        msgpack.Timestamp(1, 0),
        msgpack.ExtType(5, b""),
        msgpack.ExtType(5, b"abc"),
        ["cancel", {}],
        ["cancel", msgpack.ExtType(5, b"")],
    ],
    ids=str,
)
def test_maps_floats_and_extensions_have_no_place(plain):
    assert code_of(msgpack.packb(plain), type(CANCEL)) is Code.BAD_ENCODING


def test_text_that_is_no_unicode_is_refused():
    encoded = codec.encode(DELTA).replace(b"The sky", b"The s\xff\xfe")
    assert code_of(encoded, type(DELTA)) is Code.BAD_ENCODING


def test_a_message_too_large_is_refused_before_it_is_read():
    with pytest.raises(RemoteError) as caught:
        codec.decode(b"\xc1" * 11, type(CANCEL), size_max=10)
    assert caught.value.code is Code.TOO_LARGE
    encoded = codec.encode(CANCEL)
    assert codec.decode(encoded, type(CANCEL), size_max=len(encoded)) == CANCEL


def nested(depth: int) -> bytes:
    return b"\x91" * (depth - 1) + b"\x01"


def test_depth_is_bounded():
    assert code_of(nested(CODEC_DEPTH_MAX), type(CANCEL)) is Code.BAD_MESSAGE
    for depth in (CODEC_DEPTH_MAX + 1, 500, 100_000):
        assert code_of(nested(depth), type(CANCEL)) is Code.BAD_ENCODING


def test_the_number_of_items_is_bounded():
    row = [0] * 1000
    rows_fit = (CODEC_ITEMS_MAX - 1) // 1001
    assert code_of(msgpack.packb([row] * rows_fit), type(CANCEL)) is Code.BAD_MESSAGE
    assert code_of(msgpack.packb([row] * (rows_fit + 1)), type(CANCEL)) is Code.BAD_ENCODING
    assert code_of(msgpack.packb([0] * (CODEC_ITEMS_MAX + 1)), type(CANCEL)) is Code.BAD_ENCODING


@pytest.mark.parametrize(
    "head",
    [b"\xdc\xff\xff", b"\xdd\x00\x00\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"],
)
def test_a_length_that_was_only_claimed_allocates_nothing(head):
    # Three kilobytes of nested array heads once made the parser take eighty megabytes.
    tracemalloc.start()
    try:
        assert code_of(head * 1000, type(CANCEL)) is Code.BAD_ENCODING
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
