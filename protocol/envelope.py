"""A signed message: who says it, its canonical bytes, and a signature that names its kind."""

from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct

from protocol import codec
from protocol.identity import Identity, digest, verify
from protocol.ids import MessageId, NetworkId, NodeIdField, SignatureField
from protocol.limits import FRAME_BYTES_MAX

T = TypeVar("T", bound=Struct)


class Signed(Struct, frozen=True, array_like=True, tag="signed", forbid_unknown_fields=True):
    """What travels. The body stays bytes, so what was signed is what is kept and shown on."""

    signer: NodeIdField
    body: Annotated[bytes, Meta(max_length=FRAME_BYTES_MAX)]
    signature: SignatureField

    @property
    def id(self) -> MessageId:
        """BLAKE2b-256 of the body: the id of the request, quote, order or receipt in it."""
        return MessageId(digest(self.body))


@dataclass(frozen=True, slots=True)
class Opened(Generic[T]):
    """A message whose form and signature hold; its rules are still to be checked."""

    value: T
    id: MessageId
    signer: NodeIdField


def domain(kind: type[Struct]) -> str:
    """The domain tag of a kind of message: no signature of one kind serves as another."""
    tag = kind.__struct_config__.tag
    assert isinstance(tag, str), kind
    return f"{tag}/1"


def seal(identity: Identity, network: NetworkId, value: Struct) -> Signed:
    """`value`, signed by `identity` for this network."""
    body = codec.encode(value)
    return Signed(identity.node, body, identity.sign(domain(type(value)), network, body))


def unseal(signed: Signed, network: NetworkId, kind: type[T], size_max: int) -> Opened[T]:
    """The message in an envelope; `kind` may be a union of tagged structs.

    Raises RemoteError TOO_LARGE, BAD_ENCODING or BAD_MESSAGE for a body that does not fit, and
    BAD_SIGNATURE where the signer did not sign it, or signed it for another network or kind.
    """
    value = codec.decode(signed.body, kind, size_max)
    verify(signed.signer, domain(type(value)), network, signed.body, signed.signature)
    return Opened(value, signed.id, signed.signer)
