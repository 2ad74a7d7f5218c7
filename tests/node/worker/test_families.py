"""Every family that is known computes what transformers computes, from both kinds of file."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from node.worker.engine.architectures.fixed_decode import FixedDecode, plainly
from node.worker.engine.model import Piece
from node.worker.pipe import File
from tests.node.worker import tiny_families
from tests.node.worker.decoding import CPU, DRAW, Decoding
from tests.node.worker.tiny_families import FAMILIES

RECORDED = json.loads((Path(__file__).parents[2] / "vectors" / "families.json").read_text())
IDS, SHOWN = RECORDED["ids"], RECORDED["shown"]
TOLERANCE = 1e-4  # Of logits about 1, in float32; the order of sums is another.


def files_of(folder: Path, name: str, container: str) -> Sequence[File]:
    config = FAMILIES[name]
    if container == "gguf":
        return tiny_families.save_gguf(folder / "tiny.gguf", config)
    return tiny_families.save(folder / "tiny", config, parts=3 if container == "parts" else 1)


def whole(model: Decoding, blocks: Sequence[int], ids: Sequence[int]) -> Tensor:
    """Logits after every token, read in one step."""
    return model.logits(Piece(blocks, 0, ids, [DRAW] * len(ids)))


def close(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("container", ["safetensors", "parts", "gguf"])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_computes_what_transformers_does(tmp_path: Path, name: str, container: str) -> None:
    model = Decoding(files_of(tmp_path, name, container))
    ours = whole(model, [5, 1, 7], IDS)
    assert close(ours[SHOWN], torch.tensor(RECORDED[name]))
    # The comparison can fail: another token at the beginning changes all that sees it.
    other = whole(model, [5, 1, 7], [IDS[0] + 1, *IDS[1:]])
    assert not close(other[SHOWN[0]], torch.tensor(RECORDED[name][0]))


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_parts_and_neighbours_change_nothing(tmp_path: Path, name: str, together: bool) -> None:
    """A prompt in parts in scattered blocks, beside a short sequence; then token by token, with
    guesses; and a second sequence that shares its first blocks."""
    model = Decoding(files_of(tmp_path, name, "safetensors"), together=together)
    expected, blocks = whole(model, [0, 1, 2], IDS), [9, 4, 11]
    model.logits(Piece(blocks, 0, IDS[:7], []), Piece([6], 0, IDS[40:60], []))
    model.logits(Piece([6], 20, IDS[60:61], [DRAW]), Piece(blocks, 7, IDS[7:70], []))
    for at in range(70, 80):
        both = model.logits(
            Piece([6], at - 49, IDS[at - 9 : at - 8], [DRAW]),
            Piece(blocks, at, IDS[at : at + 1], [DRAW]),
        )
        assert close(both[1], expected[at])
    guessed = model.logits(Piece(blocks, 80, IDS[80:84], [DRAW] * 3))
    assert close(guessed, expected[81:84])
    shared = [*blocks[:2], 13]
    assert close(model.logits(Piece(shared, 64, IDS[64:], [DRAW])), expected[-1:])
    assert close(model.logits(Piece(blocks, 84, IDS[84:], [DRAW])), expected[-1:])


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_of_fixed_sizes_are_the_same_steps(tmp_path: Path, name: str) -> None:
    """As a GPU's graphs run them: three sequences fill a step of four rows."""
    model = Decoding(files_of(tmp_path, name, "safetensors"))
    expected = whole(model, [0, 1, 2], IDS)
    fixed = FixedDecode(model.decoder, CPU.torch_device, 23, plainly)
    tables = [[9, 4, 11], [8, 7], [20]]
    model.logits(*(Piece(t, 0, IDS[: 60 - 30 * n], []) for n, t in enumerate(tables[:2])))
    for at in range(10):
        pieces = [
            Piece(table, place + at, [IDS[place + at]], [DRAW])
            for table, place in zip(tables, (60, 30, 0), strict=True)
        ]
        assert fixed.takes(pieces)
        with torch.inference_mode():
            _, logits = fixed.step(pieces)
        assert close(logits, expected[[60 + at, 30 + at, at]])
    assert not fixed.takes([Piece([1], 0, [1, 2], [DRAW])])
    assert not fixed.takes([Piece([1], 0, [1], [])])


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_what_was_recorded_is_what_transformers_says(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        # Its imports and its configurations warn of themselves.
        warnings.simplefilter("ignore")
        from tests.node.worker.record_families import logits_of

        for seed in (1, 2):
            files = tiny_families.save(tmp_path / str(seed), FAMILIES[name], seed=seed)
            theirs = logits_of(tmp_path / str(seed))
            assert close(whole(Decoding(files), [3, 2, 1], IDS), theirs)
            if seed == 1:
                assert close(theirs[SHOWN], torch.tensor(RECORDED[name]))
