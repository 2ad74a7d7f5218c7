"""Adverts: form, version and clock; which of two counts; a life that nobody can lengthen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.capacity import (
    advert_checked,
    capacity_topic,
    expires_at,
    sequence_next,
    supersedes,
)
from protocol.envelope import seal
from protocol.errors import Code, RemoteError
from protocol.ids import NetworkId
from protocol.limits import ADVERT_ADDRESSES_MAX, ADVERT_BYTES_MAX, ADVERT_CLOCK_SKEW_MS
from tests.protocol.samples import ADVERT, CHUNK, NETWORK, PROVIDER

NOW = ADVERT.issued_at


def code_of(value, now: int = NOW, network: NetworkId = NETWORK) -> Code:
    with pytest.raises(RemoteError) as caught:
        advert_checked(seal(PROVIDER, NETWORK, value), network, now)
    return caught.value.code


@given(st.integers(-2 * ADVERT_CLOCK_SKEW_MS, 2 * ADVERT_CLOCK_SKEW_MS))
def test_a_clock_more_than_three_minutes_off_is_refused_either_way(skew_ms):
    signed = seal(PROVIDER, NETWORK, ADVERT)
    if abs(skew_ms) <= ADVERT_CLOCK_SKEW_MS:
        assert advert_checked(signed, NETWORK, NOW + skew_ms).value == ADVERT
    else:
        assert code_of(ADVERT, NOW + skew_ms) is Code.EXPIRED


def test_the_edge_of_the_clock_is_taken():
    for skew_ms in (-ADVERT_CLOCK_SKEW_MS, ADVERT_CLOCK_SKEW_MS):
        opened = advert_checked(seal(PROVIDER, NETWORK, ADVERT), NETWORK, NOW + skew_ms)
        assert opened.signer == PROVIDER.node


def test_an_advert_of_another_version_network_or_kind_is_refused():
    assert code_of(replace(ADVERT, version=2)) is Code.WRONG_VERSION
    assert code_of(ADVERT, network=NetworkId(bytes(32))) is Code.BAD_SIGNATURE
    assert code_of(CHUNK) is Code.BAD_MESSAGE


def test_an_advert_is_at_most_four_kibibytes():
    full = replace(ADVERT, addresses=("/" + "x" * 255,) * ADVERT_ADDRESSES_MAX, models=())
    assert advert_checked(seal(PROVIDER, NETWORK, full), NETWORK, NOW).value == full
    wide = replace(ADVERT, addresses=("\U0001f30d" * 200,) * ADVERT_ADDRESSES_MAX)
    assert code_of(wide) is Code.TOO_LARGE
    assert ADVERT_BYTES_MAX == 4096


@given(st.lists(st.integers(0, 1 << 53), min_size=1, max_size=30))
def test_the_highest_sequence_wins_in_whatever_order_they_come(sequences):
    known: int | None = None
    for sequence in sequences:
        if supersedes(replace(ADVERT, sequence=sequence), known):
            assert known is None or sequence > known
            known = sequence
    assert known == max(sequences)


@given(st.lists(st.integers(0, 1 << 50), max_size=30))
def test_a_sequence_grows_whatever_the_clock_does(clock):
    stored = 0
    for now_ms in clock:
        following = sequence_next(stored, now_ms)
        assert following > stored
        assert following >= now_ms
        stored = following


def test_a_repeated_advert_changes_nothing():
    assert not supersedes(ADVERT, ADVERT.sequence)
    assert expires_at(ADVERT, 1000) == 121_000


def test_the_topic_names_the_network():
    assert capacity_topic(NETWORK) == f"/ayni/{NETWORK.hex()[:16]}/capacity/1"
    assert capacity_topic(NetworkId(bytes(32))) != capacity_topic(NETWORK)
