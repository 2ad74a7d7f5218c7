"""Tells payees of their certified pays, for as long as it takes them to listen."""

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Final

import trio

from node.ledger.keeper import Keeper
from node.ledger.lines import Lines
from node.ledger.signal import Signal
from node.network.base import NetworkError
from node.storage.ledger_own import OwnChains
from node.telemetry.logs import Log
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId, short
from protocol.ledger.certificate import Certified
from protocol.ledger.sync import Accepted, Announce, Refusal

PAYEES_AT_ONCE: Final = 8
PAYS_AT_ONCE: Final = 32
RETRY_SECONDS_MIN: Final = 5.0
RETRY_SECONDS_MAX: Final = 600.0
LOOK_AGAIN_SECONDS: Final = 600.0

_log = Log("ledger")


class Payees:
    """A payee that is a witness hears with the other witnesses; the rest hear here."""

    def __init__(self, keeper: Keeper, lines: Lines) -> None:
        self._keeper, self._lines, self._store = keeper, lines, keeper.store
        self._wake = Signal()
        self._busy: set[NodeId] = set()
        self._waits: dict[NodeId, tuple[float, float]] = {}  # (at, seconds): when to try again.

    def wake(self, peer: NodeId | None = None) -> None:
        """A pay was certified; or this peer is connected, so that it can be told at once."""
        if peer is not None:
            self._waits.pop(peer, None)
        self._wake.set()

    async def run(self) -> None:
        """Tell whoever is to be told, until cancelled."""
        self._busy.clear()
        async with trio.open_nursery() as nursery:
            while True:
                coming = self._wake.coming()
                for payee in await self._due():
                    self._busy.add(payee)
                    nursery.start_soon(self._tell, payee)
                times = [at for at, _ in self._waits.values()]
                look_at = min([trio.current_time() + LOOK_AGAIN_SECONDS, *times])
                with trio.move_on_at(look_at):
                    await coming.wait()

    async def _due(self) -> list[NodeId]:
        """Who can be told now: as many as there is room for."""
        now = trio.current_time()
        after: bytes = b""
        due: list[NodeId] = []
        while (room := PAYEES_AT_ONCE - len(self._busy) - len(due)) > 0:
            page = await self._store.read(partial(self._untold_page, after))
            if not page:
                break
            after = page[-1]
            ready = (one for one in page if one not in self._busy and self._ready_at(one) <= now)
            due += islice(ready, room)
        return due

    def _ready_at(self, payee: NodeId) -> float:
        return self._waits.get(payee, (0.0, 0.0))[0]

    def _untold_page(self, after: bytes, chains: OwnChains) -> Sequence[NodeId]:
        return chains.payees_untold(self._keeper.node, after, PAYS_AT_ONCE)

    async def _tell(self, payee: NodeId) -> None:
        _, seconds = self._waits.pop(payee, (0.0, 0.0))
        try:
            while await self._tell_some(payee):
                seconds = 0.0
        except (NetworkError, RemoteError):
            seconds = min(max(2 * seconds, RETRY_SECONDS_MIN), RETRY_SECONDS_MAX)
            self._waits[payee] = (trio.current_time() + seconds, seconds)
            _log.debug("payee.silent", payee=short(payee))
        finally:
            self._busy.discard(payee)
        self._wake.set()

    async def _tell_some(self, payee: NodeId) -> bool:
        """Whether there was something to tell. Raises NetworkError or RemoteError."""

        def work(chains: OwnChains) -> list[Certified]:
            untold = chains.untold(payee, self._keeper.node, PAYS_AT_ONCE)
            found = (chains.certified(self._keeper.node, one.seq or 0) for one in untold)
            return [certified for certified in found if certified is not None]

        payments = await self._store.read(
            lambda chains: chains.untold(payee, self._keeper.node, PAYS_AT_ONCE)
        )
        if payee not in self._keeper.charter.witnesses:
            for certified in await self._store.read(work):
                answer = await self._lines.ask(payee, Announce(certified))
                # A payee without the entries before it keeps its income all the same.
                is_kept = isinstance(answer, Refusal) and answer.code == Code.MISSING
                if not (is_kept or isinstance(answer, Accepted)):
                    raise RemoteError(Code.REFUSED, "The payee did not take its pay.")
        if payments:
            await self._store.write(lambda records: records.told(payments))
            await self._keeper.steps("payee.told")
        return bool(payments)
