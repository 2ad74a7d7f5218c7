"""One loaded model from prompt to text, in this process: what a job gets whoever runs beside."""

from pathlib import Path

import pytest

from node.worker.engine.device import choose
from node.worker.engine.engine import Engine
from node.worker.pipe import Add, Began, Ended, FromWorker, Load, Progress
from protocol.errors import LocalError
from protocol.job.sampling import Sampling
from tests.tiny_model import tiny_model

MODEL = b"m" * 32
WARM = Sampling(temperature_millionths=10**6, top_p_millionths=900_000)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    path = tiny_model(tmp_path_factory.mktemp("engine") / "tiny.gguf")
    return Engine(Load(MODEL, "tiny", str(path), "", 2, 256), choose("cpu", "f32"))


def add(task: int, most: int = 12, **changes: object) -> Add:
    values: dict[str, object] = {
        "messages": [], "text": "Once upon", "stop": [], "sampling": WARM, "seed": b"s" * 32,
        "first_t": 0, "prefix_ids": [], "output_tokens_max": most,
    }  # fmt: skip
    return Add(task=task, model=MODEL, **(values | changes))  # type: ignore[arg-type]


def run(engine: Engine, *tasks: Add) -> list[FromWorker]:
    heard: list[FromWorker] = []
    for task in tasks:
        engine.add(task, heard.append)
    while not engine.idle:
        engine.step(heard.append)
    return heard


def ids(heard: list[FromWorker], task: int) -> list[int]:
    return [n for e in heard if isinstance(e, Progress) and e.task == task for n in e.ids]


def test_the_same_seed_gives_the_same_answer_beside_another(engine: Engine) -> None:
    alone = ids(run(engine, add(1)), 1)
    beside = run(engine, add(1), add(2, seed=b"t" * 32, text="Another, longer prompt " * 4))
    assert ids(beside, 1) == alone
    assert ids(run(engine, add(1, seed=b"t" * 32)), 1) != alone
    assert len(alone) == 12


def test_a_takeover_says_what_the_whole_answer_would_have(engine: Engine) -> None:
    heard = run(engine, add(1))
    whole = ids(heard, 1)
    rest = run(engine, add(1, most=7, prefix_ids=whole[:5], first_t=5))
    assert ids(rest, 1) == whole[5:]
    assert isinstance(rest[0], Began)
    assert isinstance(heard[0], Began)
    assert rest[0].prompt_tokens == heard[0].prompt_tokens + 5


def test_what_is_no_task_is_refused_and_takes_no_slot(engine: Engine) -> None:
    bad = [
        add(1, text="", messages=[]),
        add(1, messages=[("user", "x")]),
        add(1, prefix_ids=[10**6]),
        add(1, text="x" * 300),
        add(1, text="", messages=[("root", "x")]),
    ]
    for task in bad:
        with pytest.raises(LocalError):
            run(engine, task)
    assert engine.idle
    assert len(run(engine, add(1, most=1), add(2, most=1))) == 6


def test_cancel_ends_it_before_the_next_token(engine: Engine) -> None:
    heard: list[FromWorker] = []
    engine.add(add(1), heard.append)
    engine.step(heard.append)
    engine.cancel(1, heard.append)
    assert heard[-1] == Ended(1, "cancelled")
    assert len(ids(heard, 1)) == 1
    assert engine.idle


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(LocalError):
        Engine(Load(MODEL, "no", str(tmp_path / "no.gguf"), "", 1, 0), choose("cpu", "f32"))
