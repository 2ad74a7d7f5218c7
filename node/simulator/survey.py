"""Reads what honest nodes hold into the one book, and compares the nodes with each other."""

from dataclasses import dataclass

import trio

from node.simulator.book import Book, Broken
from node.simulator.deliveries import Deliveries
from node.simulator.machine import Machine
from node.storage.ledger_own import OwnChains
from protocol.errors import LocalError
from protocol.ids import MessageId, NodeId
from protocol.ledger.certificate import Certified
from protocol.ledger.statement import Settlement
from protocol.limits import RANGE_ENTRIES_MAX

ACCOUNTS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class _Held:
    entries: list[Certified]
    heads: list[tuple[NodeId, int, bytes]]
    settlements: list[Settlement]


class Survey:
    """Raises Broken where two honest nodes hold what excludes each other."""

    def __init__(self, book: Book, deliveries: Deliveries) -> None:
        self._book, self._deliveries = book, deliveries
        self._settled: dict[NodeId, set[MessageId]] = {}
        self._heads: dict[NodeId, dict[NodeId, bytes]] = {}

    def head(self, node: NodeId, account: NodeId) -> bytes:
        """Of an account, as a node held it when it was read last; b"" where it had none."""
        return self._heads.get(node, {}).get(account, b"")

    async def take(self, machine: Machine) -> None:
        """Read all that is new of one node, if it is up."""
        store = machine.store
        if store is None:
            return
        where = f"at node {machine.node.hex()[:8]}"
        try:
            held = await store.read(lambda chains: self._held(machine.node, chains))
        except LocalError:
            return
        for certified in held.entries:
            self._book.take(certified, where)
        for account, seq, head in held.heads:
            if seq and self._book.place(account, seq) != head:
                raise Broken(f"M3: two heads of {account.hex()[:8]} at {seq}; {where}")
        self._heads[machine.node] = {account: head for account, _, head in held.heads}
        for settlement in held.settlements:
            self._book.settle(settlement, where)
            self._settled.setdefault(machine.node, set()).add(settlement.channel)
        await trio.lowlevel.checkpoint()

    def _held(self, node: NodeId, chains: OwnChains) -> _Held:
        accounts = chains.accounts(b"", ACCOUNTS_AT_ONCE)
        entries: list[Certified] = []
        for one in accounts:
            first = self._book.seq(one.account) + 1
            while first <= one.seq:
                page = list(chains.chain(one.account, first, RANGE_ENTRIES_MAX))
                entries += page
                first += len(page)
        known = self._settled.get(node, set())
        found = (
            chains.settlement(channel) for channel in self._book.channels if channel not in known
        )
        return _Held(
            entries,
            [(one.account, one.seq, one.head) for one in accounts],
            [settlement for settlement in found if settlement is not None],
        )
