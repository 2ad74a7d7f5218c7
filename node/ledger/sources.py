"""Finds the certificates that a claim of ours shows, where our own store has lost them.

A claim that only witnesses remember is sent again after a restore. Whoever made its sources
believes that we were told of them, so that nobody brings them: they are asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from node.ledger.client import Client
from node.ledger.plan import proofs_of
from node.network.base import NetworkError
from node.storage.ledger import LedgerStore
from protocol.errors import RemoteError
from protocol.ids import MessageId
from protocol.ledger.agreement import settlement_checked
from protocol.ledger.certificate import Certified, certified_checked
from protocol.ledger.charter import Charter
from protocol.ledger.entry import EARNED, REST, Entry, sources_of
from protocol.ledger.sources import Proofs
from protocol.ledger.statement import Settlement
from protocol.ledger.sync import Answer, Ask, AskEntries, AskSettlement, Entries, Settled

RETRY_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Found:
    """What is shown with one claim, by the ids of entries and channels."""

    entries: dict[MessageId, Certified] = field(default_factory=dict)
    settlements: dict[MessageId, Settlement] = field(default_factory=dict)

    @property
    def proofs(self) -> Proofs:
        return Proofs(tuple(self.entries.values()), tuple(self.settlements.values()))

    def take(self, proofs: Proofs) -> None:
        self.entries.update({one.entry.id: one for one in proofs.entries})
        self.settlements.update({one.channel: one for one in proofs.settlements})


class Sources:
    """Asks the witnesses, for as long as it takes."""

    def __init__(self, store: LedgerStore, charter: Charter, client: Client) -> None:
        self._store, self._charter, self._client = store, charter, client

    async def complete(self, entry: Entry) -> None:
        """Show the witnesses all that an entry of ours, which is on its way to them, claims. Asks
        nobody where it is here."""
        found = _Found()
        found.take(await self._store.read(partial(proofs_of, entry=entry)))
        while asks := _lacking(entry, found):
            for number in range(len(self._charter.witnesses)):
                for ask in asks:
                    await self._ask(number, ask, found)
                asks = _lacking(entry, found)
            self._client.show(found.proofs)
            await trio.sleep(RETRY_SECONDS if asks else 0)

    async def _ask(self, number: int, ask: Ask, found: _Found) -> None:
        try:
            answer = await self._client.ask(number, ask)
            # In a reader's thread: a claim may take a thousand signatures.
            found.take(await self._store.read(lambda _: self._checked(ask, answer)))
        except (NetworkError, RemoteError):
            return  # The next one is asked.

    def _checked(self, ask: Ask, answer: Answer) -> Proofs:
        """What an answer brings of that which was asked for. Raises RemoteError."""
        if isinstance(ask, AskEntries) and isinstance(answer, Entries):
            brought = [one for one in answer.entries if one.entry.id in ask.ids]
            for one in brought:
                certified_checked(one, self._charter)
            return Proofs(tuple(brought))
        if isinstance(ask, AskSettlement) and isinstance(answer, Settled):
            settlement_checked(answer.settlement, self._charter)
            if answer.settlement.channel == ask.channel:
                return Proofs((), (answer.settlement,))
        return Proofs()


def _lacking(entry: Entry, found: _Found) -> list[Ask]:
    """What to ask for; empty when all is here."""
    sources = sources_of(entry)
    ids = _without(found.entries, (one.id for one in sources if one.kind != REST))
    channels = (one.id for one in sources if one.kind in (EARNED, REST))
    asks: list[Ask] = [AskEntries(ids)] if ids else []
    return asks + [AskSettlement(one) for one in _without(found.settlements, channels)]


def _without(known: Iterable[MessageId], ids: Iterable[MessageId]) -> tuple[MessageId, ...]:
    return tuple(sorted(set(ids) - set(known)))
