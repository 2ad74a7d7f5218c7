"""The closed union of all that goes over the wire, and how large each may be."""

from typing import Final, TypeVar

from msgspec import Struct

from protocol import codec
from protocol.capacity import Advert, AdvertsPage
from protocol.envelope import Opened, Signed, unseal
from protocol.errors import Code, RemoteError
from protocol.ids import NetworkId
from protocol.job.terms import Cancel, Chunk, Delta, Order, Quote, Receipt, Refuse, Request, Started
from protocol.ledger.voucher import VOUCHER_BYTES_MAX, Voucher
from protocol.limits import (
    ADVERT_BYTES_MAX,
    CHUNK_VECTORS_BYTES_MAX,
    FRAME_BYTES_MAX,
    PREFIX_TOKENS_MAX,
    PROMPT_BYTES_MAX,
)

JOB_PROTOCOL: Final = "/ayni/job/1"
ADVERTS_PROTOCOL: Final = "/ayni/adverts/1"

JobBody = Request | Quote | Order | Started | Chunk | Voucher | Receipt | Refuse
"""What is in an envelope on a job's stream."""
FromRequester = Request | Order | Voucher | Receipt | Refuse
FromProvider = Quote | Started | Chunk | Receipt | Refuse
JobFrame = Signed | Delta | Cancel
"""What is in a frame on a job's stream."""

BODY_BYTES_MAX: Final[dict[type[Struct], int]] = {
    Request: 5120,  # The biases of 300 tokens take two thirds of it.
    Quote: 512,
    # Messages of a chat have a few bytes of overhead each; ids take at most five.
    Order: PROMPT_BYTES_MAX + 16_384 + 5 * PREFIX_TOKENS_MAX + 512,
    Started: 256,
    # Vectors have a head of three bytes each, and leave the rest no less room than without.
    Chunk: 640 + CHUNK_VECTORS_BYTES_MAX,
    Voucher: VOUCHER_BYTES_MAX,
    Receipt: 512,
    Refuse: 2048,
    Advert: ADVERT_BYTES_MAX,
}
ENVELOPE_BYTES: Final = 128  # Tag, signer, signature and the heads of three byte strings.
ADVERTS_PAGE_BYTES_MAX: Final = FRAME_BYTES_MAX  # Fewer adverts go where they are long.
ADVERTS_ASKED: Final = b"adverts/1"
"""The request frame of the direct exchange: it asks for all, so it says nothing more."""

_VOUCHER_HEAD: Final = b"\x95\xa7voucher"  # An array of the tag and four fields.

B = TypeVar("B", bound=Struct)


def job_frame(data: bytes) -> JobFrame:
    """The frame in these bytes. Raises RemoteError TOO_LARGE, BAD_ENCODING or BAD_MESSAGE."""
    return codec.decode(data, JobFrame, FRAME_BYTES_MAX)  # type: ignore[arg-type]


def is_voucher(signed: Signed) -> bool:
    """Whether a frame says that it holds a voucher. Nothing of it is checked: that is for whoever
    counts it, who has to see the signature himself."""
    return signed.body.startswith(_VOUCHER_HEAD)


def job_body(signed: Signed, network: NetworkId, kind: type[B]) -> Opened[B]:
    """The signed message, which must be a `kind` (a struct, or a union of them).

    Raises RemoteError: TOO_LARGE beyond its own size limit, BAD_MESSAGE for another type or
    content, BAD_SIGNATURE; WRONG_NETWORK where a request that is not signed for this network
    names another, which is the likely reason and says more.
    """
    try:
        opened = unseal(signed, network, kind, FRAME_BYTES_MAX)
    except RemoteError as error:
        if error.code is Code.BAD_SIGNATURE:
            _check_network(signed, network)
        raise
    size_max = BODY_BYTES_MAX[type(opened.value)]
    if len(signed.body) > size_max:
        tag = type(opened.value).__struct_config__.tag
        raise RemoteError(
            Code.TOO_LARGE, f"A {tag} of {len(signed.body)} bytes came; at most {size_max} fit."
        )
    return opened


def _check_network(signed: Signed, network: NetworkId) -> None:
    body: JobBody = codec.decode(signed.body, JobBody)  # type: ignore[arg-type]
    if isinstance(body, Request) and body.network != network:
        raise RemoteError(
            Code.WRONG_NETWORK,
            f"The request is for network {body.network.hex()[:16]}; this is {network.hex()[:16]}.",
        )


def adverts_page(data: bytes) -> AdvertsPage:
    """The answer of a direct exchange. Raises RemoteError."""
    return codec.decode(data, AdvertsPage, ADVERTS_PAGE_BYTES_MAX)
