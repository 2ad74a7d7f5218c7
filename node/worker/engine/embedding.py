"""One loaded encoder and its tasks: texts in, vectors out."""

import ctypes
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from node.worker.encoder_shape import EncoderShape, encoder_shape
from node.worker.engine.architectures.bert import Bert
from node.worker.engine.device import Device
from node.worker.engine.embed_queue import STEP_TOKENS_MAX, EmbedQueue
from node.worker.engine.engine import Facts, Say
from node.worker.engine.model import Rates
from node.worker.engine.room import SPARE_BYTES, free_bytes
from node.worker.pipe import Add, Embed, Embedded, Ended, File, Load, began
from node.worker.safetensors import SafetensorsFiles
from node.worker.weight_file import bad_model
from node.worker.wordpiece import TextTokenizer
from protocol.errors import Code, LocalError
from protocol.job.kinds import MODEL_EMBEDS
from protocol.job.vectors import vectors_grouped

TEXT_TOKENS_LEAST: Final = 3  # One token, and those at both ends.
MEASURED_TEXT_TOKENS: Final = 64
MEASURE_SECONDS_MAX: Final = 2.0
_NAME: Final = "embeddings.word_embeddings.weight"
_PREFIXES: Final = ("", "bert.")  # Without and with a head for some other use.


def is_encoder(files: Sequence[File]) -> bool:
    """Whether a model's files are those of an encoder, told by the names of its tensors. Raises
    LocalError NOT_FOUND or BAD_MODEL."""
    weights = _weights(files)
    if not weights or weights[0].suffix != ".safetensors":
        return False
    tensors = SafetensorsFiles(weights).tensors
    return any(prefix + _NAME in tensors for prefix in _PREFIXES)


class EmbeddingEngine:
    """Implements ServedModel for encoders.

    Raises LocalError from the start: NOT_FOUND, BAD_MODEL or UNAVAILABLE (memory).
    """

    def __init__(self, load: Load, device: Device) -> None:
        shape = encoder_shape(load.files)
        if load.context_tokens_max:
            least = min(shape.tokens_max, max(TEXT_TOKENS_LEAST, load.context_tokens_max))
            shape = replace(shape, tokens_max=least)
        _check_memory(load, shape, device)
        self._tokenizer = TextTokenizer(load.files, shape.tokens_max, shape.vocabulary)
        files = SafetensorsFiles(_weights(load.files))
        prefix = next((p for p in _PREFIXES if p + _NAME in files.tensors), None)
        if prefix is None:
            raise bad_model(files.paths[0], f"it has no tensor {_NAME}, as encoders have")

        def read(name: str, size: tuple[int, ...]) -> Tensor:
            return files.tensor(prefix + name, size)

        with files:
            self._bert = Bert(shape, read, device.torch_device, device.numbers)
        self._slots = load.slots
        self._queue = EmbedQueue()
        self.facts: Final = Facts(
            kind=MODEL_EMBEDS,
            mode=f"{device.compute}/safetensors",
            context_tokens=shape.tokens_max,
            vocabulary=shape.vocabulary,
            width=shape.width,
            engine=f"torch ({device.compute})",
            note="",
        )

    @property
    def idle(self) -> bool:
        return not self._queue

    def add(self, task: Add | Embed, say: Say) -> None:
        """As ServedModel.add. It tells the tokens of all texts together: what of a text is beyond
        the model's context is not read and not counted."""
        if isinstance(task, Add):
            raise LocalError(Code.BAD_REQUEST, "This model makes vectors: it does not write.")
        owner = not task.requester
        if self._queue.count(owner) >= self._slots:
            raise LocalError(
                Code.BUSY, "All slots of this model are taken: try again soon.", retry_ms=1000
            )
        texts = self._tokenizer.encode(task.texts)
        ids = [token for text in texts for token in text]
        self._queue.add(task.task, texts, owner)
        say(began(task.task, ids))

    def cancel(self, task: int, say: Say) -> None:
        if self._queue.cancel(task):
            say(Ended(task, "cancelled"))

    def step(self, say: Say) -> None:
        """Compute the next texts, of whichever tasks, and say what is whole then."""
        places = self._queue.next()
        if not places:
            return
        rows = self._bert.encode([place.ids for place in places])
        for task, vectors, last in self._queue.done(places, _vectors(rows)):
            for group in vectors_grouped(vectors):
                say(Embedded(task, list(group)))
            if last:
                say(Ended(task, "stop"))

    def measure(self) -> Rates:
        """How fast texts are read here. The first step is not counted: it pays for what is
        prepared once."""
        assert self.idle
        length = min(MEASURED_TEXT_TOKENS, self.facts.context_tokens)
        text = [number % self.facts.vocabulary for number in range(length)]
        texts = [text] * (STEP_TOKENS_MAX // length)
        self._bert.encode(texts)
        tokens, began = 0, time.perf_counter()
        while tokens < 4 * STEP_TOKENS_MAX and time.perf_counter() - began < MEASURE_SECONDS_MAX:
            self._bert.encode(texts)
            tokens += length * len(texts)
        seconds = max(time.perf_counter() - began, 1e-6)
        return Rates(prefill=round(tokens * 1000 / seconds), decode=0)


def _weights(files: Sequence[File]) -> list[Path]:
    return [Path(file.path) for file in files if file.role == "weights"]


def _vectors(rows: Tensor) -> list[bytes]:
    """float32 numbers, little endian as on every machine that torch is built for, row by row."""
    kept = rows.to(torch.float32).contiguous()
    size = kept.shape[1] * kept.element_size()
    raw = ctypes.string_at(kept.data_ptr(), kept.numel() * kept.element_size())
    return [raw[start : start + size] for start in range(0, len(raw), size)]


def _check_memory(load: Load, shape: EncoderShape, device: Device) -> None:
    """Before anything is read. A step's rows are small beside the weights."""
    needed = shape.parameters * 4
    have = load.memory_bytes_max or max(0, free_bytes() - SPARE_BYTES)
    if device.torch_device.type == "cpu" and needed > have:
        raise LocalError(
            Code.UNAVAILABLE,
            f"{load.name} needs {needed >> 20} MiB of memory and there are {have >> 20} MiB: "
            "share a smaller model, or allow it more memory.",
        )
