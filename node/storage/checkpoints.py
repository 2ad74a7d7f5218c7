"""Checkpoints of chains on disk, the states that they stand for, and pruning what is before them.

What a pruned chain keeps: its state, the ids of all its entries, and those entries that somebody
still needs (pays and fees that are not claimed, channels that are not taken out to the last).
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from node.storage.database import Database
from node.storage.ledger_chains import Chains
from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.account import Account
from protocol.ledger.certificate import Certified, certified_decoded
from protocol.ledger.charter import Charter
from protocol.ledger.checkpoint import (
    OPENED,
    Checkpoint,
    Checkpointed,
    Holding,
    HoldingsPage,
    checkpoint_of,
    checkpointed_decoded,
)
from protocol.ledger.decoder import packed
from protocol.ledger.entry import EARNED, FEE, PAY, REST, Entry, Open, Pay, TopUp, entry_read
from protocol.limits import CHECKPOINT_HOLDINGS_MAX, CHECKPOINT_PAGE_HOLDINGS, SEQ_MAX

PRUNED_AT_ONCE: Final = 64  # Entries in one change: 5 ms, during which no other is written.

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept:
    """The newest checkpoint of a chain here."""

    checkpointed: Checkpointed
    pruned: int  # Up to this seq the entries that nobody needs are gone.


@dataclass(frozen=True, slots=True)
class Pruned:
    """How much history is gone."""

    checkpoints: int
    entries_pruned: int


class CheckpointStore:
    """The checkpoints of one node. All methods are called from the one trio thread; all raise
    LocalError UNAVAILABLE when the disk fails."""

    def __init__(self, database: Database, charter: Charter, node: NodeId) -> None:
        self._database, self._charter, self._node = database, charter, node

    async def _read(self, work: Callable[[Chains], T]) -> T:
        def at_once(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN")
            try:
                return work(Chains(connection, self._charter))
            finally:
                connection.execute("ROLLBACK")

        return await self._database.read(at_once)

    async def due(self, entries_min: int, limit: int) -> Sequence[Account]:
        """Chains of others that have grown so much since their checkpoint, or are not pruned up to
        it yet; the longest first."""

        def work(connection: sqlite3.Connection) -> Sequence[Account]:
            rows = connection.execute(
                "SELECT account, one.seq, head, balance FROM ledger_accounts AS one "
                "LEFT JOIN ledger_checkpoints AS kept USING (account) WHERE account != ? "
                "AND one.seq - coalesce(kept.pruned, 0) >= ? ORDER BY one.seq DESC LIMIT ?",
                (self._node, entries_min, limit),
            )
            return [Account(*row) for row in rows]

        return await self._database.read(work)

    async def statement(self, account: NodeId, seq: int) -> Checkpoint:
        """What this node says of a chain after entry `seq`.

        Raises RemoteError NOT_FOUND where the chain is not here, not so far, or no longer.
        """

        def work(chains: Chains) -> Checkpoint:
            state = state_at(chains, account, seq)
            return checkpoint_of(state, holdings_at(chains, account, seq))

        return await self._read(work)

    async def kept(self, account: NodeId) -> Kept | None:
        """The newest checkpoint of a chain, if there is one."""
        return await self._database.read(lambda connection: _kept(connection, account))

    async def page(self, account: NodeId, skip: int) -> HoldingsPage:
        """A page of the state at the newest checkpoint. Raises RemoteError NOT_FOUND."""

        def work(chains: Chains) -> HoldingsPage:
            kept = _kept(chains.connection, account)
            if kept is None:
                raise RemoteError(Code.NOT_FOUND, "No checkpoint of this account is kept here.")
            seq, limit = kept.checkpointed.checkpoint.seq, CHECKPOINT_PAGE_HOLDINGS
            page = holdings_at(chains, account, seq, skip=skip, limit=limit)
            return HoldingsPage(kept.checkpointed, tuple(page))

        return await self._read(work)

    async def keep(self, checkpointed: Checkpointed) -> None:
        """Keep a checkpoint, its seals checked, of a chain that is here; an older one stays out."""

        def work(connection: sqlite3.Connection) -> None:
            checkpoint = checkpointed.checkpoint
            connection.execute(
                "INSERT INTO ledger_checkpoints VALUES (?, ?, 0, ?) ON CONFLICT (account) "
                "DO UPDATE SET seq = excluded.seq, checkpoint = excluded.checkpoint "
                "WHERE excluded.seq > ledger_checkpoints.seq",
                (checkpoint.account, checkpoint.seq, packed(checkpointed)),
            )

        await self._database.write(work)

    async def prune(self, account: NodeId, after_seq: int) -> int:
        """Drop some of what is before the checkpoint and nobody needs, after this seq. Where to go
        on; 0 when that was all. Safe to be cut anywhere: what is left is pruned the next time."""
        return await self._database.write(
            lambda connection: _prune(Chains(connection, self._charter), account, after_seq)
        )

    async def adopt(self, checkpointed: Checkpointed, holdings: Iterable[Holding]) -> bool:
        """Go on from a checkpoint, seals and holdings checked, where this node has nothing of the
        chain or less; whether it did."""

        def work(connection: sqlite3.Connection) -> bool:
            chains = Chains(connection, self._charter)
            checkpoint = checkpointed.checkpoint
            if chains.account(checkpoint.account).seq >= checkpoint.seq:
                return False
            _adopt(connection, checkpointed, holdings)
            if checkpoint.account == self._node:
                # This journal is older than its chain. An entry that it holds for one of those
                # places is certified there, or never will be: to send it again leads nowhere.
                connection.execute("INSERT OR IGNORE INTO ledger_state VALUES ('restored', X'')")
                connection.execute("DELETE FROM ledger_pending WHERE seq <= ?", (checkpoint.seq,))
            return True

        return await self._database.write(work)

    async def fill(self, entries: Sequence[tuple[Certified, Opened[Entry]]]) -> None:
        """Keep certified entries from before a checkpoint that was adopted, all checked."""
        await self._database.write(lambda connection: _filled(connection, entries))

    async def figures(self) -> Pruned:
        """For people."""

        def work(connection: sqlite3.Connection) -> Pruned:
            (checkpoints,) = connection.execute(
                "SELECT count(*) FROM ledger_checkpoints"
            ).fetchone()
            (pruned,) = connection.execute("SELECT count(*) FROM ledger_pruned").fetchone()
            return Pruned(checkpoints, pruned)

        return await self._database.read(work)


def state_at(chains: Chains, account: NodeId, seq: int) -> Account:
    """What a chain added up to after entry `seq`. Raises RemoteError NOT_FOUND."""
    now = chains.account(account)
    if seq == now.seq:
        return now
    certified = chains.certified(account, seq) if 0 < seq < now.seq else None
    kept = _kept(chains.connection, account)
    if certified is None or (kept is not None and seq < kept.checkpointed.checkpoint.seq):
        raise RemoteError(Code.NOT_FOUND, f"Entry {seq} of this account is not here.")
    opened = entry_read(certified.entry, chains.charter.network)
    return Account(account, seq, opened.id, opened.value.balance)


def holdings_at(
    chains: Chains, account: NodeId, seq: int, *, skip: int = 0, limit: int = -1
) -> Iterator[Holding]:
    """What a chain held after entry `seq`, in order. The entries after `seq` must be here.

    Raises RemoteError NOT_FOUND for more than a checkpoint is made of.
    """
    connection = chains.connection
    (count,) = connection.execute(
        "SELECT (SELECT count(*) FROM ledger_claims WHERE account = ?1) + "
        "(SELECT count(*) FROM ledger_channels WHERE payer = ?1)",
        (account,),
    ).fetchone()
    if count > CHECKPOINT_HOLDINGS_MAX:
        raise RemoteError(Code.NOT_FOUND, "This chain holds more than a checkpoint can show.")
    added = _added_since(chains, account, seq)
    rows = connection.execute(
        "SELECT kind, source AS id, amount FROM ledger_claims WHERE account = ?1 AND seq <= ?2 "
        f"UNION ALL SELECT '{OPENED}', id, funding FROM ledger_channels WHERE payer = ?1 "
        "AND id NOT IN (SELECT id FROM ledger_entries WHERE account = ?1 AND seq > ?2) "
        "ORDER BY 1, 2 LIMIT ?3 OFFSET ?4",
        (account, seq, limit, skip),
    )
    return (
        Holding(kind, id_, amount - (added.get(id_, 0) if kind == OPENED else 0))
        for kind, id_, amount in rows
    )


def _added_since(chains: Chains, account: NodeId, seq: int) -> dict[MessageId, int]:
    """What was added to any channel after entry `seq`."""
    added = dict[MessageId, int]()
    for certified in chains.chain(account, seq + 1, SEQ_MAX):
        body = entry_read(certified.entry, chains.charter.network).value.body
        if isinstance(body, TopUp):
            added[body.channel] = added.get(body.channel, 0) + body.amount
    return added


def _kept(connection: sqlite3.Connection, account: NodeId) -> Kept | None:
    row = connection.execute(
        "SELECT checkpoint, pruned FROM ledger_checkpoints WHERE account = ?", (account,)
    ).fetchone()
    return None if row is None else Kept(checkpointed_decoded(row[0]), row[1])


def _prune(chains: Chains, account: NodeId, after_seq: int) -> int:
    connection = chains.connection
    kept = _kept(connection, account)
    if kept is None:
        return 0
    last = kept.checkpointed.checkpoint.seq
    connection.execute(
        "UPDATE ledger_checkpoints SET pruned = max(pruned, 1) WHERE account = ?", (account,)
    )
    rows = connection.execute(
        "SELECT seq, certified FROM ledger_entries WHERE account = ? AND seq > ? AND seq < ? "
        "ORDER BY seq LIMIT ?",
        (account, after_seq, last, PRUNED_AT_ONCE),  # The head itself stays.
    ).fetchall()
    for seq, data in rows:
        signed = certified_decoded(data).entry
        opened = entry_read(signed, chains.charter.network)
        if _is_needed(connection, opened.id, opened.value, last):
            continue
        connection.execute(
            "DELETE FROM ledger_entries WHERE account = ? AND seq = ?", (account, seq)
        )
        connection.execute("INSERT OR IGNORE INTO ledger_pruned VALUES (?)", (opened.id,))
    if rows:
        return int(rows[-1][0])
    connection.execute(
        "UPDATE ledger_checkpoints SET pruned = seq WHERE account = ? AND seq = ?", (account, last)
    )
    return 0


def _is_needed(
    connection: sqlite3.Connection, entry_id: MessageId, entry: Entry, last_seq: int
) -> bool:
    """Whether somebody has yet to claim by this entry's certificate, or its own chain does so
    after the checkpoint."""

    def claimed(*kinds: str, source: MessageId = entry_id) -> int:
        (total,) = connection.execute(
            "SELECT coalesce(sum(amount), 0) FROM ledger_claims WHERE source = ? AND kind IN "
            f"({', '.join('?' * len(kinds))})",
            (source, *kinds),
        ).fetchone()
        return int(total)

    if entry.fee and not claimed(FEE):
        return True
    match entry.body:
        case Pay():
            return not claimed(PAY)
        case Open():
            channel = entry_id
        case TopUp(topped):
            channel = topped
        case _:
            return False
    (funding,) = connection.execute(
        "SELECT funding FROM ledger_channels WHERE id = ?", (channel,)
    ).fetchone()
    later = connection.execute(
        "SELECT 1 FROM ledger_claims WHERE account = ? AND kind = ? AND source = ? AND seq > ?",
        (entry.account, REST, channel, last_seq),
    ).fetchone()
    if later is not None or claimed(EARNED, REST, source=channel) < int(funding):
        return True
    # The payer of a channel to us may have taken it all, and we have not heard how it was settled:
    # who asks for that, and who is told, needs its entries.
    ours = connection.execute(
        "SELECT 1 FROM ledger_own_channels AS own WHERE id = ? AND NOT EXISTS "
        "(SELECT 1 FROM ledger_settlements WHERE channel = own.id)",
        (channel,),
    ).fetchone()
    return ours is not None


def _adopt(
    connection: sqlite3.Connection, checkpointed: Checkpointed, holdings: Iterable[Holding]
) -> None:
    """What is here of the chain stays: it was verified, and its ids are those that were sealed."""
    checkpoint = checkpointed.checkpoint
    account, seq = checkpoint.account, checkpoint.seq
    connection.execute("DELETE FROM ledger_votes WHERE account = ? AND seq <= ?", (account, seq))
    connection.execute(
        "INSERT OR REPLACE INTO ledger_accounts VALUES (?, ?, ?, ?)",
        (account, seq, checkpoint.head, checkpoint.balance),
    )
    for one in holdings:
        if one.kind == OPENED:
            connection.execute(
                "INSERT OR REPLACE INTO ledger_channels VALUES (?, ?, ?)",
                (one.id, account, one.amount),
            )
        else:
            connection.execute(
                "INSERT OR IGNORE INTO ledger_claims VALUES (?, ?, ?, ?, ?)",
                (account, one.kind, one.id, seq, one.amount),
            )
    connection.execute(
        "INSERT OR REPLACE INTO ledger_checkpoints VALUES (?, ?, ?, ?)",
        (account, seq, seq, packed(checkpointed)),
    )


def _filled(
    connection: sqlite3.Connection, entries: Iterable[tuple[Certified, Opened[Entry]]]
) -> None:
    for certified, opened in entries:
        entry, pay = opened.value, opened.value.body
        payee, amount = (pay.to, pay.amount) if isinstance(pay, Pay) else (None, None)
        connection.execute(
            "INSERT OR IGNORE INTO ledger_entries SELECT ?, ?, ?, ?, ?, ?, ? "
            "FROM ledger_checkpoints WHERE account = ? AND seq >= ?",
            (
                *(entry.account, entry.seq, opened.id, payee, amount, entry.fee),
                *(packed(certified), entry.account, entry.seq),
            ),
        )
        connection.execute("DELETE FROM ledger_shown WHERE id = ?", (opened.id,))
