"""What is asked of another node is what its engine says by itself, whichever engine it is."""

from pathlib import Path
from typing import Literal

import pytest

from node.worker.engine.device import choose
from node.worker.engine.kernels import library
from node.worker.engine.rows import RowStore
from node.worker.engine.serving import Machine, open_served
from node.worker.pipe import Add, Ended, File, FromWorker, Load, Progress
from protocol.ids import ModelId
from protocol.job.sampling import Sampling
from tests.network.testnet import Testnet, tiny_weights

PROMPT = "Say it twice: the sky, the sky, the sky."
TOKENS = 60


def said_alone(path: Path, engine: str) -> str:
    """The text of a greedy answer from the bare engine, in this process."""
    load = Load(
        model=ModelId(b"m" * 32),
        name="tiny",
        files=[File("weights", path.name, str(path))],
        packed_path="",
        chat_template="",
        slots=1,
        context_tokens_max=1024,
        memory_bytes_max=0,
        public_prefixes=[],
    )
    served = open_served(load, Machine(choose("auto", "auto"), engine, 1), RowStore())
    heard: list[FromWorker] = []
    asked = Add(
        task=1,
        model=load.model,
        requester=b"r" * 32,
        messages=[("user", PROMPT)],
        text="",
        stop=[],
        sampling=Sampling(),
        seed=bytes(32),
        first_t=0,
        prefix_ids=[],
        output_tokens_max=TOKENS,
    )
    served.add(asked, heard.append)
    while not served.idle:
        served.step(heard.append)
    assert heard[-1] == Ended(1, "length")
    return "".join(event.text for event in heard if isinstance(event, Progress))


@pytest.mark.parametrize("engine", ["native", pytest.param("torch", marks=pytest.mark.slow)])
def test_a_greedy_answer_is_the_engines_own(
    tmp_path: Path, engine: Literal["native", "torch"]
) -> None:
    if engine == "native" and library.load() is None:
        pytest.skip("no kernels were built here")
    testnet = Testnet(tmp_path)
    testnet.engine = engine
    try:
        testnet.prepare(2)
        testnet.up()
        testnet.settle()
        answer = testnet.quinoa.asked(
            PROMPT, "--model", "tiny", "--max-tokens", str(TOKENS), "--temperature", "0"
        )
        expected = said_alone(tiny_weights(tmp_path / "same.gguf"), engine)
        assert answer["text"] == expected
        assert answer["output_tokens"] == TOKENS
        [shown] = testnet.maize.worker["engines"]
        assert shown["engine"].startswith(engine)
        assert engine in testnet.maize.ayni("status").out
        if engine == "native":
            assert answer["mode"].startswith("native-1/")
    finally:
        testnet.down()
