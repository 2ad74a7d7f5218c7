"""What orders have made owed: by us to providers, and to us by requesters, with what was paid."""

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, Final

from node.storage.database import Database
from node.storage.jobs import Role
from protocol.ids import MessageId, NodeId
from protocol.units import Microcredits

BILLS_REMEMBERED_MAX: Final = 100_000  # As many as jobs. An open bill is never forgotten.
PUTS_PER_TRIM: Final = 100

_NO_REFERENCE = bytes(32)


@dataclass(frozen=True, slots=True)
class Bill:
    """What one order makes owed. Digests, counts and money; never a word of prompt or answer."""

    role: Role  # This node's: a requester owes, a provider is owed.
    order_id: MessageId
    peer: NodeId  # The other side.
    amount: Microcredits
    paid: Microcredits  # Handed to the ledger by a requester; come to a provider, certified.
    receipt_id: MessageId  # b"" where no receipt was made, or the requester disputed it.
    receipt: bytes  # Its canonical bytes, which the id is the digest of; b"" without one.
    provider_signature: bytes
    requester_signature: bytes  # b"" where the requester has not countersigned.
    billed_at_ms: int

    @property
    def open(self) -> Microcredits:
        """What is still to be paid."""
        return Microcredits(self.amount - self.paid)

    @property
    def countersigned(self) -> bool:
        return bool(self.requester_signature)

    @property
    def reference(self) -> MessageId:
        """What the pay of this bill names: the receipt, or without one the order."""
        return self.receipt_id or self.order_id


@dataclass(frozen=True, slots=True)
class Credit:
    """A certified pay to this node."""

    id: MessageId
    payer: NodeId
    reference: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Change:
    """By how much what a requester owes here has changed: in all, and of it what no receipt that
    both have signed is behind."""

    peer: NodeId
    amount: int
    unproven: int


@dataclass(frozen=True, slots=True)
class Put:
    """The bill of an order that stands, and how it changed what is owed to us."""

    bill: Bill
    changes: Sequence[Change]


_COLUMNS = (
    "role, order_id, peer, amount, paid, receipt_id, receipt, provider_signature, "
    "requester_signature, billed_at_ms"
)


class BillStore:
    """Bills on disk. The first bill of an order stands: no order is ever billed twice (M6)."""

    def __init__(self, database: Database, remembered_max: int = BILLS_REMEMBERED_MAX) -> None:
        self._database = database
        self._remembered_max = remembered_max
        self._puts = 0

    async def put(self, bill: Bill) -> Put:
        """Keep a bill; on disk when this returns. A provider's is paid at once with what came for
        it before. Where the order has a bill, that one stands and nothing changes."""
        trim = self._puts % PUTS_PER_TRIM == 0
        self._puts += 1

        def work(connection: sqlite3.Connection) -> Put:
            if trim:
                self._trim(connection)
            added = connection.execute(
                f"INSERT INTO bills ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                astuple(bill),
            ).rowcount
            if not added or bill.role is Role.REQUESTER:
                return Put(_bill_of(connection, bill.role, bill.order_id), ())
            change = _changed(bill, bill.open)
            rows = connection.execute(
                "SELECT id, payer, reference, unused FROM bill_incomes "
                "WHERE reference IN (?, ?) AND unused > 0 ORDER BY id",
                (bill.order_id, bill.reference),
            ).fetchall()
            used = [_use(connection, Credit(*row)) for row in rows]
            changes = [change, *(one for used_up in used for one in used_up)]
            return Put(_bill_of(connection, bill.role, bill.order_id), changes)

        return await self._database.write(work)

    async def handed(self, order_id: MessageId) -> None:
        """The ledger has taken over the payment of what we owe for this order."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE bills SET paid = amount WHERE role = ? AND order_id = ?",
                (Role.REQUESTER, order_id),
            )

        await self._database.write(work)

    async def credit(self, credits: Sequence[Credit]) -> Sequence[Change]:
        """Certified pays have come. Each counts once, however often it is told: for the bill that
        it names, now or when that is made; one that names nothing, for the payer's oldest."""

        def work(connection: sqlite3.Connection) -> list[Change]:
            changes: list[Change] = []
            for credit in credits:
                added = connection.execute(
                    "INSERT INTO bill_incomes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (credit.id, credit.payer, credit.reference, credit.amount, credit.amount),
                ).rowcount
                if added:
                    changes += _use(connection, credit)
            return changes

        return await self._database.write(work)

    async def unpaid(self, role: Role) -> Sequence[Bill]:
        """Bills that are not paid in full, the oldest first."""

        def work(connection: sqlite3.Connection) -> list[Bill]:
            return _bills(connection, "role = ? AND paid < amount", (role,))

        return await self._database.read(work)

    async def bill_of(self, role: Role, order_id: MessageId) -> Bill | None:
        """The bill of an order, if it made anything owed."""

        def work(connection: sqlite3.Connection) -> Bill | None:
            found = _bills(connection, "role = ? AND order_id = ?", (role, order_id))
            return found[0] if found else None

        return await self._database.read(work)

    def _trim(self, connection: sqlite3.Connection) -> None:
        (count,) = connection.execute("SELECT count(*) FROM bills").fetchone()
        if count > self._remembered_max:
            connection.execute(
                "DELETE FROM bills WHERE (role, order_id) IN (SELECT role, order_id FROM bills "
                "WHERE paid = amount ORDER BY billed_at_ms LIMIT ?)",
                (count - self._remembered_max,),
            )


def _use(connection: sqlite3.Connection, credit: Credit) -> list[Change]:
    """Pay bills with a credit; what is left of a named one waits for its bill, and what is left
    of one that names nothing was a gift."""
    left, changes = credit.amount, []
    named = credit.reference != _NO_REFERENCE
    where = "? IN (order_id, receipt_id)" if named else "peer = ?"
    wanted = credit.reference if named else credit.payer
    values = (Role.PROVIDER, wanted)
    for bill in _bills(connection, f"role = ? AND paid < amount AND {where}", values):
        part = min(left, bill.open)
        if not part:
            break
        left -= part
        connection.execute(
            "UPDATE bills SET paid = paid + ? WHERE role = ? AND order_id = ?",
            (part, bill.role, bill.order_id),
        )
        changes.append(_changed(bill, -part))
    unused = left if named else 0
    connection.execute("UPDATE bill_incomes SET unused = ? WHERE id = ?", (unused, credit.id))
    return changes


def _changed(bill: Bill, amount: int) -> Change:
    return Change(bill.peer, amount, 0 if bill.countersigned else amount)


def _bill_of(connection: sqlite3.Connection, role: Role, order_id: MessageId) -> Bill:
    (bill,) = _bills(connection, "role = ? AND order_id = ?", (role, order_id))
    return bill


def _bills(connection: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> list[Bill]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM bills WHERE {where} ORDER BY billed_at_ms, order_id", values
    )
    return [replace(Bill(*row), role=Role(row[0])) for row in rows]
