"""Where the rows of one step come from and what each of them sees, as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from node.worker.engine.model import BLOCK_TOKENS, Piece

Places = slice | Tensor
"""Places of the cache, counted in tokens: a slice where they follow each other, so that nothing
is copied; else an index."""


@dataclass(frozen=True, slots=True)
class View:
    """What some rows of the batch see in the cache of a layer.

    Either the rows are those of one sequence, one after the other, or they are the last rows of
    as many sequences: then `places` is [rows, longest] and `mask` [rows, 1, 1, longest].
    """

    rows: slice
    places: Places
    mask: Tensor | None  # True where a row sees; None: all, or as `causal` says.
    causal: bool = False  # The rows are the only ones so far, each sees those up to itself.
    each_alone: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """All rows of one step."""

    ids: Tensor  # int64, [rows], as are the next two.
    positions: Tensor
    places: Tensor  # Where in the cache each row's key and value go.
    full: Sequence[View]
    windowed: Sequence[View]  # The same rows in layers with a window; empty where there are none.
    outputs: Tensor  # Which rows something is drawn after.


def batch_of(
    pieces: Sequence[Piece], window: int, device: torch.device, *, together: bool
) -> Batch:
    """`window` is 0 for a model that has no windowed layers. Each sequence is seen by itself, over
    exactly what it has said; if `together`, those of one row each are seen in one go, padded to
    the longest: better where a call costs more than what it computes, as on a GPU."""
    alone = [piece for piece in pieces if len(piece.ids) == 1] if together else []
    others = [piece for piece in pieces if len(piece.ids) > 1] if together else list(pieces)
    ordered = [*alone, *others]
    starts = list(accumulate((len(piece.ids) for piece in ordered), initial=0))
    here = [torch.arange(p.position, p.position + len(p.ids)) for p in ordered]
    places = [places_of(p.blocks, at) for p, at in zip(ordered, here, strict=True)]
    positions = torch.cat(here).to(device)
    full: list[View] = []
    windowed: list[View] = []
    if alone:
        rows, table = slice(0, len(alone)), block_table(alone).to(device)
        full.append(view_together(rows, table, positions[rows], 0))
        if window:
            windowed.append(view_together(rows, table, positions[rows], window))
    for piece, start in zip(others, starts[len(alone) :], strict=False):
        rows = slice(start, start + len(piece.ids))
        full.append(_view(piece, rows, 0, device))
        if window:
            windowed.append(_view(piece, rows, window, device))
    return Batch(
        torch.tensor([token for piece in ordered for token in piece.ids]).to(device),
        positions,
        torch.cat(places).to(device),
        full,
        windowed,
        torch.tensor(_outputs(pieces, ordered, starts), dtype=torch.int64).to(device),
    )


def _outputs(pieces: Sequence[Piece], ordered: Sequence[Piece], starts: list[int]) -> list[int]:
    """The rows that are drawn after, in the order of the pieces as they were given."""
    ends = {id(piece): end for piece, end in zip(ordered, starts[1:], strict=True)}
    return [
        row
        for piece in pieces
        for row in range(ends[id(piece)] - len(piece.draws), ends[id(piece)])
    ]


def block_table(pieces: Sequence[Piece], width: int = 0) -> Tensor:
    """int64, [pieces, `width`, or as many as the longest needs]: the blocks of each sequence up to
    its last row, and then its first block, so that nobody looks into another's."""
    used = [piece.blocks[: -(-(piece.position + 1) // BLOCK_TOKENS)] for piece in pieces]
    width = width or max(map(len, used))
    return torch.tensor([[*mine, *[mine[0]] * (width - len(mine))] for mine in used])


def view_together(rows: slice, table: Tensor, positions: Tensor, window: int) -> View:
    """What the last rows of several sequences see, from tensors alone: it may be captured."""
    within = torch.arange(BLOCK_TOKENS, device=table.device)
    places = (table[:, :, None] * BLOCK_TOKENS + within).flatten(1)
    seen = torch.arange(places.shape[1], device=table.device)
    mask = seen <= positions[:, None]
    if window:
        mask = mask & (seen > positions[:, None] - window)
    return View(rows, places, mask[:, None, None, :], each_alone=True)


def places_of(blocks: Sequence[int], positions: Tensor) -> Tensor:
    """int64: where in the cache the tokens of a sequence at these positions are."""
    table = torch.tensor(blocks, dtype=torch.int64)
    return table[positions // BLOCK_TOKENS] * BLOCK_TOKENS + positions % BLOCK_TOKENS


def _view(piece: Piece, rows: slice, window: int, device: torch.device) -> View:
    count, end = len(piece.ids), piece.position + len(piece.ids)
    first = max(0, piece.position + 1 - window) if window else 0
    # A part of a prompt that nothing stands before is causal from the corner, which the operator
    # knows by itself; one row sees all that is shown to it.
    causal = piece.position == 0 and count > 1 and not (window and count > window)
    mask = None
    if count > 1 and not causal:
        own = torch.arange(piece.position, end, device=device)[:, None]
        seen = torch.arange(first, end, device=device)[None, :]
        mask = seen <= own
        if window:
            mask &= seen > own - window
    return View(rows, _seen(piece.blocks, first, end, device), mask, causal)


def _seen(blocks: Sequence[int], first: int, end: int, device: torch.device) -> Places:
    held = list(blocks[first // BLOCK_TOKENS : -(-end // BLOCK_TOKENS)])
    if held == list(range(held[0], held[0] + len(held))):
        start = held[0] * BLOCK_TOKENS + first % BLOCK_TOKENS
        return slice(start, start + end - first)
    return places_of(blocks, torch.arange(first, end)).to(device)
