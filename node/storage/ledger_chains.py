"""Queries of the ledger's tables, for one connection and one moment: what `Chains` promises."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from protocol.envelope import Signed
from protocol.ids import MessageId, NodeId
from protocol.ledger.account import Account, opening
from protocol.ledger.certificate import Certified, certified_decoded
from protocol.ledger.charter import Charter
from protocol.ledger.decoder import Decoder
from protocol.ledger.entry import SourceKey
from protocol.ledger.proof import Breach, Contradiction, breach_decoded, contradiction_decoded
from protocol.ledger.settlement import Seat, seat_decoded
from protocol.ledger.statement import Settlement
from protocol.ledger.witness import Stopped, VotesLost
from protocol.limits import CERTIFIED_BYTES_MAX, PREPARED_BYTES_MAX

ROWS_AT_ONCE: Final = 256  # Of a long walk: a quarter of a MiB.

# Claims of what neither stands in its chain here, nor was pruned, nor is covered by a checkpoint.
_UNSEEN: Final = (
    "NOT EXISTS (SELECT 1 FROM ledger_entries WHERE id = claim.source) "
    "AND NOT EXISTS (SELECT 1 FROM ledger_pruned WHERE id = claim.source) "
    "AND NOT EXISTS (SELECT 1 FROM ledger_checkpoints AS kept "
    "WHERE kept.account = claim.account AND kept.pruned >= claim.seq)"
)
_SIGNED: Final = Decoder(Signed, CERTIFIED_BYTES_MAX)
_SETTLEMENTS: Final = Decoder(Settlement, PREPARED_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Stamp:
    """All that a decision about one entry was made on. The head pins the chain before it, claims
    included; so a decision holds for as long as this does."""

    account: Account
    voted: MessageId | None
    is_stopped: bool


@dataclass(frozen=True, slots=True)
class Totals:
    """What M2 sums over the chains that are here; amounts are microcredits."""

    accounts: int
    entries: int
    balances: int  # What accounts without an entry were allocated is in it.
    pays_unclaimed: int
    channel_funds: int  # Moved into channels and not taken out by either party.
    fees: int  # That no witness has claimed.
    sources_missing: int  # Claimed entries whose own chain is not here, or not so far.


class Chains:
    """What is stored, seen through one connection; of one moment inside `LedgerStore.read`."""

    def __init__(self, connection: sqlite3.Connection, charter: Charter) -> None:
        self._connection = connection
        self.charter = charter

    @property
    def connection(self) -> sqlite3.Connection:
        """For queries about tables of another module's."""
        return self._connection

    # What the witness's machine reads.

    def account(self, account: NodeId) -> Account:
        """As `protocol.ledger.witness.Chains`."""
        row = self._row("SELECT seq, head, balance FROM ledger_accounts WHERE account = ?", account)
        return opening(self.charter, account) if row is None else Account(account, *row)

    def claimed_at(self, account: NodeId, source: SourceKey) -> int | None:
        """As `protocol.ledger.witness.Chains`."""
        row = self._row(
            "SELECT seq FROM ledger_claims WHERE account = ? AND kind = ? AND source = ?",
            account,
            *source,
        )
        return None if row is None else row[0]

    def certified(self, account: NodeId, seq: int) -> Certified | None:
        """As `protocol.ledger.witness.Chains`."""
        row = self._row(
            "SELECT certified FROM ledger_entries WHERE account = ? AND seq = ?", account, seq
        )
        return None if row is None else certified_decoded(row[0])

    def voted(self, account: NodeId, seq: int) -> Signed | None:
        """As `protocol.ledger.witness.Chains`: a vote is dropped when its seq is certified."""
        row = self._row(
            "SELECT entry FROM ledger_votes WHERE account = ? AND seq = ?", account, seq
        )
        return None if row is None else signed_decoded(row[0])

    def stopped(self) -> Stopped | None:
        """As `protocol.ledger.witness.Chains`."""
        row = self._row(
            "SELECT name, value FROM ledger_state WHERE name IN ('breach', 'forgot') "
            "ORDER BY name LIMIT 1"
        )
        if row is None:
            return None
        if row[0] == "breach":
            return breach_decoded(row[1])
        return certified_decoded(row[1]) if row[1] else VotesLost()

    def funding(self, account: NodeId, channel: MessageId) -> int | None:
        """As `protocol.ledger.witness.Chains`."""
        row = self._row(
            "SELECT funding FROM ledger_channels WHERE id = ? AND payer = ?", channel, account
        )
        return None if row is None else row[0]

    def settlement(self, channel: MessageId) -> Settlement | None:
        """As `protocol.ledger.witness.Chains`."""
        row = self._row("SELECT settlement FROM ledger_settlements WHERE channel = ?", channel)
        return None if row is None else _SETTLEMENTS.decode(row[0])

    def seat(self, channel: MessageId) -> Seat:
        """As `protocol.ledger.witness.Chains`."""
        row = self._row("SELECT seat FROM ledger_seats WHERE channel = ?", channel)
        return Seat() if row is None else seat_decoded(row[0])

    # What answers and views are made of.

    def stamp(self, account: NodeId, seq: int) -> Stamp:
        """What a decision about entry `seq` of an account stands on."""
        voted = self.voted(account, seq)
        return Stamp(
            self.account(account), None if voted is None else voted.id, self.stopped() is not None
        )

    def state(self, name: str) -> bytes | None:
        """What is kept under a name, if anything is."""
        row = self._row("SELECT value FROM ledger_state WHERE name = ?", name)
        return None if row is None else row[0]

    def is_final(self, entry: MessageId) -> bool:
        """Whether an entry stands in its chain, also when it is pruned."""
        return (
            self._row(
                "SELECT 1 FROM ledger_entries WHERE id = ?1 "
                "UNION ALL SELECT 1 FROM ledger_pruned WHERE id = ?1",
                entry,
            )
            is not None
        )

    def certified_by_id(self, entry: MessageId) -> Certified | None:
        """A certified entry, also one whose place in its chain has not come yet."""
        row = self._row(
            "SELECT certified FROM ledger_entries WHERE id = ? "
            "UNION ALL SELECT certified FROM ledger_shown WHERE id = ?",
            entry,
            entry,
        )
        return None if row is None else certified_decoded(row[0])

    def chain(self, account: NodeId, first_seq: int, limit: int) -> Iterator[Certified]:
        """Certified entries of one account in order."""
        for (data,) in self._walk(
            "SELECT certified FROM ledger_entries WHERE account = ? AND seq >= ? "
            "ORDER BY seq LIMIT ?",
            account,
            first_seq,
            limit,
        ):
            yield certified_decoded(data)

    def accounts(self, after: bytes, limit: int) -> Sequence[Account]:
        """Accounts that have entries, in the order of their keys, after one."""
        rows = self._walk(
            "SELECT account, seq, head, balance FROM ledger_accounts WHERE account > ? "
            "ORDER BY account LIMIT ?",
            after,
            limit,
        )
        return [Account(*row) for row in rows]

    def head(self, account: NodeId) -> Certified | None:
        """The last certified entry of an account."""
        return self.certified(account, self.account(account).seq)

    def proofs(self, skip: int, limit: int) -> Sequence[Contradiction | Breach]:
        """Proofs in the order in which they became known."""
        rows = self._walk(
            "SELECT is_breach, proof FROM ledger_proofs ORDER BY number LIMIT ? OFFSET ?",
            limit,
            skip,
        )
        return [
            breach_decoded(data) if kind else contradiction_decoded(data) for kind, data in rows
        ]

    def proofs_of(self, account: NodeId) -> int:
        """How many contradictions are kept of an account."""
        return self._count(
            "SELECT count(*) FROM ledger_proofs WHERE account = ? AND NOT is_breach", account
        )

    def contradicted(self) -> Sequence[NodeId]:
        """The accounts of which a contradiction is kept."""
        rows = self._walk("SELECT DISTINCT account FROM ledger_proofs WHERE NOT is_breach")
        return [NodeId(account) for (account,) in rows]

    def is_read(self, digest: bytes) -> bool:
        """Whether the owner has gone on in spite of this breach."""
        row = self._row("SELECT is_read FROM ledger_proofs WHERE digest = ?", digest)
        return row is not None and bool(row[0])

    def sources_missing(self, limit: int) -> Sequence[MessageId]:
        """Claimed entries of which nothing is here."""
        rows = self._walk(
            f"SELECT DISTINCT source FROM ledger_claims AS claim WHERE {_UNSEEN} AND NOT EXISTS "
            "(SELECT 1 FROM ledger_shown WHERE id = claim.source) LIMIT ?",
            limit,
        )
        return [row[0] for row in rows]

    def settlements_missing(self, limit: int) -> Sequence[MessageId]:
        """Channels from which something was claimed, and whose settlement is not here."""
        rows = self._walk(
            "SELECT DISTINCT source FROM ledger_claims AS claim WHERE kind IN ('earned', 'rest') "
            "AND NOT EXISTS (SELECT 1 FROM ledger_settlements WHERE channel = claim.source) "
            "LIMIT ?",
            limit,
        )
        return [row[0] for row in rows]

    def sources_ahead(self, limit: int) -> Sequence[tuple[NodeId, int]]:
        """Account and seq of shown entries, whose chains have not come so far."""
        return list(
            self._walk("SELECT account, max(seq) FROM ledger_shown GROUP BY 1 LIMIT ?", limit)
        )

    def totals(self) -> Totals:
        """Adds up all chains that are here: a walk over the tables, for a reader's thread."""
        accounts, balances = self._sum("SELECT balance FROM ledger_accounts")
        for account, amount in self.charter.allocations.items():
            if not self.account(account).seq:
                accounts, balances = accounts + 1, balances + amount
        _, unclaimed = self._sum(
            "SELECT amount FROM ledger_entries AS pay WHERE payee IS NOT NULL AND NOT EXISTS "
            "(SELECT 1 FROM ledger_claims WHERE source = pay.id AND account = pay.payee "
            "AND kind = 'pay')"
        )
        _, funds = self._sum("SELECT funding FROM ledger_channels")
        _, shares = self._sum(
            "SELECT amount FROM ledger_claims AS claim WHERE kind IN ('earned', 'rest') "
            "AND EXISTS (SELECT 1 FROM ledger_channels WHERE id = claim.source)"
        )
        entries, fees = self._sum("SELECT fee FROM ledger_entries")
        _, fees_taken = self._sum(
            "SELECT amount FROM ledger_claims AS claim WHERE kind = 'fee' "
            "AND EXISTS (SELECT 1 FROM ledger_entries WHERE id = claim.source)"
        )
        missing = self._count(f"SELECT count(*) FROM ledger_claims AS claim WHERE {_UNSEEN}")
        return Totals(
            accounts=accounts,
            entries=entries,
            balances=balances,
            pays_unclaimed=unclaimed,
            channel_funds=funds - shares,
            fees=fees - fees_taken,
            sources_missing=missing,
        )

    # How it is asked.

    def _row(self, query: str, *values: Any) -> Any:
        return self._connection.execute(query, values).fetchone()

    def _count(self, query: str, *values: Any) -> int:
        (count,) = self._row(query, *values)
        assert isinstance(count, int)
        return count

    def _walk(self, query: str, *values: Any) -> Iterator[Any]:
        cursor = self._connection.execute(query, values)
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            yield from rows

    def _sum(self, query: str, *values: Any) -> tuple[int, int]:
        """How many numbers a query gives, and their sum: in halves, since the whole of it may be
        more than the 64 bits that SQLite adds in."""
        count, high, low = self._row(
            "SELECT count(*), coalesce(sum(number >> 32), 0), "
            f"coalesce(sum(number & 4294967295), 0) FROM (SELECT 0 AS number WHERE 0 "
            f"UNION ALL {query})",
            *values,
        )
        return count, (high << 32) + low


def settlement_decoded(data: bytes) -> Settlement:
    """A settlement as this node has stored it."""
    return _SETTLEMENTS.decode(data)


def signed_decoded(data: bytes) -> Signed:
    """An envelope as this node has stored it."""
    return _SIGNED.decode(data)
