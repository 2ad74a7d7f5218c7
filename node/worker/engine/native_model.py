"""A model that the native kernels run: the same bits on every machine, at the memory's speed."""

import ctypes
import weakref
from array import array
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Final

import torch
from torch import Tensor

from node.worker.engine.blocks import blocks_for
from node.worker.engine.kernels import operator
from node.worker.engine.kernels.library import Kernels
from node.worker.engine.kernels.sampling import NativeSampler
from node.worker.engine.model import STEP_ROWS_MAX, Draw, Drawn, Piece, Token
from node.worker.engine.native_plan import Plan
from node.worker.engine.packed_model import PackedModel
from node.worker.engine.room import Room
from node.worker.engine.torch_threads import one_thread
from protocol.errors import LocalError

MODE: Final = "native-1"  # Another name for every change of a bit of what comes out.
# Numbers from which torch divides an operation among its threads (at::internal::GRAIN_SIZE).
_TORCH_GRAIN: Final = 32_768


class NativeModel:
    """Implements node.worker.engine.model.LoadedModel. `path` is one of kernels.paths(); which
    one, and how many threads, changes the speed alone. Raises OSError where the threads cannot be
    had."""

    is_exact: Final = True

    def __init__(
        self, packed: PackedModel, kernels: Kernels, room: Room, threads: int, path: int
    ) -> None:
        self._plan = Plan(packed, kernels, room, threads)
        self._path = path
        shape = packed.index.shape
        rounded = "-q8" if packed.index.losses else ""
        self.mode = f"{MODE}/{packed.index.container}{rounded}"
        self.context_tokens = room.context_tokens
        self.blocks = room.blocks
        self.vocabulary = shape.vocabulary
        self.width = shape.width
        self._hidden = torch.empty(0, shape.width)
        self._logits = torch.empty(0, shape.vocabulary)
        self._sampler = NativeSampler(kernels.library, path)
        self._pool = kernels.pool_open(threads)
        weakref.finalize(self, kernels.pool_close, self._pool)

    def step(self, pieces: Sequence[Piece]) -> Sequence[Sequence[Drawn]]:
        if not pieces:
            return ()
        with torch.inference_mode():
            hidden, logits = self._run(pieces)
            rows = _bfloat16_rows(hidden)
            results, at = [], 0
            for piece in pieces:
                count = len(piece.draws)
                results.append(
                    self._drawn(logits[at : at + count], rows[at : at + count], piece.draws)
                )
                at += count
            return results

    def logits(self, pieces: Sequence[Piece]) -> Tensor:
        """float32 [draws of all pieces, vocabulary]: what `step` draws from, for checks."""
        with torch.inference_mode():
            return self._run(pieces)[1].clone()

    def _run(self, pieces: Sequence[Piece]) -> tuple[Tensor, Tensor]:
        """Hidden rows and logits of the places that are drawn after, until the next step."""
        token, sequence, position, output = array("i"), array("i"), array("i"), array("i")
        width = max(blocks_for(piece.position + len(piece.ids)) for piece in pieces)
        table = array("i", bytes(4 * width * len(pieces)))
        for number, piece in enumerate(pieces):
            count = len(piece.ids)
            assert count > 0
            assert len(piece.draws) <= count
            token.extend(piece.ids)
            sequence.extend([number] * count)
            position.extend(range(piece.position, piece.position + count))
            output.extend(range(len(token) - len(piece.draws), len(token)))
            used = blocks_for(piece.position + count)
            table[number * width : number * width + used] = array("i", piece.blocks[:used])
        assert len(token) <= STEP_ROWS_MAX
        assert len(table) == width * len(pieces)
        self._grow(len(output))
        plan, count = self._plan, len(output)
        operator.step(
            plan.model,
            self._pool,
            self._path,
            plan.weights,
            _tensor(token),
            _tensor(sequence),
            _tensor(position),
            _tensor(table).view(len(pieces), width),
            _tensor(output),
            plan.keys,
            plan.values,
            plan.scratch,
            self._hidden,
            self._logits,
        )
        return self._hidden[:count], self._logits[:count]

    def _drawn(
        self, logits: Tensor, rows: Sequence[bytes], draws: Sequence[Draw]
    ) -> Sequence[Drawn]:
        """Draw one after another; what follows a place that could not be drawn cannot be either."""
        results: list[Drawn] = []
        for row, hidden, draw in zip(logits, rows, draws, strict=True):
            if results and isinstance(results[-1], LocalError):
                results.append(results[-1])
                continue
            try:
                token, alternatives = self._sampler.drawn(row, draw)
            except LocalError as error:
                results.append(error)
            else:
                results.append(Token(token, hidden, alternatives))
        return results

    def _grow(self, rows: int) -> None:
        """Memory for so many rows of what comes out; kept, since fresh memory costs time."""
        if rows > self._logits.shape[0]:
            self._hidden = torch.empty(rows, self.width)
            self._logits = torch.empty(rows, self.vocabulary)


def _tensor(numbers: "array[int]") -> Tensor:
    """int32; of no length where there is nothing."""
    return torch.frombuffer(numbers, dtype=torch.int32) if numbers else torch.empty(0).int()


def _bfloat16_rows(hidden: Tensor) -> Sequence[bytes]:
    """The bytes of each row, rounded to even."""
    # It is all that torch computes in a step. To change the number of its threads costs as much
    # as drawing a token, so that is done only where torch would use more than one.
    with one_thread() if hidden.numel() >= _TORCH_GRAIN else nullcontext():
        rounded = hidden.bfloat16()
    size = 2 * rounded.shape[1]
    first = rounded.data_ptr()
    return [ctypes.string_at(first + size * row, size) for row in range(rounded.shape[0])]
