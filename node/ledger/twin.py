"""Finds out whether a second daemon runs with this node's key, as a copied home does.

Both would sign, and two entries for one place can lock an account for ever. Each daemon draws an
instance id at its start and asks the witnesses with it, every now and then. A witness tells how
long ago another instance asked. One that asked after our own first question is alive beside us:
what we were before a restart asked before it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from node.network.base import NetworkError
from node.telemetry.logs import Log
from protocol.errors import RemoteError
from protocol.ids import NodeId
from protocol.ledger.charter import Charter
from protocol.ledger.sync import Answer, Ask, AskOwn, OwnState

ASK_SECONDS: Final = 30.0
FORGET_ROUNDS: Final = 4  # A twin that is not heard for so many has stopped.

Asker = Callable[[NodeId, Ask], Awaitable[Answer]]
"""Raises NetworkError or RemoteError where no answer comes."""

_log = Log("ledger")


@dataclass(frozen=True, slots=True)
class Sighting:
    """How many witnesses have heard a second daemon, and how many seconds ago the last did."""

    witnesses: int
    seconds_ago: float


class Twin:
    """Asks while `run` runs. A witness may lie, so more than f have to say the same."""

    def __init__(
        self,
        node: NodeId,
        charter: Charter,
        instance: bytes,
        ask: Asker,
        *,
        seconds: float = ASK_SECONDS,
    ) -> None:
        self._node, self._charter, self._instance, self._ask = node, charter, instance, ask
        self._seconds = seconds
        self._first_asked: dict[NodeId, float] = {}
        self._heard: dict[NodeId, float] = {}
        self._was_seen = False

    @property
    def seen(self) -> Sighting | None:
        """The second daemon, if one runs."""
        now = trio.current_time()
        heard = [at for at in self._heard.values() if now - at <= FORGET_ROUNDS * self._seconds]
        if len(heard) <= self._charter.faulty_max:
            return None
        return Sighting(len(heard), now - max(heard))

    async def run(self) -> None:
        """Ask all witnesses but ourselves, again and again, until cancelled."""
        others = [witness for witness in self._charter.witnesses if witness != self._node]
        while True:
            async with trio.open_nursery() as nursery:
                for witness in others:
                    nursery.start_soon(self._look, witness)
            if bool(self.seen) != self._was_seen:
                self._was_seen = not self._was_seen
                (_log.error if self._was_seen else _log.info)(
                    "ledger.second_daemon", runs=self._was_seen
                )
            await trio.sleep(self._seconds)

    async def _look(self, witness: NodeId) -> None:
        try:
            answer = await self._ask(witness, AskOwn(self._node, self._instance))
        except (NetworkError, RemoteError):
            return  # It is asked again soon.
        now = trio.current_time()
        if not isinstance(answer, OwnState):
            return
        # From here on it knows us: whatever it heard before this may be what we were once.
        first = self._first_asked.setdefault(witness, now)
        if answer.other_ms_ago is not None and now - answer.other_ms_ago / 1000 > first:
            self._heard[witness] = now - answer.other_ms_ago / 1000
