"""Addresses: what can be dialled, what can be listened at, and nothing else."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.network import address, interfaces
from node.network.address import Address
from protocol.errors import Code, LocalError
from protocol.ids import NodeId, node_text

NODE = NodeId(b"n" * 32)
END = f"/p2p/{node_text(NODE)}"


@pytest.mark.parametrize(
    "text",
    ["/ip4/192.0.2.7/tcp/4001", "/ip6/2001:db8::1/tcp/1", "/dns4/node.example.org/tcp/65535"],
)
def test_addresses_are_read_and_written_alike(text: str) -> None:
    assert str(address.to_dial(text + END)[0]) == text + END
    assert address.to_dial(text + END)[1] == NODE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "192.0.2.7:4001",
        "/ip4/192.0.2.7/udp/4001" + END,
        "/ip4/192.0.2.7/tcp/4001",
        "/ip4/192.0.2.7/tcp/0" + END,
        "/ip4/0.0.0.0/tcp/4001" + END,
        "/ip4/192.0.2.256/tcp/4001" + END,
        "/ip4/192.0.2.7/tcp/65536" + END,
        "/ip4/192.0.2.7/tcp/-1" + END,
        "/ip4/192.0.2.7/tcp/²" + END,
        "/ip6/::g/tcp/1" + END,
        "/dns4/-bad-/tcp/1" + END,
        "/dns4/a b/tcp/1" + END,
        "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW",
        "/ip4/192.0.2.7/tcp/4001/ws" + END,
        "/ip4/192.0.2.7/tcp/4001" + END + "/p2p-circuit",
        "/ip4/192.0.2.7/tcp/4001" + END + "x" * 300,
    ],
)
def test_what_cannot_be_dialled_is_refused(text: str) -> None:
    with pytest.raises(LocalError) as caught:
        address.to_dial(text)
    assert caught.value.code is Code.BAD_REQUEST


@given(st.text(max_size=300) | st.text(alphabet="/ip46dnstcp0123.:", max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        found = address.parsed(text)
    except LocalError:
        return
    assert address.parsed(str(found)) == found


def test_what_cannot_be_listened_at_is_refused() -> None:
    for text in ("/dns4/localhost/tcp/1", "/ip4/127.0.0.1/tcp/1" + END, "0.0.0.0:80"):
        with pytest.raises(LocalError) as caught:
            address.to_listen(text)
        assert caught.value.code is Code.BAD_REQUEST
    assert address.to_listen("/ip4/0.0.0.0/tcp/0").is_wildcard


def test_a_port_that_somebody_has_is_said() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = Address("ip4", "127.0.0.1", holder.getsockname()[1], None)
        with pytest.raises(LocalError, match="Cannot listen at") as caught:
            interfaces.check_free(taken)
        assert caught.value.code is Code.IN_USE
    interfaces.check_free(taken)


def test_a_wildcard_becomes_the_addresses_of_interfaces() -> None:
    found = list(interfaces.reachable([Address("ip4", "0.0.0.0", 4001, None)], NODE))
    assert found
    for text in found:
        target, node = address.to_dial(text)
        assert not target.is_wildcard
        assert (target.port, node) == (4001, NODE)
    loopback = [text for text in found if text.startswith("/ip4/127.")]
    assert not loopback or loopback == found


def test_an_address_that_was_not_bound_is_said() -> None:
    wanted, other = Address("ip4", "127.0.0.1", 0, None), Address("ip4", "127.0.0.1", 5, None)
    interfaces.check_all([wanted], [other])
    with pytest.raises(LocalError):
        interfaces.check_all([other], [])
