"""Runs a decoder on pieces, below sampling: for tests that look at logits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from node.worker.engine.architectures.batch import batch_of
from node.worker.engine.architectures.decoder import Decoder
from node.worker.engine.device import Device, choose
from node.worker.engine.model import Draw, Piece
from node.worker.pipe import File
from node.worker.weights import open_weights
from protocol.job.sampling import Sampling

DRAW: Final = Draw(Sampling(), bytes(32), 0, [], [])
CPU: Final = choose("cpu", "f32")


def gguf_file(path: Path) -> list[File]:
    return [File("weights", path.name, str(path))]


class Decoding:
    """A model with its cache."""

    def __init__(
        self,
        files: Sequence[File],
        blocks: int = 24,
        device: Device = CPU,
        *,
        together: bool = False,
    ) -> None:
        """`together` as on a GPU (batch_of)."""
        self._together = together
        self._device = device.torch_device
        with torch.inference_mode(), open_weights(files) as weights:
            self.shape = weights.shape
            context = min(256, weights.shape.context_tokens)
            self.decoder = Decoder(weights, device, blocks, context)

    def logits(self, *pieces: Piece) -> Tensor:
        """float32, for every draw of the pieces: [draws, vocabulary]."""
        with torch.inference_mode():
            batch = batch_of(pieces, self.shape.window, self._device, together=self._together)
            return self.decoder.logits(self.decoder.hidden(batch)).cpu()
