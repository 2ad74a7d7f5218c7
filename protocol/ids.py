"""Names of things: nodes, jobs, messages, models, networks; their bytes and their text."""

from typing import Annotated, NewType

from msgspec import Meta

from protocol.limits import DIGEST_BYTES, JOB_ID_BYTES, KEY_BYTES, SIGNATURE_BYTES

NodeId = NewType("NodeId", bytes)
"""An Ed25519 public key: account, node and libp2p peer are one."""
JobId = NewType("JobId", bytes)
MessageId = NewType("MessageId", bytes)
"""BLAKE2b-256 of a signed body: request, quote, order and receipt ids."""
NetworkId = NewType("NetworkId", bytes)
ModelId = NewType("ModelId", bytes)

# What a decoder demands of each.
NodeIdField = Annotated[NodeId, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
JobIdField = Annotated[JobId, Meta(min_length=JOB_ID_BYTES, max_length=JOB_ID_BYTES)]
MessageIdField = Annotated[MessageId, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
NetworkIdField = Annotated[NetworkId, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
ModelIdField = Annotated[ModelId, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
DigestField = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
OptionalDigestField = Annotated[bytes, Meta(max_length=DIGEST_BYTES)]
"""32 bytes, or none where the field is for later work or does not apply."""
SignatureField = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]

# libp2p's text form of an Ed25519 peer: base58 of an identity multihash of a protobuf key.
_PEER_PREFIX = bytes.fromhex("002408011220")
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def node_text(node: NodeId) -> str:
    """The libp2p peer id, `12D3KooW...`: how people and addresses write a node."""
    number, text = int.from_bytes(_PEER_PREFIX + node, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" + text  # The one leading zero byte.


def node_parsed(text: str) -> NodeId:
    """The node that `12D3KooW...` names. Raises ValueError for any other text."""
    number = 0
    if len(text) > 64:
        raise ValueError(f"{text[:16]}... is too long for a node id")
    for character in text:
        digit = _ALPHABET.find(character)
        if digit < 0:
            raise ValueError(f"{text!r} is no node id: it looks like 12D3KooW...")
        number = number * 58 + digit
    data = number.to_bytes(48, "big")[-len(_PEER_PREFIX) - KEY_BYTES :]
    if not data.startswith(_PEER_PREFIX) or node_text(node := NodeId(data[-KEY_BYTES:])) != text:
        raise ValueError(f"{text!r} is no node id: it looks like 12D3KooW...")
    return node


def short(identifier: bytes) -> str:
    """The first 8 hex digits: enough for a log line."""
    return identifier[:4].hex()
