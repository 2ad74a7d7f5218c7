"""From blocks of weights to the layout of the native kernels, without loss wherever it can be.

The layout stands in kernels/ayni_kernels.h. Q4_0, Q4_1, Q5_0 and Q8_0 go into it value by value.
The values of Q4_K do too, but its scales, products of two numbers, are rounded to float16. All else
is rounded once to 8 bits for each 32 columns; what has 4 bits is never rounded to 4 bits again.
All this is plain IEEE arithmetic in float32, rounded to even: the same bits on every machine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from node.worker.engine.packed_index import GROUP, GROUP_BYTES, Q4, Q8, ROWS
from node.worker.quantised import Blocks, dequantised

_PASS_WEIGHTS: Final = 1 << 21  # So many are unpacked at once, some 8 bytes for each.
_VALUES: Final = {Q4: 16, Q8: 32}  # Bytes of the values of a group of one row.
_NIBBLES: Final = {"Q4_0", "Q4_1", "Q4_K"}


@dataclass(slots=True)
class Loss:
    """What rounding took from tensors of one format."""

    format: str
    tensors: int = 0
    error: float = 0.0  # The sum of the squares of what weights were changed by,
    weight: float = 0.0  # and of the weights.

    @property
    def relative(self) -> float:
        """The root of the mean square of the change, for a weight of the mean size 1."""
        return float((self.error / self.weight) ** 0.5) if self.weight else 0.0


class Losses:
    """What was rounded in a whole model, by format."""

    def __init__(self) -> None:
        self._of: dict[str, Loss] = {}

    def begin(self, format: str) -> Loss:
        """The account that another tensor of this format is added to."""
        loss = self._of.setdefault(format, Loss(format))
        loss.tensors += 1
        return loss

    def sentences(self) -> Sequence[str]:
        """For people: what was rounded and how much; nothing where all is as in the file."""
        return [
            f"Tensors of {loss.format} were rounded ({loss.tensors}), by {loss.relative:.2%} of "
            "their size in the mean."
            for loss in self._of.values()
        ]


@dataclass(frozen=True, slots=True)
class _Groups:
    """Some rows, group by group: a weight is value * scale + minimum."""

    scale: Tensor  # float16 [rows, groups]
    minimum: Tensor | None  # The same, of Q4.
    values: Tensor  # uint8 [rows, groups, 16 or 32], two values of Q4 a byte as ggml has them.


def packed_format(formats: Sequence[str]) -> int:
    """The one format for matrices that become one: 4 bits only where all of them have no more."""
    return Q4 if all(format in _NIBBLES for format in formats) else Q8


def is_lossless(blocks: Blocks, format: int) -> bool:
    """Whether each weight is the same number after packing."""
    if format == Q4:
        return blocks.format in ("Q4_0", "Q4_1")
    if blocks.format == "Q8_0":
        # The kernels' products have no room for -128, which no known program writes.
        return not bool((_split(blocks)[:, :, 2:].view(torch.int8) == -128).any())
    return blocks.format in ("Q4_0", "Q5_0")


def packed(blocks: Blocks, format: int, losses: Losses) -> Iterator[Tensor]:
    """The packed bytes of a matrix, a piece after another, each uint8 and contiguous.

    Raises ValueError for weights that are no finite numbers in this format.
    """
    assert blocks.columns % GROUP == 0
    loss = None if is_lossless(blocks, format) else losses.begin(blocks.format)
    step = max(ROWS, _PASS_WEIGHTS // blocks.columns // ROWS * ROWS)
    for first in range(0, blocks.rows, step):
        some = _some(blocks, first, min(blocks.rows, first + step))
        groups = _grouped(some, format, rounds=loss is not None)
        if not _is_finite(groups):
            raise ValueError("it has weights that are no numbers, or too large")
        if loss is not None:
            _account(loss, dequantised(some), _weights(groups))
        yield _laid_out(groups, format)


def _weights(groups: _Groups) -> Tensor:
    """float32 [rows, columns]."""
    scale = groups.scale.float().unsqueeze(2)
    if groups.minimum is None:
        weights = groups.values.view(torch.int8).float() * scale
    else:
        both = torch.cat((groups.values & 15, groups.values >> 4), dim=2)
        weights = both.float() * scale + groups.minimum.float().unsqueeze(2)
    return weights.reshape(groups.scale.shape[0], -1)


def _some(blocks: Blocks, first: int, last: int) -> Blocks:
    return Blocks(blocks.format, last - first, blocks.columns, blocks.data[first:last])


def _account(loss: Loss, old: Tensor, new: Tensor) -> None:
    loss.error += float((new - old).double().square().sum())
    loss.weight += float(old.double().square().sum())


def _is_finite(groups: _Groups) -> bool:
    numbers = (groups.scale,) if groups.minimum is None else (groups.scale, groups.minimum)
    return all(bool(torch.isfinite(each).all()) for each in numbers)


def _split(blocks: Blocks) -> Tensor:
    """uint8 [rows, groups, bytes of a block], of a format with a block for each 32 columns."""
    return blocks.data.view(blocks.rows, blocks.columns // GROUP, -1)


def _halves(split: Tensor, at: int) -> Tensor:
    """The float16 that stands at this byte of each block."""
    return split[:, :, at : at + 2].contiguous().view(torch.float16).squeeze(2)


def _grouped(blocks: Blocks, format: int, rounds: bool) -> _Groups:
    if format == Q4:
        match blocks.format:
            case "Q4_0":
                split = _split(blocks)
                scale = _halves(split, 0)
                return _Groups(scale, (scale.float() * -8.0).half(), split[:, :, 2:])
            case "Q4_1":
                split = _split(blocks)
                return _Groups(_halves(split, 0), _halves(split, 2), split[:, :, 4:])
            case "Q4_K":
                return _grouped_q4_k(blocks)
        raise AssertionError(blocks.format)
    if rounds:
        return _rounded(dequantised(blocks))
    split = _split(blocks)
    values = split[:, :, 2:]
    match blocks.format:
        case "Q4_0":
            values = torch.cat((values & 15, values >> 4), dim=2).view(torch.int8) - 8
        case "Q5_0":
            values = _values_q5_0(values)
    return _Groups(_halves(split, 0), None, values.view(torch.uint8))


def _values_q5_0(raw: Tensor) -> Tensor:
    """int8 -16..15: the fifth bits of the 32 values come first, then their low halves."""
    bits = torch.arange(8, dtype=torch.uint8)
    fifth = ((raw[:, :, :4].unsqueeze(3) >> bits) & 1).flatten(2)
    low = torch.cat((raw[:, :, 4:] & 15, raw[:, :, 4:] >> 4), dim=2)
    return (low | (fifth << 4)).view(torch.int8) - 16


def _grouped_q4_k(blocks: Blocks) -> _Groups:
    """A block of 256: d, dmin, then 8 pairs of 6 bits by which they are multiplied for each 32."""
    raw = blocks.data.view(blocks.rows, -1, 144)
    d, dmin = _halves(raw, 0).float().unsqueeze(2), _halves(raw, 2).float().unsqueeze(2)
    low, middle, high = raw[:, :, 4:8], raw[:, :, 8:12], raw[:, :, 12:16]
    scale = torch.cat((low & 63, (high & 15) | ((low >> 6) << 4)), dim=2)
    minimum = torch.cat((middle & 63, (high >> 4) | ((middle >> 6) << 4)), dim=2)
    # Each 32 bytes hold 32 values in their low halves and the next 32 in their high halves.
    raw_values = raw[:, :, 16:].reshape(blocks.rows, -1, 4, 1, 32)
    values = torch.cat((raw_values & 15, raw_values >> 4), dim=3)
    values = values.view(blocks.rows, -1, 2, 16)
    return _Groups(
        (d * scale.float()).half().flatten(1),
        (-(dmin * minimum.float())).half().flatten(1),
        values[:, :, 0] | (values[:, :, 1] << 4),
    )


def _rounded(weights: Tensor) -> _Groups:
    """The nearest multiple of a scale, the largest of each group being 127 of it. The scale is
    made a float16 first, so that the values make up for its rounding."""
    groups = weights.view(weights.shape[0], -1, GROUP)
    scale = (groups.abs().amax(dim=2) / 127.0).half()
    whole = groups / scale.float().unsqueeze(2)
    whole = torch.where(scale.unsqueeze(2) == 0, 0.0, whole)
    values = whole.round().clamp(-127.0, 127.0).to(torch.int8)
    return _Groups(scale, None, values.view(torch.uint8))


def _laid_out(groups: _Groups, format: int) -> Tensor:
    """Eight rows together, one group of columns after another."""
    rows, count = groups.scale.shape
    blocks = -(-rows // ROWS)
    halves = [groups.scale] if groups.minimum is None else [groups.scale, groups.minimum]
    laid = torch.zeros((blocks, count, GROUP_BYTES[format]), dtype=torch.uint8)
    for index, half in enumerate(halves):
        eights = _filled(half, blocks).view(blocks, ROWS, count).transpose(1, 2).contiguous()
        laid[:, :, 16 * index : 16 * index + 16] = eights.view(torch.uint8)
    values = _filled(groups.values, blocks).view(blocks, ROWS, count, -1, 4)
    laid[:, :, 16 * len(halves) :] = values.permute(0, 2, 3, 1, 4).reshape(blocks, count, -1)
    return laid


def _filled(rows: Tensor, blocks: int) -> Tensor:
    """With rows of zeros up to whole eights."""
    lacking = blocks * ROWS - rows.shape[0]
    if not lacking:
        return rows.contiguous()
    return torch.cat((rows, rows.new_zeros((lacking, *rows.shape[1:]))))
