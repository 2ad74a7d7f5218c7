"""The fast decoder takes what protocol.codec takes, and nothing else, and names the same faults."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.envelope import Signed
from protocol.errors import Code, RemoteError
from protocol.ledger.certificate import Certificate, Certified, Seal, Vote
from protocol.ledger.decoder import Decoder, packed
from protocol.ledger.entry import Claim, Entry, Pay, Source
from protocol.limits import (
    CERTIFIED_BYTES_MAX,
    CLAIM_SOURCES_MAX,
    ENTRY_BYTES_MAX,
    FRAME_BYTES_MAX,
    MICROCREDITS_MAX,
    PAY_CERTIFIED_BYTES_MAX,
    SEQ_MAX,
    WITNESSES_MAX,
)

IDS = st.binary(min_size=32, max_size=32)
SIGNATURES = st.binary(min_size=64, max_size=64)
AMOUNTS = st.integers(0, MICROCREDITS_MAX)
POSITIVE = st.integers(1, MICROCREDITS_MAX)
SOURCES = st.builds(
    Source, st.text(st.characters(codec="ascii"), min_size=1, max_size=16), IDS, POSITIVE
)
BODIES = st.builds(Pay, IDS, POSITIVE, IDS) | st.builds(
    Claim, st.lists(SOURCES, min_size=1, max_size=5).map(tuple)
)
ENTRIES = st.builds(
    Entry, IDS, IDS, st.integers(1, SEQ_MAX), IDS, BODIES, fee=AMOUNTS, balance=AMOUNTS
)
SEALS = st.lists(st.builds(Seal, st.integers(0, WITNESSES_MAX - 1), SIGNATURES), max_size=5).map(
    tuple
)
CERTIFICATES = st.builds(Certificate, IDS, st.integers(0, 1 << 16), SEALS)
SIGNED = st.builds(Signed, IDS, st.binary(max_size=300), SIGNATURES)
CERTIFIED = st.builds(Certified, SIGNED, CERTIFICATES)
VALUES = ENTRIES | CERTIFIED | st.builds(Vote, st.integers(0, 1 << 16), IDS)
KINDS = {kind: Decoder(kind, FRAME_BYTES_MAX) for kind in (Entry, Certified, Vote)}


def outcome(decode, data):
    try:
        return decode(data)
    except RemoteError as error:
        return error.code


@given(VALUES)
def test_a_value_has_one_encoding(value):
    data = codec.encode(value)
    assert packed(value) == data
    assert KINDS[type(value)].decode(data) == value


@given(VALUES, st.data())
def test_they_agree_on_damaged_bytes(value, data):
    whole = codec.encode(value)
    at = data.draw(st.integers(0, len(whole) - 1))
    patch = data.draw(st.binary(max_size=3))
    damaged = whole[:at] + patch + whole[at + data.draw(st.integers(0, 3)) :]
    for kind, decoder in KINDS.items():
        assert outcome(decoder.decode, damaged) == outcome(
            lambda given, kind=kind: codec.decode(given, kind), damaged
        )


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40)
    | st.sampled_from(["entry", "pay", "claim"]),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=20,
)


@given(PLAIN.map(msgpack.packb) | st.binary(max_size=200))
def test_they_agree_on_anything(data):
    for kind, decoder in KINDS.items():
        assert outcome(decoder.decode, data) == outcome(
            lambda given, kind=kind: codec.decode(given, kind), data
        )


@pytest.mark.parametrize(
    "head",
    [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 900],
)
def test_a_claimed_size_takes_no_memory(head):
    body = b"\x97\xa5entry" + (b"\xc4\x20" + bytes(32)) * 2 + b"\x01\xc4\x20" + bytes(32)
    for data in (head, body + head, body + b"\x92\xa5claim" + head):
        assert outcome(KINDS[Entry].decode, data) in (Code.BAD_ENCODING, Code.BAD_MESSAGE)


def test_the_bounds_hold_the_largest():
    claim = Claim((Source("k" * 16, bytes(32), MICROCREDITS_MAX),) * CLAIM_SOURCES_MAX)
    pay = Pay(bytes(32), MICROCREDITS_MAX, bytes(32))
    seals = tuple(Seal(number, bytes(64)) for number in range(WITNESSES_MAX))
    # Only sources of kind pay are taken, whose names have 3 letters.
    sizes = []
    for body, count in ((claim, WITNESSES_MAX), (pay, 43)):
        entry = Entry(
            bytes(32), bytes(32), SEQ_MAX, bytes(32), body, MICROCREDITS_MAX, MICROCREDITS_MAX
        )
        certificate = Certificate(bytes(32), 1 << 16, seals[:count])
        signed = Signed(bytes(32), packed(entry), bytes(64))
        sizes.append((len(packed(entry)), len(packed(Certified(signed, certificate)))))
    (claim_bytes, certified_bytes), (_, pay_certified_bytes) = sizes
    assert claim_bytes - 13 * CLAIM_SOURCES_MAX <= ENTRY_BYTES_MAX
    assert certified_bytes - 13 * CLAIM_SOURCES_MAX <= CERTIFIED_BYTES_MAX
    assert pay_certified_bytes <= PAY_CERTIFIED_BYTES_MAX
    assert PAY_CERTIFIED_BYTES_MAX * CLAIM_SOURCES_MAX + ENTRY_BYTES_MAX <= FRAME_BYTES_MAX
    with pytest.raises(RemoteError, match="TOO_LARGE"):
        Decoder(Entry, ENTRY_BYTES_MAX).decode(bytes(ENTRY_BYTES_MAX + 1))
