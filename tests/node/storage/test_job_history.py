"""The history of jobs: what is put comes back, an update changes one, the oldest go first."""

import dataclasses
from pathlib import Path

import pytest

from node.storage.database import open_database
from node.storage.jobs import PUTS_PER_TRIM, JobHistory, JobRecord, JobState, Role
from protocol.errors import Code
from protocol.ids import JobId, MessageId, ModelId, NodeId
from protocol.units import Microcredits


def record(number: int, state: JobState = JobState.DONE) -> JobRecord:
    return JobRecord(
        role=Role.REQUESTER,
        order_id=MessageId(number.to_bytes(32, "big")),
        job_id=JobId(bytes(16)),
        peer=NodeId(b"p" * 32),
        model=ModelId(b"m" * 32),
        model_name="tiny",
        state=state,
        code=None,
        tokens_in=10,
        tokens_out=number,
        cost_microcredits=Microcredits(1 << 40),
        ms_first=100,
        ms_total=900,
        started_at_ms=1_700_000_000_000 + number,
    )


async def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as store:
        history = JobHistory(store)
        failed = dataclasses.replace(record(2, JobState.FAILED), code=Code.BUSY)
        await history.put(record(1))
        await history.put(failed)
        assert await history.recent(10) == [failed, record(1)]
        assert await history.recent(1) == [failed]


async def test_an_update_changes_the_one_record(tmp_path: Path) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as store:
        history = JobHistory(store)
        await history.put(record(1, JobState.RUNNING))
        served = dataclasses.replace(record(1, JobState.RUNNING), role=Role.PROVIDER)
        await history.put(served)
        ended = dataclasses.replace(record(1), tokens_out=77, ms_total=5)
        await history.put(ended)
        assert set(await history.recent(10)) == {ended, served}


async def test_orders_of_an_earlier_process_are_over(tmp_path: Path) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as store:
        history = JobHistory(store)
        await history.put(record(1))
        await history.put(record(2, JobState.RUNNING))
        assert await history.end_interrupted() == 1
        assert await history.end_interrupted() == 0
        lost, done = await history.recent(10)
        assert (lost.state, lost.code) == (JobState.FAILED, Code.LOST)
        assert done == record(1)


async def test_the_oldest_go_first_but_never_a_running_one(tmp_path: Path) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as store:
        history = JobHistory(store, remembered_max=10)
        await history.put(record(0, JobState.RUNNING))
        for number in range(1, PUTS_PER_TRIM + 1):
            await history.put(record(number))
        kept = [item.tokens_out for item in await history.recent(1000)]
        assert kept == [*range(PUTS_PER_TRIM, PUTS_PER_TRIM - 9, -1), 0]


@pytest.mark.parametrize("count", [0, 3])
async def test_recent_of_few(tmp_path: Path, count: int) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as store:
        history = JobHistory(store)
        for number in range(count):
            await history.put(record(number))
        assert len(await history.recent(5)) == count
