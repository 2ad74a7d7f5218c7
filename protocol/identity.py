"""Keys and domain-separated signatures: what is signed says what it is and for which network."""

from hashlib import blake2b
from typing import NewType

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey

from protocol.errors import Code, RemoteError
from protocol.ids import NetworkId, NodeId
from protocol.limits import KEY_BYTES, SIGNATURE_BYTES

Seed = NewType("Seed", bytes)
"""The 32 secret bytes that an Ed25519 key pair is made from."""


def digest(*parts: bytes) -> bytes:
    """BLAKE2b-256 of the parts one after another; the parts before the last are of fixed size."""
    state = blake2b(digest_size=32)
    for part in parts:
        state.update(part)
    return state.digest()


def signed_bytes(domain: str, network: NetworkId, body: bytes) -> bytes:
    """What is signed for a message: its domain tag, its network and its canonical bytes."""
    tag = domain.encode("ascii")
    assert 0 < len(tag) < 256
    return b"ayni" + bytes([len(tag)]) + tag + network + body


class Identity:
    """One key pair; it signs and never shows its seed."""

    def __init__(self, seed: Seed) -> None:
        assert len(seed) == KEY_BYTES
        self._key = SigningKey(seed)
        self.node = NodeId(bytes(self._key.verify_key))

    def __repr__(self) -> str:
        return f"Identity({self.node.hex()[:8]})"

    def sign(self, domain: str, network: NetworkId, body: bytes) -> bytes:
        """64 bytes over the domain tag, the network id and the canonical bytes of a message."""
        return self._key.sign(signed_bytes(domain, network, body)).signature


def holds(node: NodeId, data: bytes, signature: bytes) -> bool:
    """Whether `node` made this Ed25519 signature over `data`, from `signed_bytes`.

    libsodium's own call, without PyNaCl's objects around it: they cost a tenth of a verification.
    """
    if len(node) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + data, node)
    except BadSignatureError:
        return False
    return True


def verify(node: NodeId, domain: str, network: NetworkId, body: bytes, signature: bytes) -> None:
    """Raises RemoteError BAD_SIGNATURE unless `node` signed `body` in this domain and network."""
    if not holds(node, signed_bytes(domain, network, body), signature):
        raise RemoteError(
            Code.BAD_SIGNATURE, f"The signature of {node.hex()[:8]} over a {domain} does not hold."
        )
