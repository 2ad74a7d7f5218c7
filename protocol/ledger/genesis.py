"""The genesis document: what a network is called, who holds its credits, who witnesses.

Its digest is the network id, so two networks that differ in anything never mix.
"""

import base64
import textwrap
from typing import Annotated

from msgspec import Meta, Struct

from protocol import codec
from protocol.errors import Code, LocalError, RemoteError
from protocol.identity import digest
from protocol.ids import NetworkId, NodeId, NodeIdField
from protocol.limits import (
    ADDRESS_BYTES_MAX,
    ALLOCATIONS_MAX,
    BOOTSTRAP_MAX,
    GENESIS_BYTES_MAX,
    GRACE_MS_USUAL,
    MICROCREDITS_MAX,
    NETWORK_NAME_BYTES_MAX,
    TURN_MS_MAX,
    TURN_MS_MIN,
    WINDOW_MS_USUAL,
    WITNESSES_MAX,
)
from protocol.units import MicrocreditsField

_HEADER = "ayni-network 1"

TurnMsField = Annotated[int, Meta(ge=TURN_MS_MIN, le=TURN_MS_MAX)]


class Allocation(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The credits that an account starts with."""

    account: NodeIdField
    amount: Annotated[int, Meta(ge=1, le=MICROCREDITS_MAX)]


class Genesis(Struct, frozen=True, array_like=True, tag="genesis", forbid_unknown_fields=True):
    """The first and only document of a network that nobody can change."""

    version: Annotated[int, Meta(ge=1, le=1)]
    name: Annotated[str, Meta(min_length=1, max_length=NETWORK_NAME_BYTES_MAX)]
    nonce: Annotated[bytes, Meta(min_length=16, max_length=16)]
    supply: MicrocreditsField
    allocations: Annotated[tuple[Allocation, ...], Meta(max_length=ALLOCATIONS_MAX)]
    witnesses: Annotated[tuple[NodeIdField, ...], Meta(max_length=WITNESSES_MAX)]
    entry_fee: MicrocreditsField
    pay_min: Annotated[int, Meta(ge=1, le=MICROCREDITS_MAX)]
    grace_ms: TurnMsField
    """How long after a channel's expiry its payee alone may still settle it."""
    window_ms: TurnMsField
    """The length of each turn of settling after that."""


class NetworkFile(Struct, frozen=True, array_like=True, tag="network", forbid_unknown_fields=True):
    """A network as friends hand it on, `NAME.ayni`: the genesis and where to dial first."""

    genesis: Genesis
    bootstrap: Annotated[
        tuple[Annotated[str, Meta(max_length=ADDRESS_BYTES_MAX)], ...],
        Meta(max_length=BOOTSTRAP_MAX),
    ]


def genesis_made(
    name: str,
    nonce: bytes,
    allocations: dict[NodeId, int],
    witnesses: set[NodeId],
    *,
    grace_ms: int = GRACE_MS_USUAL,
    window_ms: int = WINDOW_MS_USUAL,
    entry_fee: int = 0,
) -> Genesis:
    """A genesis whose supply is what it allocates. Raises LocalError BAD_REQUEST."""
    supply = sum(allocations.values())
    if supply > MICROCREDITS_MAX or min(allocations.values(), default=1) < 1:
        raise LocalError(
            Code.BAD_REQUEST,
            f"No network can be made so. Each account gets 1 microcredit or more, and all together "
            f"at most {MICROCREDITS_MAX}; asked for was a supply of {supply}.",
        )
    genesis = Genesis(
        version=1,
        name=name,
        nonce=nonce,
        supply=supply,
        allocations=tuple(Allocation(node, amount) for node, amount in sorted(allocations.items())),
        witnesses=tuple(sorted(witnesses)),
        entry_fee=entry_fee,
        pay_min=1,
        grace_ms=grace_ms,
        window_ms=window_ms,
    )
    try:
        genesis_checked(genesis)  # First: a name that cannot be printed cannot be encoded either.
        codec.decode(codec.encode(genesis), Genesis, GENESIS_BYTES_MAX)
    except RemoteError as error:
        raise LocalError(Code.BAD_REQUEST, f"No network can be made so. {error.sentence}") from None
    return genesis


def genesis_checked(genesis: Genesis) -> Genesis:
    """Raises RemoteError BAD_MESSAGE unless the document follows its own rules."""
    if not genesis.name.isprintable() or genesis.name.strip() != genesis.name:
        raise RemoteError(Code.BAD_MESSAGE, "A network's name is printable text.")
    accounts = [allocation.account for allocation in genesis.allocations]
    for title, nodes in (("allocations", accounts), ("witnesses", list(genesis.witnesses))):
        if nodes != sorted(set(nodes)):
            raise RemoteError(
                Code.BAD_MESSAGE, f"The {title} of a genesis are sorted by node, each node once."
            )
    allocated = sum(allocation.amount for allocation in genesis.allocations)
    if allocated != genesis.supply:
        raise RemoteError(
            Code.BAD_MESSAGE,
            f"The genesis allocates {allocated} microcredits of a supply of {genesis.supply}.",
        )
    return genesis


def network_id(genesis: Genesis) -> NetworkId:
    """BLAKE2b-256 of the canonical bytes."""
    return NetworkId(digest(codec.encode(genesis)))


def network_file_text(file: NetworkFile) -> str:
    """What stands in `NAME.ayni`: a header line, the name for people, base64 lines, a checksum.

    A changed nonce would be another network, in good order and empty, so damage must show.
    """
    data = codec.encode(file)
    armour = textwrap.wrap(base64.b64encode(data).decode(), 76)
    name = f"# {file.genesis.name} {network_id(file.genesis).hex()[:16]}"
    return "\n".join([_HEADER, name, *armour, _checksum(data), ""])


def network_file_parsed(text: str) -> NetworkFile:
    """The network in a file's text. Raises LocalError BAD_REQUEST for any other text."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    if not lines or lines[0] != _HEADER:
        raise LocalError(
            Code.BAD_REQUEST,
            f"This is no network file: its first line must be {_HEADER!r}. "
            "Ask for the NAME.ayni that `ayni network create` wrote.",
        )
    armour, checksum = [line for line in lines[1:-1] if not line.startswith("#")], lines[-1]
    try:
        data = base64.b64decode("".join(armour), validate=True)
        if checksum != _checksum(data):
            raise ValueError("its last line, the checksum, does not fit the lines before")
        file = codec.decode(data, NetworkFile, GENESIS_BYTES_MAX)
        genesis_checked(file.genesis)
    except (ValueError, RemoteError) as error:  # base64's own error is a ValueError.
        raise LocalError(
            Code.BAD_REQUEST, f"This network file is damaged; ask for it again. ({error})"
        ) from None
    return file


def _checksum(data: bytes) -> str:
    return f"={digest(data).hex()[:16]}"
