"""Hold connections: dial whom the plan chooses, redial at once who is lost, on demand anybody."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from node.discovery.addresses import AddressBook
from node.discovery.clock import Clock
from node.discovery.dial_plan import DialPlan
from node.discovery.directory import Directory
from node.discovery.rates import Rates
from node.network.base import Network, NetworkError
from node.telemetry.logs import Log
from protocol.errors import LocalError
from protocol.ids import NodeId, node_text, short
from protocol.limits import CONNECTIONS_MAX

_DIALS_AT_ONCE_MAX = 8  # When the cable is pulled, a hundred peers are lost in one moment.
_PAUSE_SECONDS = 0.25  # Looks at the plan are this far apart, however much is heard.
# A peer that comes and goes is redialled at once twice in a minute; then it waits as any other.
_REDIALS, _REDIALS_SECONDS = 2, 60

_log = Log("discovery")


@dataclass(eq=False, slots=True)
class _Dial:
    """One dial of a node, which all who want the node wait for."""

    over: trio.Event = field(default_factory=trio.Event)
    failed: bool = False


class Dialer:
    """The only one that dials. `on_failure` is told of nodes that did not answer."""

    def __init__(
        self,
        network: Network,
        addresses: AddressBook,
        directory: Directory,
        plan: DialPlan,
        clock: Clock,
        *,
        on_failure: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        self._network, self._addresses, self._directory = network, addresses, directory
        self._plan, self._clock, self._on_failure = plan, clock, on_failure
        self._dials: dict[NodeId, _Dial] = {}
        self._redials = Rates(_REDIALS, _REDIALS_SECONDS, 4 * CONNECTIONS_MAX)
        self._limiter = trio.CapacityLimiter(_DIALS_AT_ONCE_MAX)
        self._news = trio.Event()

    def wake(self) -> None:
        """Something has changed about who is known or connected."""
        self._news.set()

    async def connect_to(self, node: NodeId) -> None:
        """Be connected to this node when this returns: at once, or by dialling its addresses in
        turn. Raises NetworkError when none of them answers or none is known."""
        while node not in self._network.peers:
            dial = self._dials.get(node)
            if dial is None:
                await self._dial(node)
                return
            await dial.over.wait()
            if dial.failed:
                raise _unreachable(node)
            # Else it is connected, or whoever dialled was cancelled and it is our turn.

    async def redial(self, node: NodeId) -> None:
        """A connection was lost: try once more, and say so when it is no use."""
        known = bool(self._addresses.of(node))
        if not known or not self._redials.take(node, self._clock.steady_ms()):
            self._directory.lost(node)
            return
        await self._try(node)

    async def run(self) -> None:
        """Keep neighbours until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                for node in self._chosen():
                    nursery.start_soon(self._try, node)
                await trio.sleep(_PAUSE_SECONDS)
                with trio.move_on_after(self._seconds_to_wait()):
                    await self._news.wait()

    def _chosen(self) -> list[NodeId]:
        return self._plan.choose(
            self._addresses.preferred(),
            self._addresses.others(),
            frozenset(self._network.peers),
            self._clock.steady_ms(),
        )

    def _seconds_to_wait(self) -> float:
        known = {*self._addresses.preferred(), *self._addresses.others()}
        at_ms = self._plan.wake_at(known)
        if at_ms is None:
            return float("inf")
        return max(0, at_ms - self._clock.steady_ms()) / 1000

    async def _try(self, node: NodeId) -> None:
        """Dial in the background: whether it worked shows in the plan and the directory."""
        try:
            async with self._limiter:
                await self.connect_to(node)
        except NetworkError:
            return
        finally:
            self._plan.given_up(node)  # Unless it is settled already.
            self.wake()

    async def _dial(self, node: NodeId) -> None:
        dial = self._dials[node] = _Dial()
        try:
            dial.failed = not await self._reached(node)
        finally:
            del self._dials[node]
            dial.over.set()
        if dial.failed:
            self._plan.failed(node, self._clock.steady_ms())
            self._directory.lost(node)
            await self._on_failure(node)
            raise _unreachable(node)
        self._plan.succeeded(node)
        self._directory.found(node)

    async def _reached(self, node: NodeId) -> bool:
        for address in self._addresses.of(node):
            try:
                await self._network.connect(address)
            # A stranger's address may be none at all: that is its fault and not our caller's.
            except (NetworkError, LocalError):
                continue
            _log.debug("peer.dialled", peer=short(node), address=address)
            return True
        return False


def _unreachable(node: NodeId) -> NetworkError:
    return NetworkError(
        f"{node_text(node)} answers at none of the addresses that are known of it. Is it up, and "
        "is its port open to this machine?"
    )
