"""Adverts: what a node offers, which of two counts, and when one is over (job.md section 4)."""

from typing import Annotated

from msgspec import Meta, Struct

from protocol.envelope import Opened, Signed, unseal
from protocol.errors import Code, RemoteError
from protocol.ids import ModelIdField, NetworkId
from protocol.limits import (
    ADDRESS_BYTES_MAX,
    ADVERT_ADDRESSES_MAX,
    ADVERT_BYTES_MAX,
    ADVERT_CLOCK_SKEW_MS,
    ADVERT_DEVICES_MAX,
    ADVERT_LIFE_MS,
    ADVERT_MODELS_MAX,
    ADVERT_TEXT_BYTES_MAX,
    ADVERTS_EXCHANGED_MAX,
    MODE_BYTES_MAX,
    MODEL_NAME_BYTES_MAX,
    PROTOCOL_VERSION,
)
from protocol.units import CountField, PriceField, TimestampField, TokensField

Text = Annotated[str, Meta(max_length=ADVERT_TEXT_BYTES_MAX)]
Address = Annotated[str, Meta(max_length=ADDRESS_BYTES_MAX)]


class Device(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A processor or a GPU that can run models."""

    kind: Annotated[str, Meta(max_length=16)]  # "cpu", "cuda", "mps", ...
    name: Text
    memory_bytes: CountField
    cores: Annotated[int, Meta(ge=0, le=1 << 20)]


class ModelOffer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A model that is loaded, at its price, with rates measured on that machine."""

    model: ModelIdField
    name: Annotated[str, Meta(max_length=MODEL_NAME_BYTES_MAX)]
    kind: Annotated[str, Meta(max_length=16)]  # Of protocol.job.kinds: "generate" or "embed".
    mode: Annotated[str, Meta(max_length=MODE_BYTES_MAX)]
    context_tokens: TokensField
    price_in: PriceField
    price_out: PriceField
    prefill_millitokens_per_second: CountField
    decode_millitokens_per_second: CountField
    slots: Annotated[int, Meta(ge=0, le=1024)]
    slots_free: Annotated[int, Meta(ge=0, le=1024)]


class Advert(Struct, frozen=True, array_like=True, tag="advert", forbid_unknown_fields=True):
    """What one node says of itself; signed by it, spread by all."""

    version: Annotated[int, Meta(ge=1, le=1 << 16)]
    sequence: TimestampField
    issued_at: TimestampField
    life_ms: Annotated[int, Meta(ge=1_000, le=ADVERT_LIFE_MS)]
    name: Text
    software: Annotated[str, Meta(max_length=32)]
    addresses: Annotated[tuple[Address, ...], Meta(max_length=ADVERT_ADDRESSES_MAX)]
    devices: Annotated[tuple[Device, ...], Meta(max_length=ADVERT_DEVICES_MAX)]
    models: Annotated[tuple[ModelOffer, ...], Meta(max_length=ADVERT_MODELS_MAX)]
    sharing: Annotated[str, Meta(max_length=16)]  # "on", "off", "paused" or "draining".
    reachability: Annotated[str, Meta(max_length=16)]  # "unknown" until it is probed.
    region: Text


class AdvertsPage(Struct, frozen=True, array_like=True, tag="adverts", forbid_unknown_fields=True):
    """The direct exchange at connect: adverts with the milliseconds since each was heard, so that
    handing one on does not lengthen its life."""

    adverts: Annotated[
        tuple[tuple[Annotated[int, Meta(ge=0, le=ADVERT_LIFE_MS)], Signed], ...],
        Meta(max_length=ADVERTS_EXCHANGED_MAX),
    ]


def capacity_topic(network: NetworkId) -> str:
    """The gossip topic of adverts; a function, so that it can be sharded one day."""
    return f"/ayni/{network.hex()[:16]}/capacity/1"


def sequence_next(stored: int, now_ms: int) -> int:
    """A sequence that only grows, also over a restart and a clock that went back."""
    return max(stored + 1, now_ms)


def advert_checked(signed: Signed, network: NetworkId, now_ms: int) -> Opened[Advert]:
    """An advert whose form, signature, version and clock hold.

    `now_ms` is the receiver's wall clock. Raises RemoteError: what `advert_opened` and `dated_near`
    raise.
    """
    opened = advert_opened(signed, network)
    dated_near(opened.value, now_ms)
    return opened


def advert_opened(signed: Signed, network: NetworkId) -> Opened[Advert]:
    """An advert whose form, signature and version hold, whenever it was made.

    Raises RemoteError: those of `unseal`, or WRONG_VERSION.
    """
    opened = unseal(signed, network, Advert, ADVERT_BYTES_MAX)
    advert = opened.value
    if advert.version != PROTOCOL_VERSION:
        raise RemoteError(
            Code.WRONG_VERSION,
            f"An advert of version {advert.version} came; this node speaks {PROTOCOL_VERSION}.",
        )
    return opened


def dated_near(advert: Advert, now_ms: int) -> None:
    """Raises RemoteError EXPIRED where an advert is dated more than three minutes from now, by the
    receiver's wall clock."""
    skew_ms = advert.issued_at - now_ms
    if abs(skew_ms) > ADVERT_CLOCK_SKEW_MS:
        raise RemoteError(
            Code.EXPIRED, f"An advert was made {skew_ms} ms from now by this node's clock."
        )


def supersedes(new: Advert, sequence_known: int | None) -> bool:
    """Whether `new` counts, given the highest sequence ever heard of its node."""
    return sequence_known is None or new.sequence > sequence_known


def expires_at(advert: Advert, heard_at_ms: int) -> int:
    """When an advert that was heard at `heard_at_ms` (any one clock) is over by that clock."""
    return heard_at_ms + advert.life_ms
