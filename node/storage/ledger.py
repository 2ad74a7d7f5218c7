"""The ledger on disk: every money statement is fsynced, in one change with the state it follows
from, before `LedgerStore.write` returns and so before anything leaves (M4)."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from node.storage.database import Database
from node.storage.ledger_own import IncomeRow, OwnChains, OwnRecords, State
from protocol.envelope import Opened, Signed
from protocol.identity import digest
from protocol.ids import MessageId, NodeId
from protocol.ledger.charter import Charter
from protocol.ledger.decoder import packed
from protocol.ledger.entry import FEE, PAY, Entry, Open, Pay, TopUp, sources_of
from protocol.ledger.proof import Breach, Contradiction
from protocol.ledger.settlement import Seat
from protocol.ledger.statement import Settlement
from protocol.ledger.witness import Applied, Stopped, VotesLost

PROOFS_MAX: Final = 4096  # Contradictions: 120 MB at the very most, 3 MB if they are of pays.
PROOFS_PER_ACCOUNT_MAX: Final = 2  # One proves it; a second shows that it goes on.

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Brought:
    """What a certified entry has brought this node."""

    incomes: list[IncomeRow | None]  # None: it was known before.
    channels: list[MessageId]  # Of its own, that may have changed.


class Records(OwnRecords):
    """All changes of the ledger's tables; they live within one `LedgerStore.write`."""

    def vote(self, signed: Signed, entry: Entry) -> None:
        """Keep what this witness votes for."""
        self._change(
            "INSERT INTO ledger_votes VALUES (?, ?, ?)", entry.account, entry.seq, packed(signed)
        )

    def apply(self, applied: Applied, own: NodeId) -> Brought:
        """Keep a certified entry with all that follows from it."""
        opened, account = applied.opened, applied.account
        entry, pay = opened.value, opened.value.body
        payee, amount = (pay.to, pay.amount) if isinstance(pay, Pay) else (None, None)
        data = packed(applied.certified)
        self._change(
            "INSERT INTO ledger_entries VALUES (?, ?, ?, ?, ?, ?, ?)",
            entry.account,
            entry.seq,
            opened.id,
            payee,
            amount,
            entry.fee,
            data,
        )
        self._change(
            "INSERT OR REPLACE INTO ledger_accounts VALUES (?, ?, ?, ?)",
            account.account,
            account.seq,
            account.head,
            account.balance,
        )
        for source in sources_of(entry):
            self._change(
                "INSERT INTO ledger_claims VALUES (?, ?, ?, ?, ?)",
                entry.account,
                source.kind,
                source.id,
                entry.seq,
                source.amount,
            )
        self._follow_channel(opened)
        # What is certified cannot be forgotten any more: asked for the vote again, this witness
        # shows the certificate.
        self._change(
            "DELETE FROM ledger_votes WHERE account = ? AND seq <= ?", entry.account, entry.seq
        )
        self._change("DELETE FROM ledger_shown WHERE id = ?", opened.id)
        if applied.contradiction is not None:
            self.keep_proof(applied.contradiction)
        brought = self.brought(opened, own)
        if entry.account == own:
            brought.channels.extend(self.follow_own(opened))
        return brought

    def brought(self, opened: Opened[Entry], own: NodeId) -> Brought:
        """Keep what a certified entry, which is here, means for this node: a pay to it, the fee
        that is its own as a witness, a channel of its own. A repeat changes nothing."""
        entry, brought = opened.value, Brought([], [])
        if isinstance(entry.body, Pay) and entry.body.to == own:
            brought.incomes.append(self.income(PAY, opened, own))
        if entry.fee and self.charter.fee_owner(opened.id) == own:
            brought.incomes.append(self.income(FEE, opened, own))
        channel = self.fund(opened, own)
        if channel is not None:
            self.share(channel, own)
            brought.channels.append(channel)
        return brought

    def settle(self, settlement: Settlement, own: NodeId) -> bool:
        """Keep a checked settlement with all that follows from it; whether it is new."""
        is_new = self.keep_settlement(settlement)
        if is_new:
            self.share(settlement.channel, own)
        return is_new

    def keep_seat(self, channel: MessageId, seat: Seat) -> None:
        """Keep what this witness is about to say of a channel that is not settled."""
        self._change("INSERT OR REPLACE INTO ledger_seats VALUES (?, ?)", channel, packed(seat))

    def _follow_channel(self, opened: Opened[Entry]) -> None:
        """What a chain moves into its channels, beside the chain."""
        entry = opened.value
        match entry.body:
            case Open(_, deposit):
                self._change(
                    "INSERT INTO ledger_channels VALUES (?, ?, ?)",
                    opened.id,
                    entry.account,
                    deposit,
                )
            case TopUp(channel, amount):
                self._change(
                    "UPDATE ledger_channels SET funding = funding + ? WHERE id = ?", amount, channel
                )

    def keep_proof(self, proof: Contradiction | Breach) -> bool:
        """Whether the proof is new here and was kept. Of accounts that have never had a credit
        none is kept: whoever floods us with proofs must at least have been paid for each key."""
        is_breach = isinstance(proof, Breach)
        account = proof_account(proof)
        if not is_breach and not self.may_keep(account):
            return False
        data = packed(proof)
        return self._change(
            "INSERT INTO ledger_proofs (digest, account, is_breach, is_read, proof) "
            "VALUES (?, ?, ?, 0, ?) ON CONFLICT DO NOTHING",
            digest(data),
            account,
            is_breach,
            data,
        )

    def may_keep(self, account: NodeId) -> bool:
        """Whether there is room for another contradiction of an account."""
        known = self.account(account).seq > 0 or account in self.charter.allocations
        kept = self._count("SELECT count(*) FROM ledger_proofs WHERE NOT is_breach")
        return known and kept < PROOFS_MAX and self.proofs_of(account) < PROOFS_PER_ACCOUNT_MAX

    def stop(self, stopped: Stopped) -> None:
        """Keep why this node goes no further; the first reason stays."""
        name: State = "breach" if isinstance(stopped, Breach) else "forgot"
        if self.state(name) is None:
            self.set_state(name, b"" if isinstance(stopped, VotesLost) else packed(stopped))

    def keeps_no_votes(self) -> None:
        """This node is no witness: a database that was made anew has lost no votes."""
        self._change("DELETE FROM ledger_state WHERE name = 'forgot' AND value = X''")

    def mark_read(self) -> None:
        """The owner has read all proofs of breaches, and goes on in spite of them."""
        self._change("UPDATE ledger_proofs SET is_read = 1 WHERE is_breach")


class LedgerStore:
    """The ledger of one node in its database. All methods are called from the one trio thread."""

    def __init__(self, database: Database, charter: Charter) -> None:
        self._database = database
        self._charter = charter

    async def read(self, work: Callable[[OwnChains], T]) -> T:
        """What `work` returns, all it reads being of one moment; it runs in a reader's thread, so
        it may take its time. Raises what it raises; LocalError UNAVAILABLE when the disk fails."""

        def at_once(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN")
            try:
                return work(OwnChains(connection, self._charter))
            finally:
                connection.execute("ROLLBACK")

        return await self._database.read(at_once)

    async def write(self, work: Callable[[Records], T]) -> T:
        """Run one change, whole or not at all; it is on disk when this returns what it returned.

        Raises as `Database.write`.
        """
        return await self._database.write(
            lambda connection: work(Records(connection, self._charter))
        )


def proof_account(proof: Contradiction | Breach) -> NodeId:
    """Whose chain a proof is about."""
    return (
        proof.first.signer if isinstance(proof, Contradiction) else proof.certified[0].entry.signer
    )
