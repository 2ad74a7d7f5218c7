"""A model of ours, timed; asked in lines of JSON, as every program of the engine's benchmark.

    python bench_engine_ours.py WEIGHTS native|avx2|torch THREADS SLOTS

Says {"ready": true, ...}; then each line {"batches": [...], "prompt_tokens": P,
"decode_tokens": N, "prefills": [...]} is answered by rates, {"decode 8": tokens a second, ...}.
"""

import json
import sys
from pathlib import Path
from typing import Final

import torch
from bench_engine_rates import decode_rate, prefill_rate

from node.worker.engine.device import choose
from node.worker.engine.kernels import library
from node.worker.engine.kernels.library import Kernels
from node.worker.engine.model import BLOCK_TOKENS, LoadedModel
from node.worker.engine.native_model import NativeModel
from node.worker.engine.opening import open_model
from node.worker.engine.packed_model import MemorySink, PackedModel, pack_model, packed_model_bytes
from node.worker.engine.room import Room
from node.worker.gguf import read_gguf
from node.worker.pipe import File, Load
from node.worker.weights import open_weights
from protocol.ids import ModelId

CONTEXT_TOKENS: Final = 1024
CAPPED_PATH: Final = "avx2"


def open_whole(weights: Path, engine: str, threads: int, slots: int) -> tuple[LoadedModel, str]:
    """As a worker opens it."""
    load = Load(
        model=ModelId(bytes(32)),
        name=weights.name,
        files=[File("weights", weights.name, str(weights))],
        packed_path="",
        chat_template="",
        slots=slots,
        context_tokens_max=CONTEXT_TOKENS,
        memory_bytes_max=0,
        public_prefixes=[],
    )
    opened = open_model(
        load, choose("cpu", "bf16" if engine == "torch" else "auto"), engine, threads
    )
    return opened.model, " ".join(filter(None, (opened.engine, opened.note)))


def open_capped(weights: Path, kernels: Kernels, threads: int, slots: int) -> LoadedModel:
    """The same weights and kernels, as on a processor that has AVX2 and no more."""
    numbers = {name: number for number, name in kernels.paths()}
    if CAPPED_PATH not in numbers:
        raise SystemExit(f"This processor has no {CAPPED_PATH}.")
    with open_weights([File("weights", weights.name, str(weights))]) as opened:
        sink = MemorySink(packed_model_bytes(opened))
        index = pack_model(opened, sink)
    blocks = slots * CONTEXT_TOKENS // BLOCK_TOKENS
    room = Room(blocks, CONTEXT_TOKENS, "")
    return NativeModel(PackedModel(index, sink.data), kernels, room, threads, numbers[CAPPED_PATH])


def main() -> None:
    weights, engine, threads, slots = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:5])
    torch.set_num_threads(threads)
    kernels = library.load()
    if engine == CAPPED_PATH:
        if kernels is None:
            raise SystemExit("There are no compiled kernels: scripts/set_up.sh builds them.")
        model, name = open_capped(weights, kernels, threads, slots), "native (avx2)"
    else:
        model, name = open_whole(weights, engine, threads, slots)
    decode_rate(model, 1, 16, 2)  # What is lazy is done by then, as on the other sides.
    size = sum(info.size_bytes for info in read_gguf(weights).tensors.values())
    print(json.dumps({"ready": True, "engine": name, "weight_bytes": size}), flush=True)
    for line in sys.stdin:
        work = json.loads(line)
        rates = {
            f"decode {batch}": decode_rate(
                model, batch, work["prompt_tokens"], work["decode_tokens"]
            )
            for batch in work["batches"]
        }
        rates |= {f"prefill {size}": prefill_rate(model, size) for size in work["prefills"]}
        print(json.dumps(rates), flush=True)


if __name__ == "__main__":
    main()
