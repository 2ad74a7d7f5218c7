"""Cost: exact, rounded up once, never above what is affordable."""

from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from protocol.limits import MICROCREDITS_MAX, PRICE_MAX
from protocol.pricing import cost, output_tokens_affordable

tokens = st.integers(0, 1 << 20)
prices = st.integers(0, 10_000_000) | st.integers(0, PRICE_MAX)


@given(tokens, tokens, prices, prices)
def test_cost_is_the_exact_sum_rounded_up_once(input_tokens, output_tokens, price_in, price_out):
    exact = Fraction(input_tokens * price_in + output_tokens * price_out, 1_000_000)
    assert cost(input_tokens, output_tokens, price_in, price_out) == ceil(exact)


@given(tokens, tokens, prices, prices, st.integers(0, 1000))
def test_cost_never_falls_as_tokens_come(input_tokens, output_tokens, price_in, price_out, more):
    before = cost(input_tokens, output_tokens, price_in, price_out)
    assert before <= cost(input_tokens, output_tokens + more, price_in, price_out)


@given(st.integers(0, 10**9) | st.integers(0, MICROCREDITS_MAX), tokens, prices, prices)
def test_what_is_affordable_fits_and_one_more_does_not(cost_max, input_tokens, price_in, price_out):
    affordable = output_tokens_affordable(cost_max, input_tokens, price_in, price_out)
    assert affordable >= -1
    if affordable >= 0:
        assert cost(input_tokens, affordable, price_in, price_out) <= cost_max
    if price_out or affordable < 0:
        assert cost(input_tokens, affordable + 1, price_in, price_out) > cost_max
