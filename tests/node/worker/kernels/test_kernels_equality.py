"""The bits of a step depend on weights, tokens and positions alone: not on the path, the threads,
the batch, the chunks or the blocks."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from node.worker.engine.kernels.library import Kernels
from tests.node.worker.kernels.random_model import (
    BLOCK,
    GEMMA,
    PLAIN,
    QWEN,
    Plan,
    RandomModel,
    Rows,
    Steps,
    ids_of,
)

PLANS = {
    "plain": PLAIN,
    "plain_q8": PLAIN.but(body=1, seed=b"q8"),
    "gemma": GEMMA,
    "qwen": QWEN,
    "wide_heads": PLAIN.but(heads=2, key_heads=1, head_width=256, seed=b"wide"),
}
VECTORS = Path(__file__).parents[3] / "vectors" / "native_1.json"


def fastest(kernels: Kernels) -> int:
    return kernels.paths()[0][0]


@pytest.mark.parametrize("name", PLANS)
def test_paths_threads_and_chunks_give_the_same_bits(kernels: Kernels, name: str) -> None:
    plan = PLANS[name]
    random, ids = RandomModel(plan, kernels), ids_of(plan, 75)
    with Steps(random, 0) as steps:
        expected = steps.whole(ids)
    assert torch.isfinite(expected[1]).all()
    for path, _ in kernels.paths():
        for threads, chunk in ((1, 9), (2, 1), (3, 75), (4, 31)):
            with Steps(random, path, threads) as steps:
                got = steps.whole(ids, chunk)
            assert torch.equal(got[0], expected[0]), (path, threads, chunk)
            assert torch.equal(got[1], expected[1]), (path, threads, chunk)


def digest(rows: Tensor) -> str:
    return hashlib.blake2b(rows.numpy().tobytes(), digest_size=32).hexdigest()


def golden(kernels: Kernels, every_path: bool = False) -> dict[str, dict[str, str]]:
    """What tests/vectors/native_1.json holds; scripts/record_native.py writes it."""
    out = {}
    for name, plan in PLANS.items():
        random = RandomModel(plan, kernels)
        found = set()
        for path, _ in kernels.paths() if every_path else kernels.paths()[:1]:
            with Steps(random, path) as steps:
                hidden, logits = steps.whole(ids_of(plan, 75))
            found.add((digest(random.rotations), digest(hidden), digest(logits)))
        assert len(found) == 1, name
        out[name] = dict(zip(("rotations", "hidden", "logits"), found.pop(), strict=True))
    return out


def test_the_bits_are_those_of_native_1(kernels: Kernels) -> None:
    """One bit of difference is a new mode: two nodes that say `native-1` and differ would call
    each other cheats. Change the mode's name with these numbers, never the numbers alone."""
    assert golden(kernels) == json.loads(VECTORS.read_text())


def test_a_long_sequence_is_the_same_spread_over_threads(kernels: Kernels) -> None:
    plan = PLAIN.but(context=1200, blocks=40, rows_max=512, windows=(700, 0))
    random, ids = RandomModel(plan, kernels), ids_of(plan, 1101)
    with Steps(random, fastest(kernels), 1) as steps:
        hidden, logits = steps.whole(ids, 512)
    table = [list(range(40))]
    for threads in (2, 4):
        with Steps(random, fastest(kernels), threads) as steps:
            for position in (511, 512, 1100):
                row = [(0, position, ids[position])]
                got = steps.run(Rows(row, table, [0]))
                assert torch.equal(got[0][0], hidden[position]), (threads, position)
                assert torch.equal(got[1][0], logits[position]), (threads, position)


def test_shared_blocks_serve_two_sequences(kernels: Kernels) -> None:
    random = RandomModel(PLAIN, kernels)
    prefix = ids_of(PLAIN, 64)
    tails = ids_of(PLAIN, 20, "tail"), ids_of(PLAIN, 20, "other tail")
    with Steps(random, fastest(kernels), 2) as steps:
        alone = [steps.whole(prefix + tail) for tail in tails]
        steps.run(Rows([(0, p, t) for p, t in enumerate(prefix)], [[7, 3]], [0]))
        rows = [(s, 64 + i, t) for s, tail in enumerate(tails) for i, t in enumerate(tail)]
        together = steps.run(Rows(rows, [[7, 3, 20], [7, 3, 11]], list(range(40))))
    for number, (hidden, logits) in enumerate(alone):
        some = slice(20 * number, 20 * number + 20)
        assert torch.equal(together[0][some], hidden[64:])
        assert torch.equal(together[1][some], logits[64:])


SEQUENCES = 4
TOKENS = 70


def batches(cuts: list[list[int]]) -> list[list[tuple[int, int, int]]]:
    """Of each sequence in turn, a piece (sequence, from, until), as far as there is one."""
    plans = [[0, *sorted(set(cut)), TOKENS] for cut in cuts]
    rounds = max(len(plan) for plan in plans) - 1
    return [
        [(s, plan[i], plan[i + 1]) for s, plan in enumerate(plans) if i + 1 < len(plan)]
        for i in range(rounds)
    ]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_company_changes_nothing(kernels: Kernels, data: st.DataObject) -> None:
    """Sequences in pieces of any size, in any order of a batch, in any blocks."""
    plan: Plan = data.draw(st.sampled_from([PLAIN, GEMMA]))
    plan = plan.but(rows_max=SEQUENCES * TOKENS)
    random = RandomModel(plan, kernels)
    all_ids = [ids_of(plan, TOKENS, f"ids {s}") for s in range(SEQUENCES)]
    cut = st.lists(st.integers(1, TOKENS - 1), max_size=4)
    cuts = data.draw(st.lists(cut, min_size=SEQUENCES, max_size=SEQUENCES))
    each = -(-TOKENS // BLOCK)
    blocks = data.draw(st.permutations(range(plan.blocks)))
    table = [blocks[s * each : (s + 1) * each] for s in range(SEQUENCES)]
    path, _ = data.draw(st.sampled_from(kernels.paths()))
    got: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    with Steps(random, path, data.draw(st.integers(1, 4))) as steps:
        for pieces in batches(cuts):
            pieces = data.draw(st.permutations(pieces))
            rows = [(s, p, all_ids[s][p]) for s, a, b in pieces for p in range(a, b)]
            hidden, logits = steps.run(Rows(rows, table, list(range(len(rows)))))
            for number, (s, p, _) in enumerate(rows):
                got[s, p] = hidden[number], logits[number]
        for s, ids in enumerate(all_ids):
            hidden, logits = steps.whole(ids, TOKENS)
            for p in range(TOKENS):
                assert torch.equal(got[s, p][0], hidden[p]), (s, p)
                assert torch.equal(got[s, p][1], logits[p]), (s, p)


def test_a_flushing_caller_changes_nothing(kernels: Kernels) -> None:
    """torch can tell a thread to flush the smallest numbers to zero."""
    random, ids = RandomModel(PLAIN, kernels), ids_of(PLAIN, 40)
    with Steps(random, fastest(kernels), 2) as steps:
        expected = steps.whole(ids)
        if not torch.set_flush_denormal(True):
            pytest.skip("this processor has no such setting")
        try:
            got = steps.whole(ids)
            # The setting is the caller's and is as it was: the smallest number is still flushed.
            assert float(torch.tensor([1e-40]) * 1.0) == 0.0
        finally:
            torch.set_flush_denormal(False)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_pools_leave_no_thread_behind(kernels: Kernels) -> None:
    before = len(os.listdir("/proc/self/task"))
    for _ in range(20):
        pool = kernels.pool_open(4)
        assert len(os.listdir("/proc/self/task")) == before + 3
        kernels.pool_close(pool)
    assert len(os.listdir("/proc/self/task")) == before
