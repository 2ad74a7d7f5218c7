"""A model that torch runs: reads the file, steps for the scheduler, and times itself."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from node.worker.engine.architectures.llama import Llama, shape_of
from node.worker.engine.device import Device
from node.worker.engine.model import Draw, Drawn, Piece
from node.worker.engine.sampler import drawn
from node.worker.gguf import GgufFile
from node.worker.weights import Weights
from protocol.errors import Code, LocalError
from protocol.job.sampling import Sampling

MEASURED_PROMPT_TOKENS: Final = 128
MEASURED_ANSWER_TOKENS: Final = 16
MEASURE_SECONDS_MAX: Final = 2.0  # For each of the two rates; a slow machine measures fewer.
_PIECE_TOKENS: Final = 32


@dataclass(frozen=True, slots=True)
class Rates:
    """Milli-tokens a second."""

    prefill: int
    decode: int


class TorchModel:
    """Implements node.worker.engine.model.Model."""

    def __init__(self, gguf: GgufFile, device: Device, slots: int, context_tokens_max: int) -> None:
        """Raises LocalError BAD_MODEL for a file that this engine cannot run, UNAVAILABLE when
        memory does not suffice."""
        shape = shape_of(gguf)
        made_for = shape.context_tokens
        self.context_tokens = min(context_tokens_max or made_for, made_for)
        self.mode = f"{device.compute}/gguf"
        self.vocabulary = shape.vocabulary
        try:
            with torch.inference_mode(), Weights(gguf) as weights:
                self._llama = Llama(weights, shape, device, slots, self.context_tokens)
        except (MemoryError, torch.OutOfMemoryError):
            raise _no_memory(gguf.path) from None
        except RuntimeError as error:
            # Torch's allocator for the CPU has no class of error of its own.
            if "allocate memory" in str(error):
                raise _no_memory(gguf.path) from None
            raise

    def step(self, pieces: Sequence[Piece]) -> Sequence[Drawn]:
        with torch.inference_mode():
            hidden = self._llama.hidden(pieces)
            draws = [piece.draw for piece in pieces if piece.draw is not None]
            rows = iter(self._llama.logits(hidden)) if draws else iter(())
            results: list[Drawn] = []
            for piece in pieces:
                if piece.draw is None:
                    results.append(None)
                    continue
                try:
                    results.append(drawn(next(rows), piece.draw))
                except LocalError as error:
                    results.append(error)
            return results

    def measure(self) -> Rates:
        """Time a prompt and an answer in slot 0, which must be free. The first piece is not
        counted: it pays for what torch prepares once."""
        room = self.context_tokens - MEASURED_ANSWER_TOKENS
        prompt = [n % self.vocabulary for n in range(max(1, min(MEASURED_PROMPT_TOKENS, room)))]
        self.step([Piece(0, 0, prompt[:_PIECE_TOKENS], _greedy())])
        began, at = time.perf_counter(), 0
        while at < len(prompt) and time.perf_counter() - began < MEASURE_SECONDS_MAX:
            piece = prompt[at : at + _PIECE_TOKENS]
            self.step([Piece(0, at, piece, _greedy())])
            at += len(piece)
        prefill = _rate(at, time.perf_counter() - began)
        began, count = time.perf_counter(), 0
        most = min(MEASURED_ANSWER_TOKENS, self.context_tokens - at)
        while count < most and time.perf_counter() - began < MEASURE_SECONDS_MAX:
            self.step([Piece(0, at + count, [count % self.vocabulary], _greedy())])
            count += 1
        return Rates(prefill, _rate(count, time.perf_counter() - began) if count else prefill)


def _greedy() -> Draw:
    return Draw(Sampling(), bytes(32), 0, (), ())


def _rate(tokens: int, seconds: float) -> int:
    return round(tokens * 1000 / max(seconds, 1e-6))


def _no_memory(path: Path) -> LocalError:
    return LocalError(
        Code.UNAVAILABLE,
        f"There is not enough memory for {path.name}: share a smaller model, fewer slots or a "
        "shorter context.",
    )
