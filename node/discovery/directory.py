"""The adverts that count now: bounded, each for its own life and no longer. Pure but for `now`."""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from node.discovery.text import cut
from protocol.capacity import Advert, AdvertsPage, expires_at, supersedes
from protocol.envelope import Opened, Signed
from protocol.ids import NodeId
from protocol.limits import (
    ADVERT_CLOCK_SKEW_MS,
    ADVERT_TEXT_BYTES_MAX,
    ADVERTS_EXCHANGED_MAX,
    DIRECTORY_PEERS_MAX,
    FRAME_BYTES_MAX,
)
from protocol.messages import ENVELOPE_BYTES

OVER_KEPT_MS = 2 * ADVERT_CLOCK_SKEW_MS
"""How long the last sequence of a node that is gone is kept. An advert is taken while its date
is within the skew of our clock, before or after, so after twice the skew none of its old ones
can pass that check."""

Aged = tuple[int, Signed]
"""An advert with the milliseconds since it was heard."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A node's advert that counts now."""

    node: NodeId
    advert: Advert
    signed: Signed
    first_heard_at_ms: int
    heard_at_ms: int  # That many milliseconds ago, at the latest, its node let it go.
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A node as it is shown to a person. `advert` is unchecked text of a stranger's."""

    node: NodeId
    advert: Advert
    age_ms: int
    connected: bool
    unreachable: bool


class Directory:
    """At most `entries_max` adverts, one a node, and the numbers of `over_max` that are over.
    When there are more, the advert that expires first is dropped, because it says the least about
    now."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        entries_max: int = DIRECTORY_PEERS_MAX,
        over_max: int = DIRECTORY_PEERS_MAX,
    ) -> None:
        self._now_ms, self._entries_max, self._over_max = now_ms, entries_max, over_max
        self._entries: dict[NodeId, Entry] = {}
        # Soonest first; an item whose entry has changed since is skipped when it comes up.
        self._expiries: list[tuple[int, NodeId]] = []
        # Of nodes without an entry: their highest sequence, and until when it is kept.
        self._over: OrderedDict[NodeId, tuple[int, int]] = OrderedDict()
        self._unreachable: set[NodeId] = set()

    def __len__(self) -> int:
        return len(self._live())

    def heard(self, opened: Opened[Advert], signed: Signed, age_ms: int) -> bool:
        """Take a checked advert that was heard `age_ms` ago. True when it is news: the highest
        sequence ever heard of a node counts."""
        now = self._now_ms()
        node, advert = opened.signer, opened.value
        heard_at = now - max(0, age_ms)
        entry = Entry(node, advert, signed, now, heard_at, expires_at(advert, heard_at))
        if entry.expires_at_ms <= now:
            return False
        if self.repeated(signed, age_ms) or not supersedes(advert, self.sequence_of(node)):
            return False
        self._over.pop(node, None)
        self._unreachable.discard(node)  # It has spoken since, so it may be there again.
        self._put(entry)
        if len(self._entries) > self._entries_max:
            self._end(self._first_to_expire(), now)
        return node in self._entries

    def sequence_of(self, node: NodeId) -> int | None:
        """The highest sequence ever heard of this node, as far as we remember."""
        known = self._live().get(node)
        if known is not None:
            return known.advert.sequence
        over = self._over.get(node)
        return None if over is None else over[0]

    def repeated(self, signed: Signed, age_ms: int) -> bool:
        """Is it, to the last byte, an advert that counts now, so that it needs no check?

        A copy lengthens its life where it is younger than the first one claimed to be, but never
        past a whole life since we first heard it: whoever hands adverts on can neither cut them
        short for good nor keep them alive.
        """
        known = self._live().get(signed.signer)
        if known is None or known.signed != signed:
            return False
        heard_at = min(self._now_ms() - max(0, age_ms), known.first_heard_at_ms)
        if heard_at > known.heard_at_ms:
            over_at = expires_at(known.advert, heard_at)
            self._put(replace(known, heard_at_ms=heard_at, expires_at_ms=over_at))
        return True

    def advert_of(self, node: NodeId) -> Advert | None:
        """Its advert, if one counts now."""
        known = self._live().get(node)
        return None if known is None else known.advert

    def name_of(self, node: NodeId) -> str:
        """What a node calls itself, printable, on one line; "" where nothing is known."""
        advert = self.advert_of(node)
        return "" if advert is None else cut(advert.name, ADVERT_TEXT_BYTES_MAX)

    def adverts(self) -> Mapping[NodeId, Advert]:
        """Of all who may be asked for something: not of those that cannot be reached."""
        entries = self._live()
        return {
            node: entry.advert for node, entry in entries.items() if node not in self._unreachable
        }

    def nodes(self) -> Sequence[NodeId]:
        """All who have an advert, also those that cannot be reached."""
        return tuple(self._live())

    def listings(self, connected: Container[NodeId]) -> list[Listing]:
        """All adverts for a person to see, in the order of their names."""
        now = self._now_ms()
        listings = [
            Listing(
                entry.node,
                entry.advert,
                now - entry.heard_at_ms,
                entry.node in connected,
                entry.node in self._unreachable,
            )
            for entry in self._live().values()
        ]
        return sorted(listings, key=lambda listing: (listing.advert.name, listing.node))

    def page(self, limit: int = ADVERTS_EXCHANGED_MAX, first: Sequence[Aged] = ()) -> AdvertsPage:
        """At most `limit` adverts, and no more than fit one frame: `first`, then those that live
        longest, each with its age."""
        now = self._now_ms()
        best = heapq.nlargest(
            limit, self._live().values(), key=lambda entry: (entry.expires_at_ms, entry.node)
        )
        adverts: list[Aged] = []
        room = FRAME_BYTES_MAX - ENVELOPE_BYTES
        for aged in (*first, *((now - entry.heard_at_ms, entry.signed) for entry in best)):
            room -= len(aged[1].body) + ENVELOPE_BYTES + 16
            if room < 0 or len(adverts) == limit:
                break
            adverts.append(aged)
        return AdvertsPage(tuple(adverts))

    def lost(self, node: NodeId) -> None:
        """It cannot be reached: nobody should choose it until it is found or heard again."""
        if node in self._live():
            self._unreachable.add(node)

    def found(self, node: NodeId) -> None:
        """It is connected."""
        self._unreachable.discard(node)

    def _live(self) -> dict[NodeId, Entry]:
        """The entries, without what is over."""
        now = self._now_ms()
        while self._expiries and self._expiries[0][0] <= now:
            at, node = heapq.heappop(self._expiries)
            entry = self._entries.get(node)
            if entry is not None and entry.expires_at_ms == at:
                self._end(entry, now)
        while self._over and next(iter(self._over.values()))[1] <= now:
            self._over.popitem(last=False)
        return self._entries

    def _put(self, entry: Entry) -> None:
        self._entries[entry.node] = entry
        heapq.heappush(self._expiries, (entry.expires_at_ms, entry.node))
        if len(self._expiries) > 2 * self._entries_max + 64:
            self._expiries = [(kept.expires_at_ms, kept.node) for kept in self._entries.values()]
            heapq.heapify(self._expiries)

    def _first_to_expire(self) -> Entry:
        while True:
            at, node = self._expiries[0]
            entry = self._entries.get(node)
            if entry is not None and entry.expires_at_ms == at:
                return entry
            heapq.heappop(self._expiries)

    def _end(self, entry: Entry, now: int) -> None:
        """Drop an entry, and remember that what it said before is over."""
        del self._entries[entry.node]
        self._unreachable.discard(entry.node)
        self._over.pop(entry.node, None)
        self._over[entry.node] = (entry.advert.sequence, now + OVER_KEPT_MS)
        if len(self._over) > self._over_max:
            self._over.popitem(last=False)
