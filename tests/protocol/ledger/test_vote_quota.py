"""The quota of votes: sixty at once, one a second, and bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.ledger.quota import VoteQuota
from protocol.limits import VOTE_BURST_ENTRIES, VOTE_INTERVAL_MS


def test_a_burst_then_one_a_second():
    quota = VoteQuota()
    for _ in range(VOTE_BURST_ENTRIES):
        assert quota.wait_ms(b"a", 5_000) == 0
        quota.spend(b"a", 5_000)
    assert quota.wait_ms(b"a", 5_000) == VOTE_INTERVAL_MS
    assert quota.wait_ms(b"a", 5_400) == 600
    assert quota.wait_ms(b"b", 5_400) == 0
    assert quota.wait_ms(b"a", 6_000) == 0


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=400))
def test_never_more_than_the_burst_and_one_a_second(gaps):
    quota, now, given_at = VoteQuota(), 0, []
    for gap in gaps:
        now += gap
        if quota.wait_ms(b"a", now) == 0:
            quota.spend(b"a", now)
            given_at.append(now)
        else:
            assert quota.wait_ms(b"a", now + quota.wait_ms(b"a", now)) == 0
    for first, start in enumerate(given_at):
        for last, end in enumerate(given_at[first:], first):
            allowed = VOTE_BURST_ENTRIES + (end - start) // VOTE_INTERVAL_MS
            assert last - first + 1 <= allowed


def test_the_least_used_are_forgotten():
    quota = VoteQuota(accounts_max=2)
    for _ in range(VOTE_BURST_ENTRIES):
        for account in (b"a", b"b"):
            quota.spend(account, 0)
    quota.spend(b"b", 0)
    quota.spend(b"c", 0)
    assert quota.wait_ms(b"a", 0) == 0
    assert quota.wait_ms(b"b", 0) == 2 * VOTE_INTERVAL_MS
