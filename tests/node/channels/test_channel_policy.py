"""How much goes into channels, how far a payee trusts, and when it settles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from node.channels import policy
from node.channels.policy import Limits, Means
from protocol.capacity import ModelOffer
from protocol.ledger.charter import charter
from protocol.ledger.genesis import genesis_made
from protocol.ledger.settlement import owner_is_payee, turn
from protocol.limits import WINDOW_CHUNKS_MAX, WINDOW_CHUNKS_STRANGER
from tests.protocol.ledger.chains import ANNA

OFFER = ModelOffer(
    model=bytes(32),
    name="tiny",
    kind="chat",
    mode="native-1/gguf",
    context_tokens=2048,
    price_in=500_000,
    price_out=2_000_000,
    prefill_millitokens_per_second=1,
    decode_millitokens_per_second=1,
    slots=1,
    slots_free=1,
)
AMOUNTS = st.integers(0, 10**13)
LIMITS = Limits()
RULES = charter(genesis_made("grace", bytes(16), {ANNA.node: 100}, {ANNA.node}))
HOUR = 3_600_000


@st.composite
def means(draw):
    balance = draw(AMOUNTS)
    return Means(balance, draw(st.integers(0, balance)), draw(AMOUNTS))


def test_a_deposit_is_fifty_of_the_dearest_job() -> None:
    rich = Means(balance=10**12, spendable=10**12, locked=0)
    assert policy.deposit(LIMITS, rich, 1_500) == 75_000


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (Means(1_000_000, 1_000_000, 0), 20_000),  # 2 % of the balance.
        (Means(1_000_000, 1_000_000, 240_000), 8_000),  # Up to 20 % locked in all.
        (Means(1_000_000, 1_000_000, 250_000), 0),
        (Means(1_000_000, 5_000, 0), 5_000),  # The rest is promised to others.
        (Means(40_000, 40_000, 0), 0),  # 2 % of it pays for no such job.
    ],
)
def test_shares_bound_a_deposit(held: Means, expected: int) -> None:
    assert policy.deposit(LIMITS, held, 1_000) == expected


def test_a_job_at_hand_may_take_what_it_can_cost() -> None:
    poor = Means(40_000, 40_000, 0)
    assert policy.deposit_now(LIMITS, poor, 1_000, 1_000) == 1_000
    assert policy.deposit_now(LIMITS, poor, 1_000, 40_000) == 40_000
    assert policy.deposit_now(LIMITS, poor, 1_000, 40_001) == 0


@given(means(), AMOUNTS)
def test_what_is_opened_ahead_keeps_every_bound(held: Means, dearest: int) -> None:
    amount = policy.deposit(LIMITS, held, dearest)
    assert amount <= held.spendable
    assert amount <= policy.DEPOSIT_JOBS * dearest
    assert 100 * amount <= 2 * held.balance
    assert amount == 0 or 100 * (held.locked + amount) <= 20 * (held.balance + held.locked)
    assert amount == 0 or amount >= dearest


@given(means(), st.integers(1, 10**12), st.integers(1, 10**12))
def test_a_job_at_hand_is_paid_if_it_can_be(held: Means, dearest: int, cost: int) -> None:
    amount = policy.deposit_now(LIMITS, held, dearest, cost)
    assert (amount >= cost) == (cost <= held.spendable)
    assert amount <= held.spendable


@given(means(), AMOUNTS, AMOUNTS)
def test_a_top_up_fills_what_a_deposit_would_be(held: Means, dearest: int, left: int) -> None:
    amount = policy.top_up(LIMITS, held, dearest, left)
    assert 0 <= amount <= held.spendable
    wealth = held.balance + held.locked
    assert amount == 0 or 100 * (held.locked + amount) <= 20 * wealth
    if amount:
        wanted = min(50 * dearest, (held.balance + left) * 2 // 100)
        assert 4 * left < wanted
        assert dearest <= left + amount <= wanted


def test_a_channel_is_topped_up_below_a_quarter() -> None:
    rich = Means(10**12, 10**12, 0)
    assert policy.top_up(LIMITS, rich, 1_000, 12_500) == 0
    assert policy.top_up(LIMITS, rich, 1_000, 12_499) == 37_501


@given(AMOUNTS, AMOUNTS, st.integers(0, 10**6))
def test_a_window_is_bounded_and_grows_with_what_was_paid(
    paid: int, chunk_cost: int, turnaround_ms: int
) -> None:
    chunks = policy.window_chunks(paid, chunk_cost, turnaround_ms)
    assert WINDOW_CHUNKS_STRANGER <= chunks <= WINDOW_CHUNKS_MAX
    assert (chunks - WINDOW_CHUNKS_STRANGER) * 20 * max(1, chunk_cost) <= paid
    assert policy.window_chunks(paid + chunk_cost, chunk_cost, turnaround_ms) >= chunks
    assert policy.window_chunks(paid, chunk_cost, turnaround_ms + 100) >= chunks


def test_a_stranger_has_two_chunks_however_slow_it_is() -> None:
    assert policy.window_chunks(0, 32, 10_000) == WINDOW_CHUNKS_STRANGER
    assert policy.is_stranger(0, 32)
    assert not policy.is_stranger(20 * 2 * 32, 32)


def test_who_has_paid_for_much_gets_what_its_pace_needs_and_no_more() -> None:
    assert policy.window_chunks(10**9, 32, 0) == 2
    assert policy.window_chunks(10**9, 32, 450) == 6
    assert policy.window_chunks(10**9, 32, 60_000) == WINDOW_CHUNKS_MAX
    assert policy.window_chunks(3 * 20 * 32, 32, 60_000) == 5


def test_times_of_a_channel_of_three_days() -> None:
    expiry = 72 * HOUR
    assert policy.counts(expiry, 70 * HOUR, RULES)
    assert not policy.counts(expiry, 70 * HOUR + 1, RULES)
    assert policy.settle_at_ms(expiry, RULES) == 71 * HOUR
    assert policy.can_be_used(expiry, 69 * HOUR, RULES)
    assert not policy.can_be_used(expiry, 70 * HOUR, RULES)
    assert policy.life_ms(LIMITS, RULES) == 72 * HOUR
    assert policy.life_ms(Limits(life_ms=1_000), RULES) > 4 * HOUR


@given(st.integers(0, 10**9), st.integers(-(10**8), 10**9))
def test_what_is_locked_is_back_at_the_end_of_the_next_turn_of_its_payer(
    expiry_ms: int, since_ms: int
) -> None:
    now_ms = expiry_ms + since_ms
    back_ms = policy.back_at_ms(expiry_ms, now_ms, RULES)
    last = turn(expiry_ms, back_ms - 1, RULES)
    assert not owner_is_payee(last)
    assert turn(expiry_ms, back_ms, RULES) == last + 1
    assert 0 < back_ms - max(now_ms, expiry_ms + RULES.grace_ms) <= 2 * RULES.window_ms


def test_what_is_worth_settling() -> None:
    assert policy.is_worth_settling(LIMITS, 10_000_000, 10**12)
    assert policy.is_worth_settling(LIMITS, 1_000_000, 4_000_000)
    assert not policy.is_worth_settling(LIMITS, 999_999, 0)
    assert not policy.is_worth_settling(LIMITS, 1_000_000, 4_000_004)
    always = Limits(settle_above=0)
    assert policy.is_worth_settling(always, 1, 10**12)
    assert not policy.is_worth_settling(always, 0, 0)  # There is nothing to settle.


def test_a_chunk_may_cost_as_much_as_a_prompt_that_fills_the_context() -> None:
    dear_to_read = replace(OFFER, price_in=4_000_000, price_out=0)
    assert policy.chunk_cost_most(()) == 0
    assert policy.chunk_cost_most([OFFER]) == 1024 + 32
    assert policy.chunk_cost_most([OFFER, dear_to_read]) == 8192


def test_who_has_paid_for_chunks_without_prompts_pays_prompts_first() -> None:
    most = policy.chunk_cost_most([OFFER])
    assert policy.is_stranger(40 * 32, most)
    assert not policy.is_stranger(20 * 2 * most, most)
