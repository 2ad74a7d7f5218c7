"""From the blocks of a GGUF file to torch tensors: exactly the values that the file stands for."""

from types import TracebackType
from typing import BinaryIO, Self

import torch
from torch import Tensor

from node.worker.gguf import GgufFile, TensorInfo, bad_model
from protocol.errors import Code, LocalError


def dequantised(raw: bytearray, info: TensorInfo) -> Tensor:
    """float32 of `info.shape` from the bytes of a tensor (the formats are those of ggml)."""
    data = torch.frombuffer(raw, dtype=torch.uint8)
    match info.format.name:
        case "F32":
            return data.view(torch.float32).reshape(info.shape)
        case "F16":
            return data.view(torch.float16).float().reshape(info.shape)
        case "BF16":
            return data.view(torch.bfloat16).float().reshape(info.shape)
    blocks = data.reshape(-1, info.format.size_bytes)
    scale = _half(blocks, 0)
    match info.format.name:
        case "Q8_0":
            values = blocks[:, 2:].view(torch.int8) * scale
        case "Q4_0":
            values = (_nibbles(blocks[:, 2:]) - 8.0) * scale
        case "Q4_1":
            values = _nibbles(blocks[:, 4:]) * scale + _half(blocks, 2)
        case _:
            raise AssertionError(info.format.name)
    return values.reshape(info.shape)


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 that stands at this byte of each block, as a float32 column."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """A block's 16 bytes hold its first 16 values in their low halves, then 16 in the high."""
    return torch.cat((packed & 15, packed >> 4), dim=1).float()


def unpermuted(weight: Tensor, heads: int) -> Tensor:
    """The rows of Q or K as they were before the conversion to GGUF, which interleaves each
    head's two halves: so that the usual rotation of halves is right again."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(1, 2).reshape(rows, columns)


class Weights:
    """An open file of weights; a tensor at a time is in memory twice, never the whole file."""

    def __init__(self, gguf: GgufFile) -> None:
        self.gguf = gguf
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self.gguf.path.open("rb")
        except OSError as error:
            raise LocalError(
                Code.NOT_FOUND,
                f"The weights at {self.gguf.path} cannot be read: {error.strerror}.",
            ) from None
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

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """float32. Raises LocalError BAD_MODEL: no such tensor, another shape, or a file that
        has become shorter since its header was read."""
        assert self._file is not None
        info = self.gguf.tensor(name, shape)
        raw = bytearray(info.size_bytes)
        self._file.seek(info.offset)
        if self._file.readinto(raw) != info.size_bytes:  # type: ignore[attr-defined]
            raise bad_model(self.gguf.path, "it ends in the middle of a tensor")
        return dequantised(raw, info)
