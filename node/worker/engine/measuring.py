"""Times a model as its users will feel it: a prompt, then an answer, token by token."""

import time
from typing import Final

from node.worker.engine.blocks import blocks_for
from node.worker.engine.model import Draw, LoadedModel, Piece, Rates
from protocol.job.sampling import Sampling

PROMPT_TOKENS: Final = 128
ANSWER_TOKENS: Final = 16
SECONDS_MAX: Final = 2.0  # For each of the two rates; a slow machine measures fewer.
_PIECE_TOKENS: Final = 32


def measured(model: LoadedModel) -> Rates:
    """Time a prompt and an answer in the first blocks, which must be free. The first piece is not
    counted: it pays for what is prepared once."""
    room = model.context_tokens - ANSWER_TOKENS
    prompt = [n % model.vocabulary for n in range(max(1, min(PROMPT_TOKENS, room)))]
    blocks = range(blocks_for(len(prompt) + ANSWER_TOKENS))
    draws = [Draw(Sampling(), bytes(32), 0, (), ())]
    model.step([Piece(blocks, 0, prompt[:_PIECE_TOKENS], draws)])
    began, at = time.perf_counter(), 0
    while at < len(prompt) and time.perf_counter() - began < SECONDS_MAX:
        piece = prompt[at : at + _PIECE_TOKENS]
        model.step([Piece(blocks, at, piece, draws)])
        at += len(piece)
    prefill = _rate(at, time.perf_counter() - began)
    began, count = time.perf_counter(), 0
    most = min(ANSWER_TOKENS, model.context_tokens - at)
    while count < most and time.perf_counter() - began < SECONDS_MAX:
        model.step([Piece(blocks, at + count, [count % model.vocabulary], draws)])
        count += 1
    return Rates(prefill, _rate(count, time.perf_counter() - began) if count else prefill)


def _rate(tokens: int, seconds: float) -> int:
    return round(tokens * 1000 / max(seconds, 1e-6))
