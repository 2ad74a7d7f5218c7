"""The native model: a token's bits depend on its sequence alone, and are close to torch's."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from node.worker.engine.blocks import blocks_for
from node.worker.engine.kernels import library, operator
from node.worker.engine.model import STEP_ROWS_MAX, Draw, Piece, Token
from node.worker.engine.native_model import NativeModel
from node.worker.engine.packed_model import PackedModel
from protocol.errors import Code, LocalError
from protocol.job.sampling import Sampling
from tests.node.worker.decoding import Decoding
from tests.node.worker.native_case import (
    BLOCKS,
    GREEDY,
    kernels,
    native,
    packed_tiny,
    prompt,
    same_bits,
    weights_file,
    whole,
)
from tests.tiny_model import F32, Q4_0, Q4_1, Q8_0, tiny_model


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedModel:
    return packed_tiny(tmp_path_factory.mktemp("native") / "tiny.gguf", Q4_1)


@pytest.fixture(scope="module")
def model(packed: PackedModel) -> NativeModel:
    return native(packed)


@given(st.lists(st.integers(1, 70), min_size=1, max_size=6), st.integers(0, 1 << 30))
@settings(max_examples=25, deadline=None)
def test_neither_chunks_nor_neighbours_nor_blocks_change_a_bit(
    model: NativeModel, lengths: list[int], seed: int
) -> None:
    sequences = [prompt(length, seed + n) for n, length in enumerate(lengths)]
    alone = [whole(model, ids) for ids in sequences]
    chance, free = random.Random(seed), list(range(BLOCKS))
    chance.shuffle(free)
    places = [[free.pop() for _ in range(blocks_for(len(ids)))] for ids in sequences]
    # What an earlier sequence left in a block, or never was there, must not matter.
    model._plan.keys.fill_(float("nan"))
    model._plan.values.fill_(float("nan"))
    done = [0] * len(sequences)
    while any(at < len(ids) for at, ids in zip(done, sequences, strict=True)):
        pieces, rows = [], []
        for number, ids in enumerate(sequences):
            count = chance.randint(0, len(ids) - done[number])
            if count:
                chunk = ids[done[number] : done[number] + count]
                pieces.append(Piece(places[number], done[number], chunk, [GREEDY] * count))
                rows.append(alone[number][done[number] : done[number] + count])
                done[number] += count
        if pieces:
            assert same_bits(model.logits(pieces), torch.cat(rows))


def test_a_shared_beginning_is_only_read(model: NativeModel) -> None:
    shared, endings = prompt(64, 1), [prompt(9, 2), prompt(40, 3)]
    alone = [whole(model, shared + ending) for ending in endings]
    blocks = list(range(2))
    whole(model, shared, blocks)
    pieces = [
        Piece([*blocks, 10 + 2 * n, 11 + 2 * n], 64, ending, [GREEDY] * len(ending))
        for n, ending in enumerate(endings)
    ]
    expected = torch.cat([rows[64:] for rows in alone])
    assert same_bits(model.logits(pieces), expected)


@pytest.mark.parametrize("kind", [Q4_0, Q4_1, Q8_0, F32])
def test_every_path_and_every_number_of_threads_gives_the_same_bits(
    tmp_path: Path, kind: int
) -> None:
    packed = packed_tiny(tmp_path / "tiny.gguf", kind)
    ids = prompt(150, 4)
    expected = whole(native(packed), ids)
    for number, name in kernels().paths():
        for threads in (1, 2, 3):
            assert same_bits(whole(native(packed, threads, number), ids), expected), name


@pytest.mark.parametrize(("kind", "mode"), [(Q4_0, "native-1/gguf"), (F32, "native-1/gguf-q8")])
def test_it_is_close_to_torch_and_its_mode_says_what_was_rounded(
    tmp_path: Path, kind: int, mode: str
) -> None:
    path = tmp_path / "tiny.gguf"
    model = native(packed_tiny(path, kind))
    assert model.mode == mode
    ids = prompt(100, 5)
    pieces = [Piece(range(4), 0, ids, [GREEDY] * len(ids))]
    exact = Decoding([weights_file(path)]).logits(*pieces)
    p, q = torch.log_softmax(exact.double(), -1), torch.log_softmax(model.logits(pieces), -1)
    assert float((p.exp() * (p - q)).sum(-1).mean()) < 0.01
    error = (model.logits(pieces) - exact).norm() / exact.norm()
    assert float(error) < 0.05


def test_a_step_hands_out_the_rows_that_its_logits_came_from(model: NativeModel) -> None:
    ids = prompt(20, 6)
    pieces = [Piece([5], 0, ids[:7], []), Piece([6], 0, ids, [GREEDY, GREEDY, GREEDY])]
    none, tokens = model.step(pieces)
    assert none == []
    logits = whole(model, ids)
    assert [each.id for each in tokens if isinstance(each, Token)] == logits[-3:].argmax(1).tolist()
    assert all(isinstance(each, Token) and len(each.row) == 2 * model.width for each in tokens)
    # The model's head over a row gives the logits again, but for rounding.
    again = model.step([Piece([7], 0, ids, [GREEDY])])[0][0]
    assert again == tokens[-1]


def test_one_that_cannot_be_drawn_fails_alone(model: NativeModel) -> None:
    nothing = Draw(Sampling(), bytes(32), 0, (), (), bytes(-(-model.vocabulary // 8)))
    ids = prompt(5, 7)
    failed, well = model.step(
        [Piece([1], 0, ids, [GREEDY, nothing, GREEDY]), Piece([2], 0, ids, [GREEDY])]
    )
    assert isinstance(failed[0], Token)
    assert [each.code for each in failed[1:] if isinstance(each, LocalError)] == [
        Code.WORKER_FAILED,
        Code.WORKER_FAILED,
    ]
    assert isinstance(well[0], Token)


def test_what_the_kernels_refuse_is_our_own_fault_and_changes_nothing(model: NativeModel) -> None:
    before = whole(model, prompt(30, 8), [3])
    keys = model._plan.keys.clone()
    for piece in (
        Piece([BLOCKS], 0, [1], [GREEDY]),
        Piece([0], 0, [model.vocabulary], [GREEDY]),
        Piece(range(40), 1024, [1], [GREEDY]),
    ):
        with pytest.raises(RuntimeError, match="bad argument"):
            model.step([piece])
    assert torch.equal(keys.view(torch.int16), model._plan.keys.view(torch.int16))
    assert same_bits(whole(model, prompt(30, 8), [3]), before)


def test_the_largest_step_and_a_step_of_nothing(model: NativeModel) -> None:
    ids = prompt(STEP_ROWS_MAX, 9)
    assert model.step([]) == ()
    assert len(model.step([Piece(range(16), 0, ids, [GREEDY])])[0]) == 1
    with pytest.raises(AssertionError):
        model.step([Piece(range(17), 0, [*ids, 1], [GREEDY])])


def test_torch_sees_an_operator_that_says_what_it_writes(model: NativeModel) -> None:
    plan = model._plan
    one = torch.ones(1, dtype=torch.int32)
    zero = torch.zeros(1, dtype=torch.int32)
    hidden, logits = torch.empty(1, model.width), torch.empty(1, model.vocabulary)
    arguments = (
        *(plan.model, model._pool, model._path, plan.weights, one, zero, zero),
        *(torch.zeros(1, 1, dtype=torch.int32), zero),
        *(plan.keys, plan.values, plan.scratch, hidden, logits),
    )
    checks = torch.library.opcheck(
        operator.step, arguments, test_utils=("test_schema", "test_autograd_registration")
    )
    assert set(checks.values()) == {"SUCCESS"}
    operator.step(*arguments)
    assert same_bits(logits, whole(model, [1]))


def test_torchs_threads_are_as_they_were(model: NativeModel) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for draws in (1, STEP_ROWS_MAX):  # With so many, torch would divide their rounding.
            ids = prompt(draws, 10)
            model.step([Piece(range(16), 0, ids, [GREEDY] * draws)])
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_a_folder_without_a_library_or_with_another_file_has_no_kernels(tmp_path: Path) -> None:
    assert library.load(tmp_path) is None
    other = tmp_path / "other"
    other.mkdir()
    library.library_path(other).write_bytes(b"no library")
    assert library.load(other) is None


def test_the_tiny_model_of_the_end_to_end_tests_runs_natively(tmp_path: Path) -> None:
    tiny_model(tmp_path / "tiny.gguf")
    # Its random bytes are -128 here and there, which is rounded to -127 and said.
    assert native(packed_tiny(tmp_path / "tiny.gguf", Q8_0)).mode == "native-1/gguf-q8"
