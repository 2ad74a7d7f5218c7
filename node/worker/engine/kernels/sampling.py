"""The exact sampler: sample.c by ctypes, with the signature of node.worker.engine.sampler."""

import ctypes
from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from node.worker.engine.model import Alternative, Draw
from node.worker.engine.noise import noise_key
from node.worker.engine.sampler import no_number, nothing_allowed
from protocol.units import MILLION

_OK, _NO_NUMBER, _NOTHING_ALLOWED = 0, 16, 17  # As in ayni_kernels.h and ayni_sample.h.
_INT, _LONG, _POINTER = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


class _Draw(ctypes.Structure):
    """ayni_draw."""

    _fields_ = (
        ("key", ctypes.c_uint64),
        *((name, _LONG) for name in ("temperature", "top_p", "min_p")),
        *((name, _LONG) for name in ("repetition", "frequency", "presence")),
        *((name, _POINTER) for name in ("prompt", "answer", "bias_token", "bias")),
        ("allowed", ctypes.c_char_p),
        *((name, _INT) for name in ("vocabulary", "prompt_tokens", "answer_tokens", "biases")),
        *((name, _INT) for name in ("top_k", "path", "alternatives")),
    )


class NativeSampler:
    """Draws by the kernel library, on a path that it and the processor have (0 is everywhere).
    Not for two threads at once: it keeps its scratch memory."""

    def __init__(self, library: ctypes.CDLL, path: int = 0) -> None:
        self._path = path
        self._sample = library.ayni_sample
        self._sample.argtypes = [_POINTER, ctypes.POINTER(_Draw), _POINTER, _POINTER, _POINTER]
        self._sample.restype = _INT
        self._scratch_bytes = library.ayni_sample_scratch_bytes
        self._scratch_bytes.argtypes = [_INT]
        self._scratch_bytes.restype = ctypes.c_size_t
        self._scratch = torch.empty(0, dtype=torch.uint8)

    def drawn(self, logits: Tensor, draw: Draw) -> tuple[int, Sequence[Alternative]]:
        """The next token from one row of float32 logits [vocabulary] on the CPU, and what
        `sampling.logprobs` asks for. The interpreter is free for other threads meanwhile.

        Raises LocalError WORKER_FAILED where the logits are no numbers or all are masked.
        """
        assert logits.dtype == torch.float32
        assert logits.device.type == "cpu"
        assert logits.dim() == 1
        logits = logits.contiguous()
        vocabulary, asked = logits.numel(), draw.sampling.logprobs
        assert draw.allowed is None or 8 * len(draw.allowed) >= vocabulary
        scratch_bytes = self._scratch_bytes(vocabulary)
        if self._scratch.numel() < scratch_bytes:
            self._scratch = torch.empty(scratch_bytes, dtype=torch.uint8)
        tokens, micrologprobs = (_INT * max(1, asked))(), (_LONG * max(1, asked))()
        arrays = _arrays(draw)
        native = _native(draw, self._path, vocabulary, arrays)
        result = self._sample(
            logits.data_ptr(), native, self._scratch.data_ptr(), tokens, micrologprobs
        )
        if result == _NO_NUMBER:
            raise no_number()
        if result == _NOTHING_ALLOWED:
            raise nothing_allowed()
        assert result == _OK, "what is to be drawn was never checked"
        alternatives = [
            Alternative(token, micrologprob)
            for token, micrologprob in zip(tokens[:asked], micrologprobs[:asked], strict=True)
            if token >= 0
        ]
        return tokens[0], alternatives


def _arrays(draw: Draw) -> tuple["array[int]", "array[int]", "array[int]", "array[int]"]:
    """Prompt, answer, and the biases' tokens and numbers; empty where nothing looks at them."""
    sampling = draw.sampling
    told = sampling.frequency_penalty_millionths or sampling.presence_penalty_millionths
    repetition = sampling.repetition_penalty_millionths != MILLION
    return (
        array("i", draw.prompt if repetition else ()),
        array("i", draw.answer if repetition or told else ()),
        array("i", [token for token, _ in sampling.bias]),
        array("q", [bias for _, bias in sampling.bias]),
    )


def _native(draw: Draw, path: int, vocabulary: int, arrays: Sequence["array[int]"]) -> _Draw:
    """The struct; its pointers hold as long as `draw` and `arrays` do."""
    sampling = draw.sampling
    prompt, answer, bias_token, bias = (values.buffer_info() for values in arrays)
    values: dict[str, Any] = {
        "key": noise_key(draw.seed, draw.t),
        "temperature": sampling.temperature_millionths,
        "top_p": sampling.top_p_millionths,
        "min_p": sampling.min_p_millionths,
        "repetition": sampling.repetition_penalty_millionths,
        "frequency": sampling.frequency_penalty_millionths,
        "presence": sampling.presence_penalty_millionths,
        "prompt": prompt[0],
        "answer": answer[0],
        "bias_token": bias_token[0],
        "bias": bias[0],
        "allowed": draw.allowed,
        "vocabulary": vocabulary,
        "prompt_tokens": prompt[1],
        "answer_tokens": answer[1],
        "biases": bias_token[1],
        "top_k": sampling.top_k,
        "path": path,
        "alternatives": sampling.logprobs,
    }
    return _Draw(**values)
