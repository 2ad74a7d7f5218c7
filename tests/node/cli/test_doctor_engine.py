"""What the doctor and the status say of the engine and of its confinement."""

import json

import pytest
from msgspec.structs import replace

from node.api.views import Engine, Worker
from node.cli.doctor_engine import KERNELS_FOLDER, kernels_check, worker_checks
from node.config import Config, ShareSettings, WorkerSettings
from node.jobs.confinement import LACKING, lacking
from node.worker import sandbox

SHARING = Config(share=ShareSettings(enabled=True, models=("tiny",)))
READY = Worker(state="ready", pid=77, device="CPU")


@pytest.mark.parametrize(
    ("engine", "device", "built", "state", "words"),
    [
        ("auto", "auto", False, "warn", "torch runs models slowly"),
        ("native", "cpu", False, "fail", "asks for them"),
        ("auto", "auto", True, "ok", "Compiled"),
        ("torch", "auto", False, "ok", "None are needed"),
        ("auto", "cuda", False, "ok", "torch drives the GPU"),
    ],
)
def test_kernels_that_are_not_compiled(tmp_path, engine, device, built, state, words):
    if built:
        (tmp_path / "libayni_kernels.so").touch()
    config = replace(SHARING, worker=WorkerSettings(engine=engine, device=device))
    check = kernels_check(config, tmp_path)
    assert (check.state, words in check.sentence) == (state, True)
    assert ("C compiler" in check.remedy) == (state in ("warn", "fail"))


def test_the_doctor_looks_where_kernels_are_built():
    assert (KERNELS_FOLDER / "build.py").exists()


def test_what_runs_a_model_and_what_was_lost():
    engines = (
        Engine(model="fast", engine="native (avx2, 2 threads)"),
        Engine(model="rounded", engine="native (avx2, 2 threads)", note="Tensors were rounded."),
        Engine(model="slow", engine="torch (f32)", note="there is no compiled kernel on it."),
    )
    checks = {check.name: check for check in worker_checks(replace(READY, engines=engines))}
    states = [checks[f"engine of {each.model}"].state for each in engines]
    assert states == ["ok", "warn", "warn"]
    assert "Tensors were rounded." in checks["engine of rounded"].sentence
    assert "ziglang" in checks["engine of slow"].remedy
    assert checks["isolation"].state == "ok"


def test_what_was_not_granted_is_said_in_words():
    assert lacking(list(LACKING), "cpu", True) == []
    missing = lacking([name for name in LACKING if name != "no-network"], "auto", True)
    assert missing == [LACKING["no-network"]]
    assert lacking([name for name in LACKING if name != "bounded-memory"], "auto", True) == []
    assert LACKING["bounded-memory"] in lacking([], "cpu", False)
    assert LACKING["idle-priority"] not in lacking([], "cpu", False)
    *_, check = worker_checks(replace(READY, unconfined=tuple(missing)))
    assert (check.name, check.state) == ("isolation", "warn")
    assert "could open connections" in check.sentence
    assert check.remedy


def test_every_protection_of_the_sandbox_has_its_words(source_names):
    assert source_names == set(LACKING)


@pytest.fixture
def source_names():
    """The names that confine() may give: the texts in it that are written as names."""
    code = sandbox.confine.__code__
    return {text for text in _texts(code.co_consts) if "-" in text and " " not in text}


def _texts(constants):
    for one in constants:
        if isinstance(one, str):
            yield one
        elif isinstance(one, tuple):
            yield from _texts(one)


async def test_status_and_doctor_show_it(command, backend):
    worker = replace(backend.node.worker, pid=77, unconfined=("the worker could fly",))
    troubles = ("Cannot write: the disk is full.",)
    backend.node = replace(backend.node, worker=worker, troubles=troubles)
    async with command.served(backend):
        status = (await command.called("status")).stdout
        checks = json.loads((await command.called("doctor", "--json")).stdout)
    assert "the worker could fly" in status
    assert troubles[0] in status
    assert "the worker could fly" in {c["name"]: c["sentence"] for c in checks}["isolation"]
