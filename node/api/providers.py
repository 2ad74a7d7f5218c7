"""Which node a request means by the name that it gives."""

from collections.abc import Sequence

from node.api.backend import Backend
from node.api.failures import BadParameter
from protocol.errors import Code
from protocol.ids import NodeId, node_parsed


def provider_id(backend: Backend, wanted: str) -> NodeId:
    """The node of that name or id, or of the only id that begins so, among this one and those it
    knows. Raises LocalError where there is none or more than one."""
    status = backend.status()
    nodes = [(status.node, status.name)]
    nodes += [(peer.node, peer.name) for peer in backend.peers()]
    return node_parsed(provider_chosen(wanted, nodes))


def provider_chosen(text: str, pairs: Sequence[tuple[str, str]]) -> str:
    """The node id, out of (node id, name) pairs, that a person means by an id, at least 4 of
    its first or last characters, or a name. Raises BadParameter when it is none or several."""
    found = {node for node, name in pairs if text in (node, name)}
    if not found and len(text) >= 4:
        found = {node for node, _ in pairs if node.startswith(text) or node.endswith(text)}
    if len(found) == 1:
        return found.pop()
    there = ", ".join(f"{name} ({node})" for node, name in pairs[:8]) or "nobody"
    trouble = "means several nodes" if found else "is no node that this one knows"
    raise BadParameter("ayni.provider", f"{text!r} {trouble}. Known: {there}.", Code.NOT_FOUND)
