"""One loaded model from prompt to text, in this process: what a job gets whoever runs beside."""

from pathlib import Path

import pytest

from node.worker.engine.device import choose
from node.worker.engine.engine import Engine
from node.worker.engine.kernels import library
from node.worker.engine.rows import RowStore
from node.worker.engine.serving import Machine, open_served
from node.worker.pipe import Add, Began, Ended, File, FromWorker, Load, Progress
from protocol.errors import Code, LocalError
from protocol.job.sampling import Sampling
from tests.tiny_model import tiny_model

MODEL = b"m" * 32
ROWS = RowStore()
WARM = Sampling(temperature_millionths=10**6, top_p_millionths=900_000)


def load(path: Path, **changes: object) -> Load:
    values: dict[str, object] = {
        "model": MODEL, "name": "tiny", "files": [File("weights", path.name, str(path))],
        "packed_path": "", "chat_template": "", "slots": 2, "context_tokens_max": 256,
        "memory_bytes_max": 0, "public_prefixes": [],
    }  # fmt: skip
    return Load(**(values | changes))  # type: ignore[arg-type]


def served(wanted: Load, engine: str = "torch") -> Engine:
    opened = open_served(wanted, Machine(choose("cpu", "f32"), engine, 2), ROWS)
    assert isinstance(opened, Engine)
    return opened


@pytest.fixture(scope="module", params=["torch", "native"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    if request.param == "native" and library.load() is None:
        pytest.skip("no kernels were built here")
    path = tiny_model(tmp_path_factory.mktemp("engine") / "tiny.gguf")
    return served(load(path), request.param)


def add(task: int, most: int = 12, **changes: object) -> Add:
    values: dict[str, object] = {
        "requester": b"r", "messages": [], "text": "Once upon", "stop": [], "sampling": WARM,
        "seed": b"s" * 32, "first_t": 0, "prefix_ids": [], "output_tokens_max": most,
    }  # fmt: skip
    ROWS.forget(task)  # A number is used once in a worker, and again and again here.
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
        served(load(tmp_path / "no.gguf"))


@pytest.mark.parametrize("engine_name", ["torch", "native"])
def test_a_model_too_large_for_its_bound_is_refused(tmp_path: Path, engine_name: str) -> None:
    if engine_name == "native" and library.load() is None:
        pytest.skip("no kernels were built here")
    path = tiny_model(tmp_path / "tiny.gguf")
    with pytest.raises(LocalError) as caught:
        served(load(path, memory_bytes_max=50_000), engine_name)
    assert caught.value.code == Code.UNAVAILABLE


def test_timing_it_spoils_no_answer(engine: Engine) -> None:
    before = run(engine, add(1, most=40))
    engine.measure()
    assert ids(run(engine, add(1, most=40)), 1) == ids(before, 1)


def test_a_public_prefix_is_read_once_for_all(tmp_path: Path) -> None:
    words = "You are a helpful assistant, and you answer in as few words as you can. " * 2
    path = tiny_model(tmp_path / "tiny.gguf")
    engine = served(load(path, public_prefixes=[words], context_tokens_max=512))

    def steps(task: int, requester: bytes, system: str) -> int:
        asked = add(
            task, most=1, requester=requester, text="",
            messages=[("system", system), ("user", "hi" * task)],
        )  # fmt: skip
        engine.add(asked, lambda _: None)
        count = 0
        while not engine.idle:
            engine.step(lambda _: None)
            count += 1
        return count

    private = words.upper()
    assert steps(1, b"a", words) == steps(1, b"a", private) == 2
    assert steps(2, b"a", private) == 1  # Its own, and what is public: known.
    assert steps(3, b"b", words) == 1
    assert steps(4, b"b", private) == 2  # A stranger's: read.
