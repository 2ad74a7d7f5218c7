"""The tree over hidden rows: each row can be shown, and none can be changed or moved."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.job.rows import is_under, leaf, path, root

rows = st.lists(st.binary(max_size=8), min_size=1, max_size=40)


@given(rows, st.data())
def test_each_row_is_under_the_root_at_its_place_only(
    hidden: list[bytes], data: st.DataObject
) -> None:
    leaves = [leaf(t, row) for t, row in enumerate(hidden, 9)]
    top, count = root(leaves), len(leaves)
    at = data.draw(st.integers(0, count - 1))
    others = path(leaves, at)
    assert is_under(top, leaves[at], at, count, others)
    assert len(others) <= (count - 1).bit_length()
    assert not is_under(top, leaf(9 + at, hidden[at] + b"x"), at, count, others)
    assert not is_under(top, leaf(10 + at, hidden[at]), at, count, others)
    assert not is_under(top, leaves[at], at, count, [*others, bytes(32)])
    assert not is_under(top, leaves[at], at, count, others[:-1]) or count == 1
    wrong = data.draw(st.integers(-2, count + 2))
    assert is_under(top, leaves[at], wrong, count, others) == (wrong == at)


@given(st.binary(), st.binary(), st.integers(-3, 99), st.integers(-3, 99), st.lists(st.binary()))
def test_whatever_a_peer_shows_is_judged(
    top: bytes, node: bytes, index: int, count: int, others: list[bytes]
) -> None:
    right = count == 1 and index == 0 and not others and node == top
    assert is_under(top, node, index, count, others) == right


def test_no_rows_have_no_root() -> None:
    assert root([]) == b""
