"""Several Inferences as one: each task goes to the part that has its model."""

from typing import Any

import pytest

from node.jobs.combined import CombinedInference
from node.jobs.inference import Served, Task, Tokens
from node.jobs.scripted import Script, ScriptedInference
from protocol.errors import Code, LocalError
from protocol.identity import digest
from protocol.ids import ModelId
from protocol.job.sampling import Sampling

MAIZE, QUINOA = ModelId(digest(b"maize")), ModelId(digest(b"quinoa"))


def part(word: str, *models: ModelId) -> ScriptedInference:
    served = [Served(model, word, "cpu-f32/gguf", 512, 1, 1, 1) for model in models]
    return ScriptedInference(served, lambda task: Script([(1, word)]))


def task(model: ModelId) -> Task:
    fields: dict[str, Any] = {"messages": (), "text": "x", "stop": (), "sampling": Sampling()}
    return Task(
        model=model, seed=bytes(32), first_t=0, prefix_ids=(), output_tokens_max=4, **fields
    )


async def said(inference: CombinedInference, model: ModelId) -> str:
    async with inference.generate(task(model)) as events:
        return "".join([one.text async for one in events if isinstance(one, Tokens)])


async def test_each_task_goes_where_its_model_is(autojump_clock: object) -> None:
    first, second = part("first", MAIZE), part("second", MAIZE, QUINOA)
    both = CombinedInference([first, second])
    assert [(served.model, served.name) for served in both.served] == [
        (MAIZE, "first"),
        (QUINOA, "second"),
    ]
    assert await said(both, MAIZE) == "first"
    assert await said(both, QUINOA) == "second"
    async with both.generate(task(QUINOA)):
        assert (both.slots_free(MAIZE), both.slots_free(QUINOA)) == (1, 0)


async def test_a_part_that_dies_leaves_its_models_to_the_next(autojump_clock: object) -> None:
    first, second = part("first", MAIZE), part("second", MAIZE)
    both = CombinedInference([first, second])
    first.die()
    assert await said(both, MAIZE) == "second"
    second.die()
    assert both.served == ()
    assert both.slots_free(MAIZE) == 0
    with pytest.raises(LocalError, match="none now") as caught:
        await said(both, MAIZE)
    assert caught.value.code == Code.MODEL_NOT_SERVED
