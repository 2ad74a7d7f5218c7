"""Guards around libp2p 0.8.1: each cures one fault that kills, deafens or bloats a daemon.

The names that are replaced are private, so the version is pinned and each name is checked, with
its parameters, before anything is touched. What was measured, with and without each guard, is in
the tests (`tests/node/network/test_hardening.py` shows every fault come back without its guard).

This file and `node.supervise` are the only ones that may catch every exception: what arrives
here was caused by a peer's bytes, and a peer's bytes never stop the daemon.
"""

import ipaddress
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

import trio

from node.network import hardening_check, hardening_yamux, placeholders
from node.network.base import Handler, Judge, NetworkError, Stream
from protocol.errors import AyniError, RemoteError
from protocol.ids import NodeId, short
from protocol.limits import HALF_OPEN_PER_ADDRESS_MAX, STREAMS_PER_CONNECTION_MAX

GUARDS = frozenset(f"F{number}" for number in range(1, 18))
_LINE_BYTES_MAX = 1024  # A line of multistream-select is the name of a protocol.
_CLEAN_UP_SECONDS = 1
_RECORD_SECONDS = 5
_log = logging.getLogger("ayni.network")

T = TypeVar("T")
_installed: Set[str] | None = None


class Gate(Protocol):
    """Whoever decides how much a peer may take; asked before anything is read or checked."""

    def opened(self, peer: Any) -> bool:
        """May the libp2p peer open one more? After True, and only then, `closed` follows."""

    def closed(self, peer: Any) -> None: ...

    def heard(self, peer: Any) -> bool:
        """May a message of gossip that this libp2p peer passes on be looked at?"""


_gates: WeakKeyDictionary[Any, Gate] = WeakKeyDictionary()


def guard_swarm(swarm: Any, gate: Gate) -> None:
    """Ask this gate about each stream and each message of gossip that comes in on a swarm."""
    _gates[swarm] = gate


def install(without: Set[str] | None = None) -> None:
    """Put every guard in place; a second call does nothing. `without` leaves some out, which
    only makes sense in a test that shows what then happens, and before any other call.

    Raises LocalError UNAVAILABLE when libp2p is not here, or is not what the guards are made for.
    """
    global _installed
    active = GUARDS - (without or frozenset())
    if _installed is not None:
        assert without is None or _installed == active, "guards are chosen once in a process"
        return
    placeholders.install()
    hardening_check.check()
    _guard_multiplexer(active)
    _guard_connections(active)
    _guard_streams(active)
    _guard_negotiation(active)
    _guard_gossip(active)
    _silence()
    _installed = active


def _silence() -> None:
    """libp2p tells of every hang-up of every peer, some of it on the root logger, and what it
    tells can hold a peer's bytes. What matters of it reaches us as exceptions and events."""
    logging.getLogger("libp2p").setLevel(logging.CRITICAL + 1)
    # `logging.debug(...)` on the module would set up the root logger behind the daemon's back.
    from libp2p.network.connection import swarm_connection

    swarm_connection.logging = logging.getLogger("libp2p.network.connection.swarm_connection")


def _guard_multiplexer(active: Set[str]) -> None:
    from libp2p.network.connection import swarm_connection
    from libp2p.stream_muxer import exceptions
    from libp2p.stream_muxer.yamux import yamux

    hardening_yamux.install(active, yamux, exceptions, swarm_connection)


def _guard_connections(active: Set[str]) -> None:
    from libp2p.network import auto_connector, swarm
    from libp2p.network.connection.raw_connection import RawConnection

    half_open: Counter[str] = Counter()

    async def handled(self: Any, read_write_closer: Any, maddr: Any, failure_event: Any) -> None:
        # F10: 250 idle TCP connections take every slot for as long as a handshake may last, and
        # nobody else gets in; so one address may have only a few handshakes under way.
        address = _address_group(read_write_closer)
        if "F10" in active and half_open[address] >= HALF_OPEN_PER_ADDRESS_MAX:
            await read_write_closer.close()
            return
        half_open[address] += 1
        raw = RawConnection(read_write_closer, False)
        upgraded = False
        try:
            try:
                muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
                upgraded = True
            finally:
                half_open[address] -= 1
                if not half_open[address]:
                    del half_open[address]
            # F1: libp2p waits here for the end of the whole swarm, so that a slot is never given
            # back and a node goes deaf after 250 inbound connections in its life.
            if "F1" in active:
                await muxed.event_closed.wait()
            else:
                await self.manager.wait_finished()
        except Exception as error:
            _log.debug("inbound connection dropped: %s upgraded=%s", _kind(error), upgraded)
        finally:
            await quietly(raw.close)

    if active & {"F1", "F10"}:
        swarm.Swarm._do_handle_inbound_connection = handled

    # F14: below its low watermark libp2p dials every address that any peer has ever claimed for
    # anybody, loopback and private networks too. Whom to dial is discovery's to decide.
    async def stay(self: Any) -> None:
        return None

    if "F14" in active:
        auto_connector.AutoConnector.maybe_connect = stay


def _address_group(connection: Any) -> str:
    """One IPv4 address or one IPv6 /64: what a single owner has without effort."""
    remote = connection.get_remote_address()
    if remote is None:
        return ""
    try:
        address = ipaddress.ip_address(str(remote[0]).partition("%")[0])
    except ValueError:
        return str(remote[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return address.packed[:8].hex()


def _guard_streams(active: Set[str]) -> None:
    from libp2p.network.connection import swarm_connection as connection

    original_handle = connection.SwarmConn._handle_muxed_stream
    served: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    async def handle(self: Any, muxed_stream: Any) -> None:
        # F11: only a count of 10,000 for the whole node bounds streams, and our own count in it:
        # one peer could take them all. Ours is for each connection, and the gate's for each peer.
        gate = _gates.get(self.swarm) if "F11" in active else None
        peer = self.muxed_conn.peer_id
        if gate is not None and not gate.opened(peer):
            await quietly(muxed_stream.reset)
            return
        served[self] = served.get(self, 0) + 1
        try:
            if served[self] > STREAMS_PER_CONNECTION_MAX and "F11" in active:
                await quietly(muxed_stream.reset)
            else:
                await original_handle(self, muxed_stream)
        except Exception as error:
            # F2: whatever a stream handler or the negotiation before it raises ends the
            # connection's nursery, with it the swarm's, and with that the process.
            if "F2" not in active:
                raise
            _log.warning("a stream was dropped: %s", _kind(error))
            await quietly(muxed_stream.reset)
        finally:
            served[self] -= 1
            if gate is not None:
                gate.closed(peer)

    connection.SwarmConn._handle_muxed_stream = handle


def _guard_negotiation(active: Set[str]) -> None:
    from libp2p.protocol_muxer import multiselect_communicator as multiselect
    from libp2p.utils import varint

    # F3: three bytes that are no UTF-8 in place of a protocol's name kill the process; and F15:
    # a name of any length is read into memory for as long as the negotiation may last.
    problem = multiselect.MultiselectCommunicatorError
    original_read = multiselect.MultiselectCommunicator.read

    async def bounded(reader: Any) -> bytes:
        try:
            line: bytes = await varint.read_varint_prefixed_bytes_limited(reader, _LINE_BYTES_MAX)
        except varint.MessageTooLarge as error:
            raise problem("the line is too long") from error
        if not line.endswith(b"\n"):
            raise problem("the line has no end")
        return line[:-1]

    async def read(self: Any) -> str:
        try:
            text: str = await original_read(self)
        except UnicodeDecodeError as error:
            raise problem("the line is no text") from error
        return text

    if "F15" in active:
        multiselect.read_delim = bounded
    if "F3" in active:
        multiselect.MultiselectCommunicator.read = read


def _guard_gossip(active: Set[str]) -> None:
    from libp2p.pubsub import gossipsub, pubsub

    original_read = pubsub.Pubsub.continuously_read_stream
    original_push = pubsub.Pubsub.push_msg
    original_signed = pubsub.signature_validator

    async def read_stream(self: Any, stream: Any) -> None:
        try:
            await original_read(self, stream)
        except Exception as error:
            _log.warning("a gossip stream was dropped: %s", _kind(error))
            await quietly(stream.reset)
            self._handle_dead_peer(stream.muxed_conn.peer_id)

    async def push(self: Any, msg_forwarder: Any, msg: Any) -> None:
        # F17: a message whose signature does not hold costs its sender nothing, and us 0.1 ms.
        gate = _gates.get(self.host.get_network()) if "F17" in active else None
        if gate is not None and msg_forwarder != self.my_id and not gate.heard(msg_forwarder):
            return
        try:
            await original_push(self, msg_forwarder, msg)
        except Exception as error:
            # F6: whatever a validator raises kills the process. But our own publish must tell
            # its caller.
            if "F6" not in active or msg_forwarder == self.my_id:
                raise
            _log.warning("a gossip message was dropped: %s", _kind(error))

    def signed(msg: Any) -> bool:
        try:
            return bool(original_signed(msg))
        except Exception:
            return False

    if "F4" in active:  # Four bytes that are no protobuf kill the process.
        pubsub.Pubsub.continuously_read_stream = read_stream
    if "F5" in active:  # So does a message whose key cannot be read.
        pubsub.signature_validator = signed
    pubsub.Pubsub.push_msg = push
    if "F16" in active:
        _cache_records(pubsub, gossipsub)


def _cache_records(*modules: Any) -> None:
    """F16: every gossip message carries its forwarder's signed address record, which is made and
    verified each time: half of the CPU of a delivery. One that was accepted is accepted again,
    and our own is made anew every five seconds."""
    original = modules[0].maybe_consume_signed_record
    original_own = modules[0].env_to_send_in_RPC
    accepted: WeakKeyDictionary[Any, dict[Any, bytes]] = WeakKeyDictionary()
    own: WeakKeyDictionary[Any, tuple[float, bytes]] = WeakKeyDictionary()

    def consume(msg: Any, host: Any, peer_id: Any) -> bool:
        if not msg.HasField("senderRecord"):
            return True
        known = accepted.setdefault(host, {})
        if known.get(peer_id) == msg.senderRecord:
            return True
        if not original(msg, host, peer_id):
            return False
        if len(known) >= 1024:
            known.clear()
        known[peer_id] = bytes(msg.senderRecord)
        return True

    def envelope(host: Any) -> tuple[bytes, bool]:
        made_at, record = own.get(host, (-math.inf, b""))
        if trio.current_time() - made_at < _RECORD_SECONDS:
            return record, False
        record, is_new = original_own(host)
        own[host] = (trio.current_time(), record)
        return record, is_new

    for module in modules:
        module.maybe_consume_signed_record = consume
        module.env_to_send_in_RPC = envelope


def _kind(error: BaseException) -> str:
    """The type alone: a message can hold a peer's bytes, or a prompt."""
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__}[{', '.join(_kind(part) for part in error.exceptions[:3])}]"
    return type(error).__name__


async def quietly(clean_up: Callable[[], Awaitable[object]]) -> bool:
    """Clean up though we are cancelled, within a second, and never raise. Was it done?"""
    deadline = trio.current_time() + _CLEAN_UP_SECONDS
    with trio.CancelScope(shield=True, deadline=deadline) as scope:
        try:
            await clean_up()
        except Exception as error:
            _log.debug("a clean-up failed: %s", _kind(error))
            return False
    return not scope.cancelled_caught


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Whatever libp2p raises inside becomes NetworkError; our own errors stay what they are."""
    try:
        yield
    except (NetworkError, AyniError):
        raise
    except Exception as error:
        raise NetworkError(f"{what}: {_kind(error)}") from error


@contextmanager
def end_as_empty() -> Iterator[None]:
    """Swallow libp2p's word for the end of a stream, in order, and nothing else."""
    from libp2p.network.stream.exceptions import StreamEOF

    with suppress(StreamEOF):
        yield


async def serve(handler: Handler, stream: Stream, blame: Callable[[RemoteError], None]) -> None:
    """Run a handler to its end: closed when it returns, reset when it raises. `blame` hears of
    a RemoteError. Only a cancellation comes out."""
    try:
        await handler(stream)
    except NetworkError:
        await stream.reset()
    except RemoteError as error:
        _log.info("a stream of %s was refused: %s", short(stream.peer), error.code)
        await stream.reset()
        blame(error)
    except Exception as error:
        _log.error("a handler failed: %s at %s", _kind(error), _place(error))
        await stream.reset()
    except BaseException:
        await quietly(stream.reset)
        raise
    else:
        await stream.close()


def _place(error: BaseException) -> str:
    """Where it was raised: the file and the line, and no value."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def judged(judge: Judge, forwarder: NodeId, data: bytes) -> bool:
    """The judge's word; a judge that raises has said no."""
    try:
        return judge(forwarder, data)
    except Exception as error:
        _log.error("a judge of gossip failed: %s at %s", _kind(error), _place(error))
        return False


def told(take: Callable[[T], None], value: T) -> None:
    """Tell a watcher or a topic; what it raises is our bug, and no reason to stop hearing."""
    try:
        take(value)
    except Exception as error:
        _log.error("a listener failed: %s at %s", _kind(error), _place(error))
