"""Our sentence encoder, timed on MiniLM; asked in lines of JSON as the others' are.

    python bench_engine_vectors.py FOLDER fp32|bf16 THREADS

Says {"ready": true}; then each line {"texts": [...]} is answered by {"seconds": ..., "vectors":
[...]}, as bench_engine_embedders.py does.
"""

import json
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from node.worker.engine.device import choose
from node.worker.engine.embedding import EmbeddingEngine
from node.worker.pipe import Began, Embed, Embedded, Ended, Failed, File, Load, Progress
from protocol.ids import ModelId

MODEL: Final = ModelId(bytes(32))
FILES: Final = {
    "weights": "model.safetensors",
    "tokenizer": "tokenizer.json",
    "config": "config.json",
}
TEXTS_EACH: Final = 32  # Of one task: texts come to a node in orders of some size.


class Encoder:
    """The engine as the worker's loop drives it, without the pipe."""

    def __init__(self, folder: Path, numbers: str) -> None:
        files = [File(role, name, str(folder / name)) for role, name in FILES.items()]
        load = Load(
            model=MODEL,
            name="minilm",
            files=files,
            packed_path="",
            chat_template="",
            slots=64,
            context_tokens_max=0,
            memory_bytes_max=0,
            public_prefixes=[],
        )
        self._engine = EmbeddingEngine(load, choose("cpu", numbers.replace("fp", "f")))

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        vectors: dict[int, list[bytes]] = {}

        def say(message: Began | Progress | Embedded | Ended | Failed) -> None:
            if isinstance(message, Embedded):
                vectors.setdefault(message.task, []).extend(message.vectors)
            elif isinstance(message, Failed):
                raise SystemExit(message.sentence)

        for number in range(0, len(texts), TEXTS_EACH):
            some = list(texts[number : number + TEXTS_EACH])
            self._engine.add(Embed(number, MODEL, b"", some), say)
        while not self._engine.idle:
            self._engine.step(say)
        return [vector for number in sorted(vectors) for vector in vectors[number]]


def main() -> None:
    folder, numbers, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(threads)
    encoder = Encoder(folder, numbers)
    encoder.embed(["What is lazy is done by then."] * TEXTS_EACH)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        texts = json.loads(line)["texts"]
        began = time.perf_counter()
        vectors = encoder.embed(texts)
        seconds = time.perf_counter() - began
        numbers_of = [struct.unpack(f"<{len(one) // 4}f", one) for one in vectors]
        print(json.dumps({"seconds": seconds, "vectors": numbers_of}), flush=True)


if __name__ == "__main__":
    main()
