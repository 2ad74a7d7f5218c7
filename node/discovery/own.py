"""Our own advert as a value: what is said, and what is left out when it would be too long."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from node.discovery.text import cut
from protocol import codec
from protocol.capacity import Advert, Device, ModelOffer
from protocol.limits import (
    ADDRESS_BYTES_MAX,
    ADVERT_ADDRESSES_MAX,
    ADVERT_BYTES_MAX,
    ADVERT_DEVICES_MAX,
    ADVERT_MODELS_MAX,
    ADVERT_TEXT_BYTES_MAX,
    PROTOCOL_VERSION,
)


@dataclass(frozen=True, slots=True)
class OwnState:
    """What this node says of itself, as it is now. `sharing` is "on", "off", "paused" or
    "draining"; offers carry today's prices and the slots that are free."""

    name: str
    software: str
    devices: Sequence[Device]
    offers: Sequence[ModelOffer]
    sharing: str
    region: str = ""
    reachability: str = "unknown"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes an advert this one and no other; times in wall ms and ms."""

    sequence: int
    issued_at: int
    life_ms: int


def own_advert(state: OwnState, addresses: Sequence[str], stamp: Stamp) -> tuple[Advert, int]:
    """The advert, and how many devices, addresses and offers had to be left out of it.

    Devices after the first go first, then addresses after the first, then offers, each from the
    end of its list: a provider that can be found beats one that is described.
    """
    reachable = advertised(addresses)
    advert = Advert(
        version=PROTOCOL_VERSION,
        sequence=stamp.sequence,
        issued_at=stamp.issued_at,
        life_ms=stamp.life_ms,
        name=cut(state.name, ADVERT_TEXT_BYTES_MAX),
        software=cut(state.software, 32),
        addresses=tuple(reachable[:ADVERT_ADDRESSES_MAX]),
        devices=tuple(state.devices[:ADVERT_DEVICES_MAX]),
        models=tuple(state.offers[:ADVERT_MODELS_MAX]),
        sharing=state.sharing,
        reachability=state.reachability,
        region=cut(state.region, ADVERT_TEXT_BYTES_MAX),
    )
    while len(codec.encode(advert)) > ADVERT_BYTES_MAX:
        advert = _shorter(advert)
    said = len(advert.devices) + len(advert.addresses) + len(advert.models)
    return advert, len(state.devices) + len(reachable) + len(state.offers) - said


def _shorter(advert: Advert) -> Advert:
    if len(advert.devices) > 1:
        return replace(advert, devices=advert.devices[:-1])
    if len(advert.addresses) > 1:
        return replace(advert, addresses=advert.addresses[:-1])
    assert advert.models, "an advert without lists always fits"
    return replace(advert, models=advert.models[:-1])


def advertised(addresses: Sequence[str]) -> list[str]:
    """Of our addresses those that are of use to others, the widest first. One of loopback or of
    a single link is said only where there is no better one: on another machine it leads
    nowhere, or to somebody else."""
    fitting = [address for address in addresses if len(address.encode()) <= ADDRESS_BYTES_MAX]
    widest = max((_reach(address) for address in fitting), default=0)
    useful = [address for address in fitting if _reach(address) >= min(widest, 2)]
    return sorted(useful, key=_reach, reverse=True)


def _reach(address: str) -> int:
    """0 this machine, 1 this link, 2 this site, 3 everywhere (and names, which know best)."""
    parts = address.split("/")
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
        return 3
    try:
        host = ipaddress.ip_address(parts[2])
    except ValueError:
        return 0
    if host.is_loopback:
        return 0
    if host.is_link_local:
        return 1
    return 3 if host.is_global else 2
