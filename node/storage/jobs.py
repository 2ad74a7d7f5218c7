"""The history of jobs, asked and served: digests, counts and money; never a word of them."""

import sqlite3
from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import Any, Final

from node.storage.database import Database
from protocol.errors import Code
from protocol.ids import JobId, MessageId, ModelId, NodeId
from protocol.units import Microcredits

JOBS_REMEMBERED_MAX: Final = 100_000  # About 30 MB, or years of a busy home.
PUTS_PER_TRIM: Final = 100  # Counting the table costs a millisecond or two.


class Role(StrEnum):
    """Which side of the job this node was."""

    REQUESTER = "requester"
    PROVIDER = "provider"


class JobState(StrEnum):
    """How far an order came; all but RUNNING are ends."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One order. Times are milliseconds; 0 for what has not come yet."""

    role: Role
    order_id: MessageId  # Of the request, where it was refused before there was an order.
    job_id: JobId
    peer: NodeId
    model: ModelId
    model_name: str
    state: JobState
    code: Code | None  # Why it failed, or None.
    tokens_in: int
    tokens_out: int
    cost_microcredits: Microcredits
    ms_first: int
    ms_total: int
    started_at_ms: int


_PUT = """
    INSERT INTO jobs (role, order_id, job_id, peer, model, model_name, state, code, tokens_in,
        tokens_out, cost_microcredits, ms_first, ms_total, started_at_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (role, order_id) DO UPDATE SET
        state = excluded.state, code = excluded.code, tokens_in = excluded.tokens_in,
        tokens_out = excluded.tokens_out, cost_microcredits = excluded.cost_microcredits,
        ms_first = excluded.ms_first, ms_total = excluded.ms_total
"""


class JobHistory:
    """Job records on disk, at most JOBS_REMEMBERED_MAX and PUTS_PER_TRIM: the oldest go first."""

    def __init__(self, database: Database, remembered_max: int = JOBS_REMEMBERED_MAX) -> None:
        self._database = database
        self._remembered_max = remembered_max
        self._puts = 0

    async def put(self, record: JobRecord) -> None:
        """Keep a record, or bring the one of the same role and order up to date."""
        row = (*astuple(record)[:7], record.code or "", *astuple(record)[8:])
        trim = self._puts % PUTS_PER_TRIM == 0
        self._puts += 1

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_PUT, row)
            if not trim:
                return
            (count,) = connection.execute("SELECT count(*) FROM jobs").fetchone()
            if count > self._remembered_max:
                connection.execute(
                    "DELETE FROM jobs WHERE (role, order_id) IN (SELECT role, order_id FROM jobs "
                    "WHERE state != 'running' ORDER BY started_at_ms LIMIT ?)",
                    (count - self._remembered_max,),
                )

        await self._database.write(work)

    async def recent(self, limit: int) -> list[JobRecord]:
        """The last `limit` records, the newest first."""

        def work(connection: sqlite3.Connection) -> list[JobRecord]:
            rows = connection.execute(
                "SELECT role, order_id, job_id, peer, model, model_name, state, code, tokens_in, "
                "tokens_out, cost_microcredits, ms_first, ms_total, started_at_ms FROM jobs "
                "ORDER BY started_at_ms DESC, order_id LIMIT ?",
                (limit,),
            )
            return [_record(row) for row in rows]

        return await self._database.read(work)

    async def end_interrupted(self) -> int:
        """Call at start: orders of an earlier process are over for both sides (job.md section 3).
        Returns how many there were."""

        def work(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "UPDATE jobs SET state = ?, code = ? WHERE state = ?",
                (JobState.FAILED, Code.LOST, JobState.RUNNING),
            ).rowcount

        return await self._database.write(work)


def _record(row: tuple[Any, ...]) -> JobRecord:
    code = Code(row[7]) if row[7] else None
    values: list[Any] = [Role(row[0]), *row[1:6], JobState(row[6]), code, *row[8:]]
    return JobRecord(*values)
