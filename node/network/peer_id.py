"""Between libp2p's peer ids and our node ids, which are the same Ed25519 key."""

from typing import Any

from protocol.ids import NodeId
from protocol.limits import KEY_BYTES

# An identity multihash of 36 bytes, of a protobuf: key type Ed25519, a key of 32 bytes.
_PREFIX = bytes.fromhex("002408011220")


def peer_bytes(node: NodeId) -> bytes:
    """The bytes of the libp2p peer id of a node."""
    return _PREFIX + node


def node_of(peer_id: Any) -> NodeId | None:
    """The node that a libp2p peer id names, or None when its key is of another kind."""
    data: bytes = peer_id.to_bytes()
    if not data.startswith(_PREFIX) or len(data) != len(_PREFIX) + KEY_BYTES:
        return None
    return NodeId(data[len(_PREFIX) :])
