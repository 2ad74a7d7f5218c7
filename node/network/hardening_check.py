"""Is the libp2p that is installed the one that the guards of `hardening` are made for?"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from node.network import hardening_yamux
from protocol.errors import Code, LocalError

VERSION = "0.8.1"

# Every name that a guard replaces or leans on, with the parameters that the guard expects.
EXPECTED = {
    "network.swarm:Swarm._do_handle_inbound_connection": (
        "self read_write_closer maddr failure_event"
    ),
    "network.swarm:Swarm.upgrade_inbound_raw_conn": "self raw_conn maddr",
    "network.connection.swarm_connection:SwarmConn._handle_muxed_stream": "self muxed_stream",
    "network.connection.swarm_connection:SwarmConn._add_stream": "self muxed_stream",
    "network.connection.swarm_connection:SwarmConn.new_stream": "self",
    "network.auto_connector:AutoConnector.maybe_connect": "self",
    "protocol_muxer.multiselect_communicator:MultiselectCommunicator.read": "self",
    "protocol_muxer.multiselect_communicator:read_delim": "reader",
    "utils.varint:read_varint_prefixed_bytes_limited": "reader max_length",
    "pubsub.pubsub:Pubsub.continuously_read_stream": "self stream",
    "pubsub.pubsub:Pubsub._handle_dead_peer": "self peer_id",
    "pubsub.pubsub:Pubsub.push_msg": "self msg_forwarder msg",
    "pubsub.pubsub:signature_validator": "msg",
    "pubsub.pubsub:maybe_consume_signed_record": "msg host peer_id",
    "pubsub.gossipsub:maybe_consume_signed_record": "msg host peer_id",
    "pubsub.pubsub:env_to_send_in_RPC": "host",
    "pubsub.gossipsub:env_to_send_in_RPC": "host",
    **hardening_yamux.EXPECTED,
}


def check(expected: Mapping[str, str] = EXPECTED, wanted: str = VERSION) -> None:
    """Raises LocalError UNAVAILABLE, with what to do, when libp2p is absent, of another version,
    or has one of the expected names missing or with other parameters."""
    remedy = f"Install it as the lock has it: pip install --no-deps libp2p=={wanted}"
    try:
        found = version("libp2p")
    except PackageNotFoundError:
        raise LocalError(Code.UNAVAILABLE, f"libp2p is not installed. {remedy}") from None
    if found != wanted:
        raise LocalError(
            Code.UNAVAILABLE, f"libp2p {found} is here, but the guards fit {wanted}. {remedy}"
        )
    for path, parameters in expected.items():
        thing: Any = None
        try:
            thing = _resolved(path)
            if " ".join(inspect.signature(thing).parameters) == parameters:
                continue
        except (ImportError, AttributeError):
            pass
        raise LocalError(
            Code.UNAVAILABLE, f"libp2p's {path} is missing or altered (found {thing}). {remedy}"
        )


def _resolved(path: str) -> Any:
    module, _, names = path.partition(":")
    thing: Any = import_module(f"libp2p.{module}")
    for name in names.split("."):
        thing = getattr(thing, name)
    return thing
