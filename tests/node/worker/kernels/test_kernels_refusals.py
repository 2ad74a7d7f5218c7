"""Arguments that a step refuses, before it has touched anything."""

import ctypes
import os
from collections.abc import Callable

import pytest
import torch

from node.worker.engine.kernels.library import THREADS_MAX, Batch, Kernels, Model
from tests.node.worker.kernels.random_model import PLAIN, RandomModel

BAD_ARGUMENT, NO_THREADS, NO_PATH = 1, 2, 3


class Case:
    """A good model and a good batch of two sequences, to be spoilt one thing at a time."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        self.random = RandomModel(PLAIN, kernels)
        self.model = self.random.model
        self.token = torch.tensor([5, 6, 7], dtype=torch.int32)
        self.sequence = torch.tensor([0, 0, 1], dtype=torch.int32)
        self.position = torch.tensor([0, 1, 0], dtype=torch.int32)
        self.table = torch.tensor([[0, 1], [2, 3]], dtype=torch.int32)
        self.output = torch.tensor([1, 2], dtype=torch.int32)
        self.hidden = torch.full((2, PLAIN.width), 7.0)
        self.logits = torch.full((2, PLAIN.vocabulary), 7.0)
        self.batch = Batch(
            *(3, 2, 2, 2),
            *(self.token.data_ptr(), self.sequence.data_ptr(), self.position.data_ptr()),
            *(self.table.data_ptr(), self.output.data_ptr()),
            *(self.hidden.data_ptr(), self.logits.data_ptr()),
        )

    def step(self, pool: int, path: int = 0) -> int:
        model, batch = ctypes.byref(self.model), ctypes.byref(self.batch)
        return int(self.kernels.step(pool, path, model, batch))

    def untouched(self) -> bool:
        places = self.hidden, self.logits
        cache = self.random.keys, self.random.values
        return all(bool((p == 7.0).all()) for p in places) and all(
            bool((c == 0x7E00).all()) for c in cache
        )


def put(name: str, index: int, value: int) -> Callable[[Case], None]:
    return lambda case: getattr(case, name).view(-1).__setitem__(index, value)


def batch(name: str, value: int | None) -> Callable[[Case], None]:
    return lambda case: setattr(case.batch, name, value)


def model(name: str, value: float | None) -> Callable[[Case], None]:
    return lambda case: setattr(case.model, name, value)


def layer(name: str, value: int | None) -> Callable[[Case], None]:
    return lambda case: setattr(case.model.layer[1], name, value)


def matrix(where: str, name: str, value: int | None) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        home = case.model if where in ("embedding", "head") else case.model.layer[0]
        setattr(getattr(home, where), name, value)

    return spoil


SPOILT: dict[str, Callable[[Case], None]] = {
    "token below": put("token", 1, -1),
    "token above": put("token", 2, PLAIN.vocabulary),
    "sequence below": put("sequence", 0, -1),
    "sequence above": put("sequence", 2, 2),
    "sequence torn": put("sequence", 0, 1),
    "position below": put("position", 0, -1),
    "position above": put("position", 2, PLAIN.context),
    "position beyond the table": put("position", 2, 64),
    "positions with a gap": put("position", 1, 2),
    "positions twice": put("position", 1, 0),
    "block below": put("table", 0, -1),
    "block above": put("table", 2, PLAIN.blocks),
    "output below": put("output", 0, -1),
    "output above": put("output", 0, 3),
    "no rows": batch("rows", 0),
    "too many rows": batch("rows", PLAIN.rows_max + 1),
    "no sequences": batch("sequences", 0),
    "no table": batch("table_width", 0),
    "outputs below": batch("outputs", -1),
    "more outputs than rows": batch("outputs", 4),
    **{f"no {n}": batch(n, None) for n in ("token", "sequence", "position", "table", "output")},
    "no hidden": batch("hidden", None),
    "another ABI": model("abi", 2),
    **{
        f"{name} {value}": model(name, value)
        for name, value in {
            "layers": 0,
            "width": 95,
            "inner_width": 161,
            "heads": 5,
            "key_heads": 0,
            "head_width": 12,
            "vocabulary": 0,
            "context": -1,
            "activation": 2,
            "blocks": 0,
            "rows_max": 513,
        }.items()
    },
    "width of nothing": model("width", 0),
    "width beyond all": model("width", 1 << 30),
    "heads of another size": model("head_width", 32),
    "no norm": model("norm", None),
    "no keys": model("keys", None),
    "no values": model("values", None),
    "no scratch": model("scratch", None),
    "negative window": layer("window", -1),
    "no rotations": layer("rotations", None),
    "no attention norm": layer("attention_norm", None),
    "no feed norm": layer("feed_norm", None),
    **{
        f"{where} without data": matrix(where, "data", None)
        for where in ("embedding", "head", "query_key_value", "attention_out", "gate_up", "down")
    },
    "format": matrix("down", "format", 2),
    "rows": matrix("gate_up", "rows", 160),
    "columns": matrix("head", "columns", 64),
    "bias out of line": matrix("query_key_value", "bias", 2),
}


@pytest.mark.parametrize("name", SPOILT)
def test_bad_argument_is_refused(kernels: Kernels, name: str) -> None:
    case = Case(kernels)
    SPOILT[name](case)
    pool = kernels.pool_open(2)
    assert case.step(pool) == BAD_ARGUMENT
    assert case.untouched()
    kernels.pool_close(pool)


def test_what_was_spoilt_is_good_before(kernels: Kernels) -> None:
    case = Case(kernels)
    pool = kernels.pool_open(2)
    assert case.step(pool) == 0
    assert not case.untouched()
    kernels.pool_close(pool)


@pytest.mark.parametrize("path", [-1, 5, 4, 1 << 30])
def test_path_that_is_not_here_is_refused(kernels: Kernels, path: int) -> None:
    if path in dict(kernels.paths()):
        pytest.skip("this machine has it")
    case = Case(kernels)
    pool = kernels.pool_open(1)
    assert case.step(pool, path) == NO_PATH
    assert case.untouched()
    kernels.pool_close(pool)


def test_nothing_at_all_is_refused(kernels: Kernels) -> None:
    case = Case(kernels)
    pool = kernels.pool_open(1)
    model, batch = ctypes.byref(case.model), ctypes.byref(case.batch)
    assert kernels.step(None, 0, model, batch) == BAD_ARGUMENT
    assert kernels.step(pool, 0, None, batch) == BAD_ARGUMENT
    assert kernels.step(pool, 0, model, None) == BAD_ARGUMENT
    kernels.pool_close(pool)
    kernels.pool_close(0)


@pytest.mark.parametrize("threads", [-1, 0, THREADS_MAX + 1])
def test_number_of_threads_has_bounds(kernels: Kernels, threads: int) -> None:
    assert not kernels.library.ayni_pool_open(threads)
    assert kernels.scratch_bytes(Case(kernels).model, threads) == 0


def test_scratch_of_a_bad_model_is_nothing(kernels: Kernels) -> None:
    assert kernels.scratch_bytes(Model(), 1) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_child_has_no_threads(kernels: Kernels) -> None:
    """A step there would wait for ever for threads that stayed with the parent."""
    case = Case(kernels)
    pool = kernels.pool_open(2)
    child = os.fork()
    if not child:
        status = case.step(pool)
        kernels.pool_close(pool)
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == NO_THREADS
    assert case.step(pool) == 0
    kernels.pool_close(pool)
