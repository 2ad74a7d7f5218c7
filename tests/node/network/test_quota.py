"""Quotas of peers: a burst passes, a flood is cut, and memory stays bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.network.quota import Bucket, Limits, Quotas, Verdict, is_blamed
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId

LIMITS = Limits(
    openings_per_minute=6,
    streams_at_once=2,
    frames_per_second=5,
    gossip_per_second=4,
    failed_per_minute=3,
    refused_seconds=10,
    peers_max=4,
)
ANNA = NodeId(b"a" * 32)


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


@given(st.lists(st.floats(0, 5), max_size=200), st.integers(1, 20), st.floats(0.5, 60))
def test_a_bucket_never_gives_more_than_its_size_and_rate(
    waits: list[float], size: int, seconds: float
) -> None:
    bucket, now, given_tokens = Bucket(size, seconds, 0.0), 0.0, 0
    for wait in waits:
        now += wait
        given_tokens += bucket.take(now)
        assert given_tokens <= size + now * size / seconds + 1e-6


@given(st.integers(1, 20), st.floats(0.5, 60))
def test_a_bucket_gives_its_rate_for_ever(size: int, seconds: float) -> None:
    bucket = Bucket(size, seconds, 0.0)
    assert all(bucket.take(number * seconds / size * 1.001) for number in range(100))


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(1, 1, 100.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.5)
    assert bucket.take(101.0)


def test_streams_at_once_cost_the_stream_only() -> None:
    quotas = Quotas(LIMITS)
    assert [quotas.opened(ANNA, 0) for _ in range(3)] == [
        Verdict.ALLOW,
        Verdict.ALLOW,
        Verdict.RESET,
    ]
    quotas.closed(ANNA)
    assert quotas.opened(ANNA, 0) is Verdict.ALLOW
    assert not quotas.refused(ANNA, 0)


def test_too_many_openings_cut_the_peer_for_a_while() -> None:
    quotas = Quotas(LIMITS)
    for _ in range(6):
        assert quotas.opened(ANNA, 0) is Verdict.ALLOW
        quotas.closed(ANNA)
    assert quotas.opened(ANNA, 0) is Verdict.CUT
    assert quotas.refused(ANNA, 9.9)
    assert quotas.opened(ANNA, 9.9) is Verdict.CUT
    assert not quotas.refused(ANNA, 10)
    assert quotas.opened(ANNA, 10) is Verdict.ALLOW


def test_frames_and_failures_cut_the_peer() -> None:
    quotas = Quotas(LIMITS)
    assert [quotas.framed(ANNA, 0) for _ in range(6)] == [False] * 5 + [True]
    assert quotas.refused(ANNA, 1)
    other = node(2)
    assert [quotas.failed(other, 0) for _ in range(4)] == [False] * 3 + [True]
    assert quotas.refused(other, 1)


def test_one_peer_pays_for_itself_only() -> None:
    quotas = Quotas(LIMITS)
    while not quotas.framed(ANNA, 0):
        pass
    assert not quotas.framed(node(2), 0)
    assert not quotas.refused(node(2), 0)


def test_whoever_is_in_disgrace_is_remembered_longest() -> None:
    quotas = Quotas(LIMITS)
    while not quotas.failed(ANNA, 0):
        pass
    for number in range(50):
        quotas.framed(node(number), 1)
    assert quotas.refused(ANNA, 1)
    assert len(quotas) == LIMITS.peers_max


steps = st.tuples(st.integers(0, 9), st.sampled_from("ocf!"), st.floats(0, 3))


@given(st.lists(steps, max_size=150))
def test_any_use_keeps_the_books_bounded_and_right(script: list[tuple[int, str, float]]) -> None:
    quotas, now, open_streams = Quotas(LIMITS), 0.0, dict.fromkeys(range(10), 0)
    busy_most = 0  # Whoever has a stream open is never forgotten.
    for number, step, wait in script:
        now += wait
        if step == "o":
            verdict = quotas.opened(node(number), now)
            assert verdict is not Verdict.ALLOW or open_streams[number] < LIMITS.streams_at_once
            assert verdict is not Verdict.RESET or (open_streams[number] == LIMITS.streams_at_once)
            open_streams[number] += verdict is Verdict.ALLOW
        elif step == "c" and open_streams[number]:
            quotas.closed(node(number))
            open_streams[number] -= 1
        elif step == "f":
            quotas.framed(node(number), now)
        elif step == "!" and quotas.failed(node(number), now):
            assert quotas.refused(node(number), now)
        busy_most = max(busy_most, sum(count > 0 for count in open_streams.values()))
        assert len(quotas) <= max(LIMITS.peers_max, busy_most + 1)


@pytest.mark.parametrize(
    ("code", "blamed"),
    [(Code.BAD_SIGNATURE, True), (Code.REPLAYED, True), (Code.BUSY, False), (Code.LOST, False)],
)
def test_only_what_no_honest_peer_does_is_blamed(code: Code, blamed: bool) -> None:
    assert is_blamed(RemoteError(code, "It happened.")) is blamed


def test_gossip_has_a_quota_of_its_own() -> None:
    quotas = Quotas(LIMITS)
    assert [quotas.gossiped(ANNA, 0) for _ in range(5)] == [False] * 4 + [True]
    assert quotas.refused(ANNA, 1)
    assert not Quotas(LIMITS).framed(ANNA, 0)
