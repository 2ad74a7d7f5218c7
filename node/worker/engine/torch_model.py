"""A model that torch runs: the readable reference, and the way on GPUs and without a compiler."""

import ctypes
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from node.worker.engine.architectures.batch import batch_of
from node.worker.engine.architectures.decoder import Decoder, has_local_turns
from node.worker.engine.architectures.fixed_decode import FixedDecode, captured
from node.worker.engine.device import Device
from node.worker.engine.measuring import measured
from node.worker.engine.model import BLOCK_TOKENS, Drawn, Piece, Rates, Token
from node.worker.engine.room import Need
from node.worker.engine.sampler import drawn
from node.worker.shape import Shape
from node.worker.weights import Weights
from protocol.errors import Code, LocalError


def need_of(shape: Shape, device: Device) -> Need:
    """What a model takes on this device."""
    s, size = shape, device.numbers.itemsize
    queries, keys = s.heads * s.head_width, s.key_heads * s.head_width
    layer = s.width * (2 * queries + 2 * keys + 3 * s.inner_width)
    vocabulary = s.vocabulary * s.width
    weights = s.layers * layer + vocabulary * (1 if s.tied else 2)
    # A tensor is in memory twice while it is read, and a step has logits of all who draw.
    largest = max(vocabulary, 2 * s.width * s.inner_width)
    rotations = 4 * s.head_width * (2 if has_local_turns(s) else 1)
    return Need(size * (weights + largest), 2 * size * s.layers * keys * BLOCK_TOKENS, rotations)


class TorchModel:
    """Implements node.worker.engine.model.LoadedModel."""

    is_exact: Final = False

    def __init__(self, weights: Weights, device: Device, blocks: int, context_tokens: int) -> None:
        """`weights` are open. What fits is asked before (need_of, node.worker.engine.room).

        Raises LocalError BAD_MODEL for weights that do not fit their own shape, UNAVAILABLE when
        memory does not suffice after all.
        """
        shape = weights.shape
        assert blocks >= 1
        assert 1 <= context_tokens <= shape.context_tokens
        self.blocks = blocks
        self.vocabulary = shape.vocabulary
        self.width = shape.width
        self.context_tokens = context_tokens
        self.mode = f"{device.compute}/{weights.container}"
        self.engine = f"torch ({device.compute.partition('-')[2]})"
        self._device = device.torch_device
        self._window = shape.window
        try:
            with torch.inference_mode():
                # The last block is nobody's: rows that fill a graph up write there.
                self._decoder = Decoder(weights, device, blocks + 1, context_tokens)
                self._fixed = self._graphs(device)
        except (MemoryError, torch.OutOfMemoryError):
            raise _no_memory(weights) from None
        except RuntimeError as error:
            # Torch's allocator for the CPU has no class of error of its own.
            if "allocate memory" in str(error):
                raise _no_memory(weights) from None
            raise

    def _graphs(self, device: Device) -> FixedDecode | None:
        """Ready for the shortest sequences, so that the first answers do not wait for it; None
        where torch has no graphs, or cannot capture this model."""
        if device.torch_device.type != "cuda":
            return None
        fixed = FixedDecode(self._decoder, device.torch_device, self.blocks, captured)
        try:
            fixed.prepare()
        except RuntimeError:
            torch.cuda.synchronize(device.torch_device)
            return None
        self.engine = self.engine.replace(")", ", graphs)")
        return fixed

    def step(self, pieces: Sequence[Piece]) -> Sequence[Sequence[Drawn]]:
        with torch.inference_mode():
            hidden, logits = self._repeated(pieces) or self._computed(pieces)
            rows = iter(zip(logits.cpu(), _row_bytes(hidden), strict=True))
            return [_drawn(piece, rows) for piece in pieces]

    def _repeated(self, pieces: Sequence[Piece]) -> tuple[Tensor, Tensor] | None:
        """Hidden rows and logits from a graph; None where there is none for such a step."""
        if self._fixed is None or not self._fixed.takes(pieces):
            return None
        try:
            return self._fixed.step(pieces)
        except RuntimeError:
            # A graph of another size found no memory: without them it goes on as well.
            self._fixed = None
            self.engine = self.engine.replace(", graphs", "")
            return None

    def _computed(self, pieces: Sequence[Piece]) -> tuple[Tensor, Tensor]:
        together = self._device.type != "cpu"
        batch = batch_of(pieces, self._window, self._device, together=together)
        hidden = self._decoder.hidden(batch)
        if not hidden.shape[0]:
            return hidden, hidden
        return hidden, self._decoder.logits(hidden)

    def measure(self) -> Rates:
        return measured(self)


def _drawn(piece: Piece, rows: Iterator[tuple[Tensor, bytes]]) -> list[Drawn]:
    """What follows the places of a piece, each from the next row; after an error only that."""
    results: list[Drawn] = []
    failed: LocalError | None = None
    for draw in piece.draws:
        logits, row = next(rows)
        if failed is None:
            try:
                token, alternatives = drawn(logits, draw)
                results.append(Token(token, row, alternatives))
                continue
            except LocalError as error:
                failed = error
        results.append(failed)
    return results


def _row_bytes(hidden: Tensor) -> Iterator[bytes]:
    """Each row as bfloat16, little endian as every machine that torch runs on."""
    rows = hidden.to("cpu", torch.bfloat16).contiguous()
    size = rows.shape[1] * rows.itemsize
    raw = ctypes.string_at(rows.data_ptr(), rows.shape[0] * size)
    return (raw[start : start + size] for start in range(0, len(raw), size))


def _no_memory(weights: Weights) -> LocalError:
    return LocalError(
        Code.UNAVAILABLE,
        f"There is not enough memory for {weights.path.name}: share a smaller model, fewer slots "
        "or a shorter context.",
    )
