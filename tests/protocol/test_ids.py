"""Node ids as text: libp2p's own form, one text for one node."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.ids import NodeId, node_parsed, node_text, short
from tests.protocol.samples import PROVIDER


@given(st.binary(min_size=32, max_size=32))
def test_a_node_comes_back_from_its_text(key):
    text = node_text(NodeId(key))
    assert text.startswith("12D3KooW")
    assert len(text) == 52
    assert node_parsed(text) == key


@given(
    st.text(max_size=70) | st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnop", max_size=70)
)
def test_any_text_is_a_node_or_a_value_error(text):
    try:
        node = node_parsed(text)
    except ValueError:
        return
    assert node_text(node) == text


@given(st.data())
def test_a_changed_text_is_never_the_same_node(data):
    text = node_text(PROVIDER.node)
    place = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.sampled_from("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnop0OIl +"))
    changed = text[:place] + character + text[place + 1 :]
    if changed == text:
        return
    try:
        assert node_parsed(changed) != PROVIDER.node
    except ValueError:
        return


@pytest.mark.parametrize("change", ["1{}", "{}1", " {}", "{} ", "{}\n"])
def test_nothing_may_stand_around_a_node(change):
    with pytest.raises(ValueError, match=r"node id|too long"):
        node_parsed(change.format(node_text(PROVIDER.node)))


def test_short_is_eight_digits():
    assert short(PROVIDER.node) == PROVIDER.node.hex()[:8]
