"""What a genesis fixes for every entry, ready for use: network, witnesses, quorum, minima."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from protocol.ids import MessageId, NetworkId, NodeId
from protocol.ledger.genesis import Genesis, genesis_checked, network_id


def quorum(witnesses: int) -> tuple[int, int]:
    """(f, q) of n witnesses: f may be dishonest, q = n - f make a certificate.

    Two quorums share n - 2f >= f + 1 witnesses, so at least one honest one, for every n >= 1.
    Without witnesses nothing can be certified: then q is 1.
    """
    faulty = max(0, (witnesses - 1) // 3)
    return faulty, max(1, witnesses - faulty)


@dataclass(frozen=True, slots=True)
class Charter:
    """A genesis as the rules read it; amounts are microcredits."""

    network: NetworkId
    witnesses: tuple[NodeId, ...]
    faulty_max: int
    quorum: int
    supply: int
    entry_fee: int
    pay_min: int
    grace_ms: int
    window_ms: int
    allocations: Mapping[NodeId, int]

    def number(self, node: NodeId) -> int | None:
        """The number of a witness in the genesis, from 0; None for any other node."""
        return self.witnesses.index(node) if node in self.witnesses else None

    def fee_owner(self, entry: MessageId) -> NodeId | None:
        """The witness to whom the fee of an entry belongs: number id mod n, the id as a big-endian
        number. None on a network without witnesses."""
        count = len(self.witnesses)
        return self.witnesses[int.from_bytes(entry, "big") % count] if count else None


def charter(genesis: Genesis) -> Charter:
    """Raises RemoteError BAD_MESSAGE for a genesis that does not follow its own rules."""
    genesis_checked(genesis)
    faulty_max, seals_min = quorum(len(genesis.witnesses))
    return Charter(
        network=network_id(genesis),
        witnesses=genesis.witnesses,
        faulty_max=faulty_max,
        quorum=seals_min,
        supply=genesis.supply,
        entry_fee=genesis.entry_fee,
        pay_min=genesis.pay_min,
        grace_ms=genesis.grace_ms,
        window_ms=genesis.window_ms,
        allocations=MappingProxyType({one.account: one.amount for one in genesis.allocations}),
    )
