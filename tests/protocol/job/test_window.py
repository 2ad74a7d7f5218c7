"""The window of a channel: by example, and over any order of chunks, vouchers and ends."""

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.ids import MessageId
from protocol.job.window import Window

A, B, C = (MessageId(bytes([number]) * 32) for number in range(3))


def delivered(window: Window, order: MessageId, cost: int) -> None:
    assert window.room_for(order)
    window.begin(order)
    window.close(order, cost)


def test_two_chunks_go_out_ahead_of_the_vouchers_whosever_they_are():
    window = Window(2, 0)
    delivered(window, A, 5)
    window.begin(B)
    assert (window.has_room, window.unpaid_chunks, window.unpaid) == (False, 2, 5)
    window.pay(5)
    assert (window.has_room, window.unpaid_chunks, window.unpaid) == (True, 1, 0)
    window.close(B, 3)
    assert (window.delivered, window.held, window.unpaid) == (8, 5, 3)
    window.pay(4)  # A late one, lower than the highest.
    assert window.held == 5


def test_a_chunk_that_costs_nothing_takes_no_room():
    window = Window(1, 0)
    for _ in range(3):
        delivered(window, A, 0)
    assert (window.has_room, window.delivered) == (True, 0)


def test_what_is_paid_ahead_pays_the_chunks_that_follow():
    window = Window(1, 0)
    assert window.reserve(A, 10, 10)
    window.pay(10)
    for _ in range(5):
        delivered(window, A, 2)
    assert window.has_room
    delivered(window, A, 1)
    assert not window.has_room


def test_one_prompt_is_not_paid_with_what_was_paid_ahead_for_another():
    window = Window(2, 0)
    assert window.reserve(A, 10, 10)
    assert not window.reserve(B, 10, 10)
    assert window.reserve(B, 10, 20)
    assert not window.reserve(C, 10, 29)
    window.drop(A)  # Unread: its sum is there for others.
    assert window.reserve(C, 10, 20)


def test_orders_that_overtake_one_another_are_all_covered_by_the_highest_voucher():
    """The payer has signed 10, 20 and 30 for them, in this order; the last comes first."""
    window = Window(2, 0)
    for order, cumulative in ((C, 30), (A, 10), (B, 20)):
        assert window.reserve(order, 10, cumulative)


def test_chunks_whose_vouchers_are_under_way_do_not_stand_against_a_prompt():
    window = Window(2, 0)
    delivered(window, A, 7)
    assert window.reserve(B, 10, 10)  # When it was signed, the chunk had not come.
    assert not Window(2, 0).reserve(B, 10, 9)


def test_a_prompt_that_was_read_is_spent():
    window = Window(2, 0)
    window.reserve(A, 10, 10)
    window.pay(10)
    window.spend_ahead(A)
    window.drop(A)
    assert (window.delivered, window.unpaid) == (10, 0)
    assert not window.reserve(B, 1, 10)


def test_a_channel_loses_its_window_once():
    window = Window(2, 0)
    delivered(window, A, 5)
    window.drop(A)
    assert window.lose(A, 5, 1) == 5
    assert (window.lost, window.unpaid, window.unpaid_chunks) == (5, 5, 1)
    delivered(window, B, 3)
    assert not window.has_room, "one of two is lost for good"
    window.pay(3)
    assert window.has_room, "others are paid for what they delivered"
    delivered(window, B, 2)
    window.drop(B)
    assert window.lose(B, 2, 1) == 2
    assert window.is_spent
    assert not window.has_room


def test_a_voucher_for_what_was_given_up_brings_it_back():
    """The payer had the chunk after all, and its next order signs for it."""
    window = Window(2, 0)
    delivered(window, A, 5)
    window.drop(A)
    window.lose(A, 5, 1)
    window.reserve(B, 10, 14)
    window.pay(14)
    assert window.lost == 5, "that was for the prompt of another, and it was one too few"
    window.pay(15)
    assert (window.lost, window.unpaid_chunks, window.delivered) == (0, 0, 5)


def test_what_others_signed_pays_their_own_chunks_when_one_order_is_given_up():
    window = Window(3, 0)
    delivered(window, A, 10)
    delivered(window, B, 4)
    window.pay(4)  # Of B, but of what the channel has delivered it is the first.
    assert window.unpaid_chunks == 2
    window.drop(A)
    assert window.lose(A, 10, 1) == 10
    assert (window.unpaid_chunks, window.outstanding) == (1, 0)


def test_a_restart_begins_at_what_is_held_and_keeps_what_was_lost():
    window = Window(2, 90, [7])
    assert (window.delivered, window.unpaid, window.unpaid_chunks) == (90, 7, 1)
    delivered(window, A, 3)
    assert not window.has_room


def test_who_found_no_room_is_not_overtaken():
    window = Window(1, 0)
    delivered(window, A, 2)
    assert not window.room_for(B)
    assert not window.room_for(A)
    window.pay(2)
    assert not window.room_for(A), "B came first"
    assert window.room_for(B)
    window.drop(B)
    assert window.room_for(A)


orders = st.sampled_from([A, B, C])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("chunk"), orders, st.integers(0, 9)),
        st.tuples(st.just("begin"), orders, st.just(0)),
        st.tuples(st.just("voucher"), orders, st.integers(0, 12)),
        st.tuples(st.just("late voucher"), orders, st.integers(0, 40)),
        st.tuples(st.just("restart"), orders, st.just(0)),
    ),
    max_size=60,
)


@given(st.integers(1, 4), steps)
@settings(max_examples=500, deadline=None)
def test_what_is_delivered_and_not_paid_never_exceeds_the_window(chunks_max, script):
    """Counted by hand, over several orders, with vouchers for any part and in any order, and from
    one start of the payee to the next."""
    window, held, out = Window(chunks_max, 0), 0, 0
    ends: list[int] = []
    begun: set[MessageId] = set()
    for name, order, number in script:
        if name == "begin" and order not in begun and window.room_for(order):
            window.begin(order)
            begun.add(order)
        elif name == "chunk" and order in begun:
            window.close(order, number)
            begun.remove(order)
            out += number
            ends += [out] * bool(number)
        elif name == "voucher" and out + number > held:
            held = max(held, min(out, held + number))
            window.pay(held)
        elif name == "late voucher":
            window.pay(min(number, held))
        elif name == "restart":
            window, begun, ends, out = Window(chunks_max, held), set(), [], held
        assert (window.held, window.delivered) == (held, out)
        unpaid = [end for end in ends if end > held]
        assert window.unpaid_chunks == len(unpaid) + len(begun) <= chunks_max
        assert window.unpaid == out - held
