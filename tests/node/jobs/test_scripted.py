"""The scripted inference keeps the promises of the real one."""

import pytest
import trio
import trio.testing

from node.jobs.inference import Begun, Ended, Event, Served, Task, Tokens
from node.jobs.scripted import Script, ScriptedInference
from protocol.errors import Code, LocalError
from protocol.ids import ModelId
from protocol.job.sampling import Sampling

MODEL = ModelId(b"m" * 32)
SERVED = Served(MODEL, "scripted", "cpu-f32/gguf", 64, 2, 1000, 1000)
HELLO = Script([(1, "Hel"), (2, "lo")])
TASK = Task(MODEL, [], "hi", [], Sampling(), bytes(32), 0, [], 10)


def scripted(script: Script = HELLO) -> ScriptedInference:
    return ScriptedInference([SERVED], lambda task: script)


async def heard(inference: ScriptedInference, task: Task = TASK) -> list[Event]:
    async with inference.generate(task) as events:
        return [event async for event in events]


async def test_it_plays_its_script_on_the_clock(autojump_clock: trio.testing.MockClock) -> None:
    events = await heard(scripted())
    assert isinstance(events[0], Begun)
    assert events[0].prompt_tokens == 2
    assert events[1:] == [Tokens((1,), "Hel"), Tokens((2,), "lo"), Ended("stop")]
    assert trio.current_time() == pytest.approx(0.2)


async def test_limits_failures_and_unknown_models(autojump_clock: trio.testing.MockClock) -> None:
    short = Task(MODEL, [], "hi", [], Sampling(), bytes(32), 0, [], 1)
    assert (await heard(scripted(), short))[-2:] == [Tokens((1,), "Hel"), Ended("length")]
    with pytest.raises(LocalError, match="BAD_REQUEST"):
        await heard(scripted(Script([], failure=LocalError(Code.BAD_REQUEST, "no"))))
    other = Task(ModelId(b"x" * 32), [], "hi", [], Sampling(), bytes(32), 0, [], 1)
    with pytest.raises(LocalError, match="MODEL_NOT_SERVED"):
        await heard(scripted(), other)
    long = Task(MODEL, [("user", "x" * 64)], "", [], Sampling(), bytes(32), 0, [], 1)
    with pytest.raises(LocalError, match="CONTEXT_EXCEEDED"):
        await heard(scripted(), long)


async def test_slots_and_death(autojump_clock: trio.testing.MockClock) -> None:
    inference = scripted()
    async with inference.generate(TASK) as first, inference.generate(TASK):
        assert inference.slots_free(MODEL) == 0
        with pytest.raises(LocalError, match="BUSY"):
            await heard(inference)
        await anext(first)
        inference.die()
        assert inference.served == ()
        with pytest.raises(LocalError, match="WORKER_FAILED"):
            await anext(first)
    inference.rise()
    assert inference.slots_free(MODEL) == 2
    assert len(await heard(inference)) == 4
