"""Weights in a GGUF file."""

from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from torch import Tensor

from node.worker.gguf import GgufFile, TensorInfo
from node.worker.gguf_shape import shape_of
from node.worker.quantised import Blocks, dequantised
from node.worker.weight_file import bad_model, open_file, part

INTERLEAVED: Final = ("llama",)  # Families whose queries and keys the conversion reorders.


class GgufWeights:
    """Implements node.worker.weights.Weights. Raises LocalError from the start: BAD_MODEL for a
    model of a kind that this engine cannot run, NOT_FOUND."""

    container: Final = "gguf"

    def __init__(self, gguf: GgufFile) -> None:
        self.gguf = gguf
        self.shape = shape_of(gguf)
        self._file: BinaryIO | None = None

    @property
    def path(self) -> Path:
        return self.gguf.path

    def __enter__(self) -> Self:
        self._file = open_file(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self.gguf.tensors

    def format(self, name: str) -> str:
        info = self.gguf.tensors.get(name)
        if info is None:
            raise bad_model(self.path, f"it has no tensor {name}")
        return info.format.name

    def blocks(self, name: str, rows: int, columns: int) -> Blocks:
        blocks = self._blocks(self.gguf.tensor(name, (rows, columns)))
        heads = self._interleaved_heads(name)
        if not heads:
            return blocks
        return Blocks(blocks.format, rows, columns, halves_first(blocks.data, heads))

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        values = dequantised(self._blocks(self.gguf.tensor(name, shape))).reshape(shape)
        heads = self._interleaved_heads(name)
        return halves_first(values, heads) if heads else values

    def _blocks(self, info: TensorInfo) -> Blocks:
        assert self._file is not None
        raw = part(self._file, self.path, info.offset, info.size_bytes)
        columns = info.shape[-1]
        row_bytes = columns // info.format.values * info.format.size_bytes
        data = raw.reshape(-1, row_bytes)
        return Blocks(info.format.name, data.shape[0], columns, data)

    def _interleaved_heads(self, name: str) -> int:
        """How many heads' rows of this tensor stand in another order in the file; mostly 0."""
        if self.shape.family not in INTERLEAVED:
            return 0
        what = name.split(".")[-2]
        return {"attn_q": self.shape.heads, "attn_k": self.shape.key_heads}.get(what, 0)


def halves_first(rows: Tensor, heads: int) -> Tensor:
    """The rows of Q or K as they were before the conversion to GGUF, which interleaves each
    head's two halves: so that the usual rotation of halves is right again."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1)
    return pairs.transpose(1, 2).reshape(rows.shape)
