"""Steps of fixed sizes, in which every sequence reads one token: what a GPU can repeat as a graph.

A step of a small model is hundreds of short calls, and on a GPU most of its time is theirs. CUDA
graphs (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs) repeat them in one call,
on the same memory; so rows and blocks are filled up to a few sizes, each captured when it is first
needed.
"""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from node.worker.engine.architectures.batch import Batch, block_table, places_of, view_together
from node.worker.engine.architectures.decoder import Decoder
from node.worker.engine.model import Piece

ROWS_MAX: Final = 32  # Beyond, computing outweighs calling.
BLOCKS_MIN: Final = 8
_BEFORE_TABLE: Final = 3  # Columns of what is given: token, position, place, and then the blocks.

Step = Callable[[Tensor], tuple[Tensor, Tensor]]
Repeated = Callable[[], tuple[Tensor, Tensor]]
Capture = Callable[[Step, Tensor], Repeated]


class FixedDecode:
    """A decoder's steps of a few sizes."""

    def __init__(
        self, decoder: Decoder, device: torch.device, spare_block: int, capture: Capture
    ) -> None:
        """`spare_block` is of the cache and nobody's: rows that fill a step up write there."""
        self._decoder = decoder
        self._device = device
        self._spare_block = spare_block
        self._capture = capture
        self._ready: dict[tuple[int, int], tuple[Tensor, Repeated]] = {}

    def prepare(self) -> None:
        """Capture the smallest size. Raises RuntimeError where that cannot be done."""
        self._repeated(1, BLOCKS_MIN)

    def takes(self, pieces: Sequence[Piece]) -> bool:
        few = 1 <= len(pieces) <= ROWS_MAX
        return few and all(len(piece.ids) == len(piece.draws) == 1 for piece in pieces)

    def step(self, pieces: Sequence[Piece]) -> tuple[Tensor, Tensor]:
        """Hidden rows and logits, [pieces, ..], on the device; good until the next step."""
        rows = _at_least(len(pieces), 1)
        blocks = _at_least(block_table(pieces).shape[1], BLOCKS_MIN)
        given, repeated = self._repeated(rows, blocks)
        given.copy_(self._given(pieces, rows, blocks))
        hidden, logits = repeated()
        return hidden[: len(pieces)], logits[: len(pieces)]

    def _repeated(self, rows: int, blocks: int) -> tuple[Tensor, Repeated]:
        size = (rows, blocks)
        if size not in self._ready:
            given = self._given([], rows, blocks).to(self._device)
            self._ready[size] = given, self._capture(self._run, given)
        return self._ready[size]

    def _given(self, pieces: Sequence[Piece], rows: int, blocks: int) -> Tensor:
        """int64, on the CPU. Rows that are nobody's read token 0 at place 0 of the spare block."""
        given = torch.zeros(rows, _BEFORE_TABLE + blocks, dtype=torch.int64)
        count = len(pieces)
        positions = torch.tensor([piece.position for piece in pieces], dtype=torch.int64)
        spare = torch.tensor([self._spare_block])
        given[count:, 2] = places_of(spare.tolist(), torch.zeros(1, dtype=torch.int64))
        given[count:, _BEFORE_TABLE:] = spare
        if pieces:
            given[:count, 0] = torch.tensor([piece.ids[0] for piece in pieces])
            given[:count, 1] = positions
            given[:count, 2] = torch.cat(
                [places_of(p.blocks, torch.tensor([p.position])) for p in pieces]
            )
            given[:count, _BEFORE_TABLE:] = block_table(pieces, blocks)
        return given

    def _run(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """The step itself, from one tensor alone and with no question back to the CPU."""
        ids, positions, places = given[:, 0], given[:, 1], given[:, 2]
        rows, table = slice(0, given.shape[0]), given[:, _BEFORE_TABLE:]
        window = self._decoder.shape.window
        batch = Batch(
            ids,
            positions,
            places,
            [view_together(rows, table, positions, 0)],
            [view_together(rows, table, positions, window)] if window else [],
            torch.arange(given.shape[0], device=given.device),
        )
        hidden = self._decoder.hidden(batch)
        return hidden, self._decoder.logits(hidden)


def captured(step: Step, given: Tensor) -> Repeated:
    """The step as a CUDA graph over `given`. Raises RuntimeError where it cannot be one."""
    with torch.cuda.device(given.device):
        # What is allocated and chosen at first use must not be in the graph.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                step(given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = step(given)

    def repeated() -> tuple[Tensor, Tensor]:
        with torch.cuda.device(given.device):
            graph.replay()
        return results

    return repeated


def plainly(step: Step, given: Tensor) -> Repeated:
    """The step as it is, where there are no graphs: what tests on a CPU run."""
    return lambda: step(given)


def _at_least(count: int, least: int) -> int:
    """The next power of two."""
    return max(least, 1 << (count - 1).bit_length())
