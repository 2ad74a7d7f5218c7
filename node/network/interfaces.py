"""The addresses of this machine, and whether a port of them is free."""

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace

import psutil

from node.network.address import Address
from protocol.errors import Code, LocalError
from protocol.ids import NodeId


def check_free(wanted: Address) -> None:
    """Raises LocalError IN_USE when another program listens at this very port, BAD_REQUEST when
    the address is of no interface here. libp2p itself would share the port without a word."""
    family = socket.AF_INET if wanted.kind == "ip4" else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if family is socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # So that a port whose last owner has just closed it counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((wanted.host, wanted.port))
    except OSError as error:
        raise _cannot_listen(wanted, error.strerror or "it cannot be bound") from None


def check_all(wanted: Sequence[Address], bound: Sequence[Address]) -> None:
    """Raises LocalError IN_USE when one of the wanted addresses is not among the bound: libp2p
    goes on without those that it cannot have."""
    for one in wanted:
        if not any(
            (one.kind, one.host) == (other.kind, other.host) and one.port in (0, other.port)
            for other in bound
        ):
            raise _cannot_listen(one, "libp2p could not bind it")


def _cannot_listen(wanted: Address, reason: str) -> LocalError:
    return LocalError(
        Code.IN_USE,
        f"Cannot listen at {wanted}: {reason}. Give another port, or 0 for any free one, as "
        "`listen` in the configuration.",
    )


def reachable(bound: Sequence[Address], node: NodeId) -> Iterator[str]:
    """What others may dial: each wildcard becomes the addresses of the interfaces that are up,
    without link-local ones, and loopback only when there is nothing else."""
    found: dict[Address, None] = {}
    for one in bound:
        hosts = _hosts(one.kind) if one.is_wildcard else [one.host]
        for host in hosts:
            found[replace(one, host=host, node=node)] = None
    outer = [one for one in found if not ipaddress.ip_address(one.host).is_loopback]
    yield from (str(one) for one in outer or found)


def _hosts(kind: str) -> list[str]:
    family = socket.AF_INET if kind == "ip4" else socket.AF_INET6
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    return [
        address.address
        for name, entries in psutil.net_if_addrs().items()
        for address in entries
        if name in up
        if address.family == family
        if not ipaddress.ip_address(address.address.partition("%")[0]).is_link_local
    ]
