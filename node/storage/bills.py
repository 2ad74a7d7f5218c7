"""What each order cost, on either side, and what of that was paid: a record, since the money itself
is in vouchers."""

import sqlite3
from dataclasses import astuple, dataclass, replace
from typing import Final

from node.storage.database import Database
from node.storage.jobs import Role
from protocol.ids import MessageId, NodeId
from protocol.units import Microcredits

BILLS_REMEMBERED_MAX: Final = 100_000  # As many as jobs.
PUTS_PER_TRIM: Final = 100


@dataclass(frozen=True, slots=True)
class Bill:
    """Of one order that is over. Digests, counts and money; never a word of prompt or answer."""

    role: Role  # This node's: a requester pays, a provider earns.
    order_id: MessageId
    peer: NodeId  # The other side.
    amount: Microcredits  # What was delivered has cost.
    paid: Microcredits  # Of it, by vouchers.
    receipt_id: MessageId  # b"" where no receipt was made, or the requester disputed it.
    receipt: bytes  # Its canonical bytes, which the id is the digest of; b"" without one.
    provider_signature: bytes
    requester_signature: bytes  # b"" where the requester has not countersigned.
    billed_at_ms: int

    @property
    def lost(self) -> Microcredits:
        """What was delivered and no voucher came for, when the order was over. A later voucher of
        the channel may have paid it."""
        return Microcredits(self.amount - self.paid)

    @property
    def countersigned(self) -> bool:
        return bool(self.requester_signature)


_COLUMNS = (
    "role, order_id, peer, amount, paid, receipt_id, receipt, provider_signature, "
    "requester_signature, billed_at_ms"
)


class BillStore:
    """Bills on disk. The first bill of an order stands."""

    def __init__(self, database: Database, remembered_max: int = BILLS_REMEMBERED_MAX) -> None:
        self._database = database
        self._remembered_max = remembered_max
        self._puts = 0

    async def put(self, bill: Bill) -> None:
        """Keep a bill; on disk when this returns. Where the order has one, nothing changes. The
        oldest go beyond the bound. Raises LocalError UNAVAILABLE where the disk fails."""
        trim = self._puts % PUTS_PER_TRIM == 0
        self._puts += 1

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                f"INSERT INTO bills ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                astuple(bill),
            )
            if trim:
                self._trim(connection)

        await self._database.write(work)

    async def bill_of(self, role: Role, order_id: MessageId) -> Bill | None:
        """The bill of an order, if it cost anything."""

        def work(connection: sqlite3.Connection) -> Bill | None:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM bills WHERE role = ? AND order_id = ?", (role, order_id)
            ).fetchone()
            return None if row is None else replace(Bill(*row), role=Role(row[0]))

        return await self._database.read(work)

    def _trim(self, connection: sqlite3.Connection) -> None:
        (count,) = connection.execute("SELECT count(*) FROM bills").fetchone()
        if count > self._remembered_max:
            connection.execute(
                "DELETE FROM bills WHERE (role, order_id) IN (SELECT role, order_id FROM bills "
                "ORDER BY billed_at_ms, order_id LIMIT ?)",
                (count - self._remembered_max,),
            )
