"""Peers that this node has met, and the sequence number of its own adverts."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from node.storage.database import Database
from protocol.ids import NodeId
from protocol.limits import (
    ADDRESS_BYTES_MAX,
    ADVERT_ADDRESSES_MAX,
    ADVERT_BYTES_MAX,
    PEERS_REMEMBERED_MAX,
)


@dataclass(frozen=True, slots=True)
class RememberedPeer:
    """A peer as it was when last seen."""

    node: NodeId
    addresses: tuple[str, ...]
    advert: bytes  # The signed bytes, checked again when they are read; b"" when none came.
    seen_at_ms: int
    failures: int  # Dials that failed since it was last seen.


class PeerStore:
    """At most PEERS_REMEMBERED_MAX peers: whoever was seen longest ago is forgotten first."""

    def __init__(self, database: Database, remembered_max: int = PEERS_REMEMBERED_MAX) -> None:
        self._database = database
        self._remembered_max = remembered_max

    async def remember(
        self, node: NodeId, addresses: Sequence[str], advert: bytes, now_ms: int
    ) -> None:
        """This peer was seen now; its failures are forgiven."""
        assert len(addresses) <= ADVERT_ADDRESSES_MAX
        assert all(len(address.encode()) <= ADDRESS_BYTES_MAX for address in addresses)
        assert len(advert) <= ADVERT_BYTES_MAX
        row = (node, json.dumps(list(addresses)), advert, now_ms)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO peers VALUES (?, ?, ?, ?, 0)", row)
            (count,) = connection.execute("SELECT count(*) FROM peers").fetchone()
            if count > self._remembered_max:
                connection.execute(
                    "DELETE FROM peers WHERE node IN "
                    "(SELECT node FROM peers ORDER BY seen_at_ms LIMIT ?)",
                    (count - self._remembered_max,),
                )

        await self._database.write(work)

    async def failed(self, node: NodeId) -> None:
        """A dial of this peer failed; an unknown one stays unknown."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE peers SET failures = failures + 1 WHERE node = ?", (node,))

        await self._database.write(work)

    async def forget(self, node: NodeId) -> None:
        """Drop what is known of a peer, if anything is."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM peers WHERE node = ?", (node,))

        await self._database.write(work)

    async def best(self, limit: int) -> list[RememberedPeer]:
        """Whom to dial first: the fewest failures, then the last seen."""

        def work(connection: sqlite3.Connection) -> list[RememberedPeer]:
            rows = connection.execute(
                "SELECT node, addresses, advert, seen_at_ms, failures FROM peers "
                "ORDER BY failures, seen_at_ms DESC, node LIMIT ?",
                (limit,),
            )
            return [
                RememberedPeer(NodeId(node), tuple(json.loads(addresses)), advert, seen, failures)
                for node, addresses, advert, seen, failures in rows
            ]

        return await self._database.read(work)

    async def next_sequence(self, now_ms: int) -> int:
        """A number for our next advert that is larger than every one before, also after a crash
        or with a clock set back: max(stored + 1, now)."""

        def work(connection: sqlite3.Connection) -> int:
            (sequence,) = connection.execute(
                "INSERT INTO counters VALUES ('advert', ?) ON CONFLICT (name) "
                "DO UPDATE SET value = max(value + 1, excluded.value) RETURNING value",
                (now_ms,),
            ).fetchone()
            assert isinstance(sequence, int)
            return sequence

        return await self._database.write(work)
