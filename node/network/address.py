"""Addresses as people and adverts write them: `/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW...`."""

import ipaddress
import re
from dataclasses import dataclass

from protocol.errors import Code, LocalError
from protocol.ids import NodeId, node_parsed, node_text
from protocol.limits import ADDRESS_BYTES_MAX

_KINDS = ("ip4", "ip6", "dns", "dns4", "dns6")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a TCP port is, and, when it is an address to dial, who must answer there."""

    kind: str
    host: str
    port: int
    node: NodeId | None

    def __str__(self) -> str:
        end = "" if self.node is None else f"/p2p/{node_text(self.node)}"
        return f"/{self.kind}/{self.host}/tcp/{self.port}{end}"

    @property
    def is_wildcard(self) -> bool:
        """Does it stand for every interface?"""
        return self.kind in ("ip4", "ip6") and ipaddress.ip_address(self.host).is_unspecified


def parsed(text: str, schemes: str = "/ip4, /ip6, /dns, /dns4 or /dns6") -> Address:
    """The address that `text` writes. Raises LocalError BAD_REQUEST for any other text."""
    parts = text.split("/") if len(text) <= ADDRESS_BYTES_MAX else []
    try:
        if len(parts) not in (5, 7) or parts[0] or parts[1] not in _KINDS or parts[3] != "tcp":
            raise ValueError("its parts are not those of an address")
        kind, host = parts[1], parts[2]
        if kind == "ip4":
            host = str(ipaddress.IPv4Address(host))
        elif kind == "ip6":
            host = str(ipaddress.IPv6Address(host))
        elif not _HOST_NAME.match(host):
            raise ValueError(f"{host!r} is no name of a host")
        if not (parts[4].isascii() and parts[4].isdigit() and int(parts[4]) < 1 << 16):
            raise ValueError(f"{parts[4]!r} is no port")
        node = None
        if len(parts) == 7:
            if parts[5] != "p2p":
                raise ValueError("it does not end in /p2p/<node id>")
            node = node_parsed(parts[6])
        return Address(kind, host, int(parts[4]), node)
    except ValueError as error:
        raise LocalError(
            Code.BAD_REQUEST,
            f"{text[:ADDRESS_BYTES_MAX]!r} is no address: {error}. Write one like "
            f"/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW..., beginning with {schemes}.",
        ) from None


def to_dial(text: str) -> tuple[Address, NodeId]:
    """An address with the node that must answer there.

    Raises LocalError BAD_REQUEST for what is no address, names no node or has port 0.
    """
    address = parsed(text)
    if address.node is None or not address.port or address.is_wildcard:
        raise LocalError(
            Code.BAD_REQUEST,
            f"{text!r} cannot be dialled: it needs a real host, a port above 0 and, at its end, "
            "/p2p/<node id>. `ayni status` on the other machine shows its address.",
        )
    return address, address.node


def to_listen(text: str) -> Address:
    """An address of ours: of an interface or a wildcard, with port 0 for any free one.

    Raises LocalError BAD_REQUEST for anything else.
    """
    address = parsed(text)
    if address.kind not in ("ip4", "ip6") or address.node is not None:
        raise LocalError(
            Code.BAD_REQUEST,
            f"{text!r} cannot be listened at: write /ip4/0.0.0.0/tcp/0 for every interface and "
            "any free port, or the address of one interface of this machine.",
        )
    return address
