"""Money as text: exact, both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.limits import MICROCREDITS_MAX
from protocol.units import credits_parsed, credits_text


@given(st.integers(0, MICROCREDITS_MAX))
def test_credits_come_back_as_they_were_written(amount):
    assert credits_parsed(credits_text(amount)) == amount


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0"), (1, "0.000001"), (1_234_567, "1.234567"), (2_000_000, "2"), (-1_500_000, "-1.5")],
)
def test_credits_are_written_for_people(amount, text):
    assert credits_text(amount) == text


@pytest.mark.parametrize(
    ("text", "amount"),
    [("12", 12_000_000), ("0.5", 500_000), (" 3.25 ", 3_250_000), ("007", 7 * 10**6)],
)
def test_credits_are_read_as_people_write_them(text, amount):
    assert credits_parsed(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", ".5", "-1", "+1", "1e3", "1,5", "0.0000001", "1_000", "½", "٣", "nan", "1 2"),
        *("9223372036854.775808", "9" * 5000),
    ],
    ids=lambda text: text[:24],
)
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match=r"credits|digits"):
        credits_parsed(text)


@given(st.text(max_size=24))
def test_any_text_is_an_amount_or_a_value_error(text):
    try:
        amount = credits_parsed(text)
    except ValueError:
        return
    assert 0 <= amount <= MICROCREDITS_MAX
