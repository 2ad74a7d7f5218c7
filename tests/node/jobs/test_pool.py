"""The pool with real processes: a fake worker that misbehaves on demand, and the real one."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import trio
import trio.testing

from node.jobs.inference import Begun, Ended, Event, Task, Tokens
from node.jobs.pool import PoolSettings, WorkerPool, open_pool
from node.jobs.worker_process import worker_environment
from node.jobs.worker_settings import ModelFiles, WorkerSettings
from node.supervise import BackOff
from node.worker.engine.kernels import library
from node.worker.pipe import File
from protocol.errors import Code, LocalError
from protocol.ids import ModelId
from protocol.job.sampling import Sampling
from tests.tiny_model import tiny_model

MODEL, BROKEN = ModelId(b"m" * 32), ModelId(b"b" * 32)
SECONDS_MAX = 60  # For what takes well under one; a busy machine is slow, not wrong.
ROOT = Path(__file__).parents[3]
FAKE = [
    sys.executable, "-I", "-c",
    "import sys, runpy; sys.path.append(sys.argv[1]); runpy.run_path(sys.argv[2])",
    str(ROOT), str(Path(__file__).parent / "fake_worker.py"),
]  # fmt: skip
NOTHING = [File("weights", "none.gguf", "none.gguf")]
FILES = ModelFiles(MODEL, "fake", NOTHING)
QUICK = BackOff(seconds_min=0.01, seconds_max=0.02)


def task(text: str, most: int = 4, model: ModelId = MODEL) -> Task:
    return Task(model, [], text, [], Sampling(), bytes(32), 0, [], most)


async def until(pool: WorkerPool, restarts: int = 0) -> None:
    while not pool.served or pool.state.restarts < restarts:
        await pool.wait_changed()


async def heard(pool: WorkerPool, asked: Task) -> list[Event]:
    async with pool.generate(asked) as events:
        return [event async for event in events]


@asynccontextmanager
async def fake_pool(
    *models: ModelFiles, back_off: BackOff = QUICK, slots: int = 2
) -> AsyncIterator[WorkerPool]:
    settings = PoolSettings(models or [FILES], WorkerSettings(slots=slots), back_off, FAKE)
    with trio.fail_after(SECONDS_MAX):
        async with open_pool(settings) as pool:
            await until(pool)
            yield pool


async def test_a_task_goes_there_and_back() -> None:
    async with fake_pool() as pool:
        assert pool.served[0].decode_millitokens_per_second == 1000
        assert await heard(pool, task("hello")) == [
            Begun(5, bytes(32)), Tokens((1,), "hello"), Ended("stop"),
        ]  # fmt: skip
        assert pool.slots_free(MODEL) == 2
        state = pool.state
        assert state.device == "fake"
        assert state.resident_bytes > 0
        with pytest.raises(LocalError, match="no such thing"):
            await heard(pool, task("refuse"))
        with pytest.raises(LocalError) as caught:
            await heard(pool, task("x", model=ModelId(b"x" * 32)))
        assert caught.value.code == Code.MODEL_NOT_SERVED
    assert not psutil.pid_exists(state.pid)


async def test_speed_is_measured_again_when_nothing_runs() -> None:
    settings = WorkerSettings(measure_again_seconds=(0.05, 0.05, 3600))
    with trio.fail_after(SECONDS_MAX):
        async with open_pool(PoolSettings([FILES], settings, QUICK, FAKE)) as pool:
            await until(pool)
            async with pool.generate(task("wait")) as events:
                assert isinstance(await anext(events), Begun)
                assert pool.served[0].decode_millitokens_per_second == 1000
            while pool.served[0].decode_millitokens_per_second < 3000:
                await pool.wait_changed()
            assert pool.served[0].prefill_millitokens_per_second == 6000


async def test_slots_come_back_when_the_worker_says_so() -> None:
    async with fake_pool() as pool:
        async with pool.generate(task("wait")) as first, pool.generate(task("wait")):
            assert isinstance(await anext(first), Begun)
            with pytest.raises(LocalError) as caught:
                await heard(pool, task("third"))
            assert caught.value.code == Code.BUSY
        assert pool.slots_free(MODEL) == 0  # Cancelled, and not yet confirmed.
        while pool.slots_free(MODEL) < 2:
            await pool.wait_changed()
        assert len(await heard(pool, task("third"))) == 3


@pytest.mark.parametrize("text", ["die", "garbage", "flood", "stranger", "leaves", "unasked"])
async def test_a_worker_that_fails_is_started_again(text: str) -> None:
    async with fake_pool() as pool:
        before = pool.state.pid
        async with pool.generate(task("wait")) as other:
            assert isinstance(await anext(other), Begun)
            async with pool.generate(task(text)) as events:
                with pytest.raises(LocalError) as caught:
                    [event async for event in events]
            assert caught.value.code == Code.WORKER_FAILED
            with pytest.raises(LocalError, match="WORKER_FAILED"):
                [event async for event in other]
        await until(pool, restarts=1)
        assert pool.state.pid != before
        assert pool.state.last_error
        assert "secret" not in pool.state.last_error
        assert len(await heard(pool, task("hello"))) == 3


async def test_rows_can_be_had_after_the_end() -> None:
    async with fake_pool() as pool:
        events = await heard(pool, task("rows"))
        assert isinstance(events[0], Begun)
        assert isinstance(events[1], Tokens)
        assert events[1].leaves == (bytes(32),) * 2
        number = events[0].number
        answers: list[tuple[int, list[bytes]]] = []

        async def ask(place: int) -> None:
            answers.append((place, await pool.opened(number, [place, 0])))

        async with trio.open_nursery() as nursery:
            for place in range(5):
                nursery.start_soon(ask, place)
        assert sorted(answers) == [
            (place, [bytes([number, place]), bytes([number, 0])]) for place in range(5)
        ]
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.opened(number, [1])  # Its answer comes, and nobody minds.
        pool.forget(number)
        assert await pool.opened(number, [1]) == [b""]
        with pytest.raises(LocalError, match="WORKER_FAILED"):
            await pool.opened(number, [666])


async def test_the_owner_finds_room_where_others_do_not() -> None:
    async with fake_pool(slots=1) as pool:
        others = replace(task("wait"), requester=b"r" * 32)
        async with pool.generate(others) as first:
            assert isinstance(await anext(first), Begun)
            with pytest.raises(LocalError, match="BUSY"):
                await heard(pool, others)
            assert len(await heard(pool, task("hello"))) == 3


async def test_while_there_is_no_worker_a_task_is_refused() -> None:
    async with fake_pool(back_off=BackOff(seconds_min=3600)) as pool:
        os.kill(pool.state.pid, 9)
        while pool.served:
            await pool.wait_changed()
        with pytest.raises(LocalError) as caught:
            await heard(pool, task("hello"))
        assert caught.value.code == Code.MODEL_NOT_SERVED
        assert pool.slots_free(MODEL) == 0
        while not pool.state.restarts:
            await pool.wait_changed()
        assert "signal 9" in pool.state.last_error


async def test_a_model_that_cannot_be_read_spares_the_others() -> None:
    async with fake_pool(ModelFiles(BROKEN, "broken", NOTHING), FILES) as pool:
        assert [served.model for served in pool.served] == [MODEL]
        assert "broken" in pool.state.last_error
        assert pool.state.restarts == 0


async def test_a_worker_that_does_not_listen_is_killed() -> None:
    async with fake_pool() as pool:
        pid = pool.state.pid
        async with pool.generate(task("hang")) as events:
            await anext(events)
    assert not psutil.pid_exists(pid)


async def test_nothing_secret_is_in_its_environment() -> None:
    assert worker_environment({"AYNI_PASSPHRASE": "x", "LANG": "C"}) == {"LANG": "C"}
    async with fake_pool() as pool:
        events = await heard(pool, task("environment"))
    assert isinstance(events[0], Tokens)
    # The interpreter itself sets LC_CTYPE where no locale was given.
    allowed = {*worker_environment(os.environ), "LC_CTYPE"}
    assert set(events[0].text.split()) <= allowed


async def test_a_command_that_is_none_is_tried_again() -> None:
    settings = PoolSettings([FILES], back_off=QUICK, command=["./no-such-program"])
    with trio.fail_after(SECONDS_MAX):
        async with open_pool(settings) as pool:
            while pool.state.restarts < 2:
                await pool.wait_changed()
            assert "cannot be started" in pool.state.last_error


async def test_without_models_there_is_no_process() -> None:
    async with open_pool(PoolSettings([])) as pool:
        await trio.testing.wait_all_tasks_blocked()
        assert pool.state.pid == 0
        assert pool.served == ()


def same(events: list[Event], others: list[Event], is_exact: bool) -> bool:
    """Torch promises the tokens here, since no two are nearly as likely, and not the rows."""
    if is_exact:
        return events == others
    kept = [[e.ids, e.text] if isinstance(e, Tokens) else e for e in events]
    return kept == [[e.ids, e.text] if isinstance(e, Tokens) else e for e in others]


@pytest.mark.parametrize(("engine", "mode"), [("torch", "cpu-f32/gguf"), ("native", "native-1/")])
async def test_the_real_worker(tmp_path: Path, engine: str, mode: str) -> None:
    """Torch, sandbox and all: an answer, two at once, a cancellation, a kill, an end."""
    if engine == "native" and library.load() is None:
        pytest.skip("no kernels were built here")
    weights = File("weights", "tiny.gguf", str(tiny_model(tmp_path / "tiny.gguf")))
    files = ModelFiles(MODEL, "tiny", [weights], 512)
    # At normal priority: a machine that tests much else at once has nothing idle to give.
    settings = PoolSettings([files], WorkerSettings(1, False, compute="f32", engine=engine), QUICK)
    chat = replace(task("", most=20), messages=[("user", "hi")])
    with trio.fail_after(SECONDS_MAX):
        async with open_pool(settings) as pool:
            await until(pool)
            served, state = pool.served[0], pool.state
            assert served.mode.startswith(mode)
            assert served.context_tokens == 512
            assert engine in state.models[0].engine
            first = await heard(pool, chat)
            assert sum(len(event.ids) for event in first if isinstance(event, Tokens)) == 20
            assert first[-1] == Ended("length")
            _check_sandbox(state.pid, state.confined)
            both: list[list[Event]] = []

            async def ask() -> None:
                both.append(await heard(pool, chat))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                nursery.start_soon(ask)
            assert all(same(each, first, engine == "native") for each in both)
            async with pool.generate(replace(chat, output_tokens_max=400)) as events:
                assert isinstance(await anext(events), Begun)
                await anext(events)
            while pool.slots_free(MODEL) < 2:
                await pool.wait_changed()
            async with pool.generate(replace(chat, output_tokens_max=400)) as events:
                await anext(events)
                os.kill(state.pid, 9)
                with pytest.raises(LocalError, match="WORKER_FAILED"):
                    [event async for event in events]
            await until(pool, restarts=1)
            assert same(await heard(pool, chat), first, engine == "native")
            pid = pool.state.pid
    assert not psutil.pid_exists(pid)


def _check_sandbox(pid: int, confined: tuple[str, ...] | list[str]) -> None:
    if sys.platform != "linux":
        return
    assert {"no-core-dump", "no-files-written", "own-session"} <= set(confined)
    if "no-network" in confined:
        # One line of headings and one for the loopback, which is down, is all there is.
        interfaces = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
