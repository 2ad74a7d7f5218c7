"""Where each known node can be dialled: from its advert, from memory, from the bootstrap list."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from node.discovery.directory import Directory
from protocol.errors import Code, LocalError
from protocol.ids import NodeId, node_parsed, node_text
from protocol.limits import ADDRESS_BYTES_MAX, PEERS_REMEMBERED_MAX

_OF_A_NODE_MAX = 16  # Twice what an advert may name; each may take ten seconds to fail.


def node_of(address: str) -> NodeId:
    """The node at the end of an address. Raises LocalError BAD_CONFIG where there is none."""
    _, marker, text = address.rpartition("/p2p/")
    try:
        if not marker:
            raise ValueError("it names no node")
        if not _is_fit(address):
            raise ValueError(f"it has odd characters, or more than {ADDRESS_BYTES_MAX}")
        return node_parsed(text)
    except ValueError as error:
        raise LocalError(
            Code.BAD_CONFIG,
            f"{address[:256]!r} cannot be a bootstrap address: {error}. It must end in "
            "/p2p/<node id>, as `ayni status` on that node shows it.",
        ) from None


class AddressBook:
    """Addresses by node. Only those that name the node itself are given, so that an advert
    cannot send us elsewhere in another's name."""

    def __init__(self, own: NodeId, bootstrap: Iterable[str], directory: Directory) -> None:
        self._own, self._directory = own, directory
        self._bootstrap: dict[NodeId, list[str]] = {}
        for address in bootstrap:
            self._bootstrap.setdefault(node_of(address), []).append(address)
        self._remembered: OrderedDict[NodeId, Sequence[str]] = OrderedDict()

    def remember(self, node: NodeId, addresses: Sequence[str]) -> None:
        """Keep where this node was, also when its advert is over; the longest kept makes room."""
        self._remembered[node] = tuple(addresses)
        self._remembered.move_to_end(node)
        if len(self._remembered) > PEERS_REMEMBERED_MAX:
            self._remembered.popitem(last=False)

    def is_remembered(self, node: NodeId) -> bool:
        return node in self._remembered

    def preferred(self) -> list[NodeId]:
        """The nodes of the bootstrap list."""
        return [node for node in self._bootstrap if node != self._own]

    def others(self) -> set[NodeId]:
        """All other nodes that we may know an address of."""
        return {*self._remembered, *self._directory.nodes()} - {self._own, *self._bootstrap}

    def of(self, node: NodeId) -> list[str]:
        """Its addresses, the freshest first; none for ourselves."""
        if node == self._own:
            return []
        advert = self._directory.advert_of(node)
        advertised = () if advert is None else advert.addresses
        known = (*advertised, *self._bootstrap.get(node, ()), *self._remembered.get(node, ()))
        end = f"/p2p/{node_text(node)}"
        fitting = dict.fromkeys(
            address for address in known if _is_fit(address) and address.endswith(end)
        )
        return list(fitting)[:_OF_A_NODE_MAX]


def _is_fit(address: str) -> bool:
    """An advert bounds the characters of an address; what is kept and dialled is plain ASCII."""
    return len(address) <= ADDRESS_BYTES_MAX and address.isascii() and address.isprintable()
