"""What a payer signs for a channel: never beyond what came and what its prompts cost ahead."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from node.channels.drawn import Drawn
from protocol.errors import Code, LocalError


def test_costs_of_two_orders_add_up() -> None:
    drawn = Drawn(100, 0)
    first, second = drawn.hold(40), drawn.hold(40)
    assert drawn.left == 20
    assert drawn.charge(first, 10) == 10
    assert drawn.charge(second, 5) == 15
    assert drawn.charge(first, 12) == 17
    drawn.release(first)
    drawn.release(second)
    assert (drawn.signed, drawn.left) == (17, 83)


def test_what_was_paid_ahead_covers_the_first_chunks() -> None:
    drawn = Drawn(100, 0)
    order = drawn.hold(40)
    assert drawn.prepay(order, 8) == 8
    assert drawn.charge(order, 6) is None
    assert drawn.charge(order, 9) == 9


def test_of_a_prompt_that_nobody_read_the_payment_counts_for_the_next_order() -> None:
    drawn = Drawn(100, 0)
    order = drawn.hold(40)
    drawn.prepay(order, 8)
    drawn.return_ahead(order)
    drawn.release(order)
    again = drawn.hold(40)
    assert drawn.prepay(again, 8) == 8  # The same voucher once more.
    assert drawn.left == 60


def test_of_a_prompt_that_was_read_the_payment_is_spent() -> None:
    drawn = Drawn(100, 0)
    order = drawn.hold(40)
    drawn.prepay(order, 8)
    drawn.release(order)
    assert drawn.prepay(drawn.hold(40), 8) == 16


def test_what_an_earlier_process_signed_is_spent() -> None:
    drawn = Drawn(100, 30)
    assert drawn.left == 70
    assert drawn.charge(drawn.hold(10), 1) == 31


def test_more_than_the_channel_has_is_not_signed() -> None:
    drawn = Drawn(50, 0)
    order = drawn.hold(30)
    drawn.hold(10)
    assert drawn.charge(order, 40) == 40  # What is left besides is taken.
    with pytest.raises(LocalError) as caught:
        drawn.charge(order, 41)
    assert caught.value.code is Code.OVERDRAWN
    assert drawn.signed == 40


class Channel(RuleBasedStateMachine):
    """Orders of one channel in any order, beside a tally that knows no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = Drawn(10_000, 0)
        self.held: dict[int, int] = {}
        self.cost: dict[int, int] = {}
        self.ahead: dict[int, int] = {}
        self.over = 0  # Cost of orders that are over.
        self.wasted = 0  # Paid ahead for prompts that were read for nothing.

    @rule(amount=st.integers(1, 1_000))
    def top_up(self, amount: int) -> None:
        self.drawn.funding += amount

    @precondition(lambda self: self.drawn.left > 0)
    @rule(data=st.data())
    def hold(self, data) -> None:
        amount = data.draw(st.integers(1, self.drawn.left))
        number = self.drawn.hold(amount)
        self.held[number], self.cost[number], self.ahead[number] = amount, 0, 0

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def prepay(self, data) -> None:
        number = data.draw(st.sampled_from(sorted(self.held)))
        amount = data.draw(st.integers(1, self.held[number]))
        sum_signed = self.drawn.prepay(number, amount)
        self.ahead[number] = max(self.ahead[number], amount)
        assert sum_signed == self.drawn.signed

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def charge(self, data) -> None:
        number = data.draw(st.sampled_from(sorted(self.held)))
        cost = data.draw(st.integers(0, self.held[number]))
        before = self.drawn.signed
        told = self.drawn.charge(number, cost)
        self.cost[number] = max(self.cost[number], cost)
        assert told == (self.drawn.signed if self.drawn.signed > before else None)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), was_read=st.booleans())
    def release(self, data, was_read: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.held)))
        if not was_read:
            self.drawn.return_ahead(number)
        self.drawn.release(number)
        cost, ahead = self.cost.pop(number), self.ahead.pop(number)
        self.over += cost
        if was_read:
            self.wasted += max(0, ahead - cost)
        del self.held[number]

    @invariant()
    def bounds(self) -> None:
        drawn = self.drawn
        came = self.over + sum(self.cost.values())
        assert came <= drawn.signed <= drawn.funding
        assert drawn.left == drawn.funding - self.over - self.wasted - sum(self.held.values()) >= 0
        assert drawn.orders == len(self.held)


class TestChannel(Channel.TestCase):
    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
