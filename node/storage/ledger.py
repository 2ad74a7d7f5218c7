"""The ledger on disk: every money statement is fsynced, in one change with the state it follows
from, before `LedgerStore.write` returns and so before anything leaves (M4)."""

import sqlite3
from collections.abc import Callable
from typing import Final, TypeVar

from node.storage.database import Database
from node.storage.ledger_own import IncomeRow, OwnChains, OwnRecords, State
from protocol.envelope import Signed
from protocol.identity import digest
from protocol.ids import NodeId
from protocol.ledger.certificate import Certified
from protocol.ledger.charter import Charter
from protocol.ledger.decoder import packed
from protocol.ledger.entry import Entry, Pay, sources_of
from protocol.ledger.proof import Breach, Contradiction
from protocol.ledger.witness import Applied

PROOFS_MAX: Final = 4096  # Contradictions: 120 MB at the very most, 3 MB if they are of pays.
PROOFS_PER_ACCOUNT_MAX: Final = 2  # One proves it; a second shows that it goes on.

T = TypeVar("T")


class Records(OwnRecords):
    """All changes of the ledger's tables; they live within one `LedgerStore.write`."""

    def vote(self, signed: Signed, entry: Entry) -> None:
        """Keep what this witness votes for."""
        self._change(
            "INSERT INTO ledger_votes VALUES (?, ?, ?)", entry.account, entry.seq, packed(signed)
        )

    def apply(self, applied: Applied, own: NodeId) -> IncomeRow | None:
        """Keep a certified entry with all that follows from it. The income, where it is one."""
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
                "INSERT INTO ledger_claims VALUES (?, ?, ?, ?)",
                entry.account,
                source.kind,
                source.id,
                entry.seq,
            )
        # What is certified cannot be forgotten any more: asked for the vote again, this witness
        # shows the certificate.
        self._change(
            "DELETE FROM ledger_votes WHERE account = ? AND seq <= ?", entry.account, entry.seq
        )
        self._change("DELETE FROM ledger_shown WHERE id = ?", opened.id)
        if applied.contradiction is not None:
            self.keep_proof(applied.contradiction)
        if entry.account == own:
            self.follow_own(opened)
        return self.income(applied.certified, opened, own) if payee == own else None

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

    def stop(self, stopped: Breach | Certified) -> None:
        """Keep why this node goes no further; the first reason stays."""
        name: State = "breach" if isinstance(stopped, Breach) else "forgot"
        if self.state(name) is None:
            self.set_state(name, packed(stopped))

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
