"""Tells others what concerns them, for as long as it takes them to listen: payees their pays and
the funds of their channels, the other party of a channel how it was settled."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

import trio

from node.ledger.keeper import Keeper
from node.ledger.lines import Lines
from node.ledger.signal import Signal
from node.network.base import NetworkError
from node.storage.ledger import Records
from node.storage.ledger_own import OwnChains, Payment
from node.telemetry.logs import Log
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId, short
from protocol.ledger.certificate import Certified
from protocol.ledger.sync import Accepted, Announce, Refusal, TellSettlement

PAYEES_AT_ONCE: Final = 8
PAYS_AT_ONCE: Final = 32
RETRY_SECONDS_MIN: Final = 5.0
RETRY_SECONDS_MAX: Final = 600.0
LOOK_AGAIN_SECONDS: Final = 600.0

_log = Log("ledger")


@dataclass(frozen=True, slots=True)
class _Untold:
    payments: Sequence[Payment]
    entries: Sequence[Certified]  # That make them.
    channels: Sequence[MessageId]  # That are settled.
    settlements: Sequence[TellSettlement]


class Payees:
    """A payee that is a witness hears of entries with the other witnesses; the rest hear here."""

    def __init__(self, keeper: Keeper, lines: Lines) -> None:
        self._keeper, self._lines, self._store = keeper, lines, keeper.store
        self._wake = Signal()
        self._busy: set[NodeId] = set()
        self._waits: dict[NodeId, tuple[float, float]] = {}  # (at, seconds): when to try again.

    def wake(self, peer: NodeId | None = None) -> None:
        """Something became final; or this peer is connected, so that it can be told at once."""
        if peer is not None:
            self._waits.pop(peer, None)
        self._wake.set()

    async def run(self) -> None:
        """Tell whoever is to be told, until cancelled."""
        self._busy.clear()
        async with trio.open_nursery() as nursery:
            while True:
                coming, now = self._wake.coming(), trio.current_time()
                for payee in await self._due():
                    self._busy.add(payee)
                    nursery.start_soon(self._tell, payee)
                # A wait that is over is of a payee for whom there is no room, or nothing left.
                times = [at for at, _ in self._waits.values() if at > now]
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
        untold = await self._store.read(partial(self._untold, payee))
        for certified in untold.entries:
            answer = await self._lines.ask(payee, Announce(certified))
            # A payee without the entries before it keeps what concerns it all the same.
            is_kept = isinstance(answer, Refusal) and answer.code == Code.MISSING
            if not (is_kept or isinstance(answer, Accepted)):
                raise RemoteError(Code.REFUSED, "The payee did not take what is its own.")
        for ask in untold.settlements:
            if not isinstance(await self._lines.ask(payee, ask), Accepted):
                raise RemoteError(Code.REFUSED, "The other party did not take a settlement.")
        if not untold.payments and not untold.channels:
            return False

        def work(records: Records) -> None:
            records.told(untold.payments)
            for channel in untold.channels:
                records.told_settlement(channel)

        await self._store.write(work)
        await self._keeper.steps("payee.told")
        return True

    def _untold(self, payee: NodeId, chains: OwnChains) -> _Untold:
        """What this payee is not known to have heard: all of one moment."""
        own = self._keeper.node
        payments = chains.untold(payee, own, PAYS_AT_ONCE)
        found = (chains.certified(own, one.seq or 0) for one in payments)
        is_witness = payee in self._keeper.charter.witnesses
        entries = [certified for certified in found if certified is not None and not is_witness]
        channels = [row.id for row in chains.settlements_untold(payee, PAYS_AT_ONCE)]
        settlements = []
        for channel in channels:
            settlement, shown = chains.settlement(channel), chains.certified_by_id(channel)
            # Its open is gone only after both have claimed: then both have heard.
            if settlement is not None and shown is not None:
                settlements.append(TellSettlement(settlement, shown))
        return _Untold(payments, entries, channels, settlements)
