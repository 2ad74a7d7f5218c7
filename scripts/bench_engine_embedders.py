"""Others' sentence encoders, timed on MiniLM; run by the peers' Python.

    python bench_engine_embedders.py FOLDER sentence-transformers|fastembed|onnxruntime THREADS

Says {"ready": true}; then each line {"texts": [...]} is answered by {"seconds": ..., "vectors":
[...]}, the vectors of length 1, in the order of the texts.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Embed = Callable[[Sequence[str]], Vectors]
BATCH_TEXTS: Final = 32
TOKENS_MAX: Final = 256  # sentence-transformers' own bound of this model.
WIDTH: Final = 384


def sentence_transformers(folder: Path, threads: int) -> Embed:
    """It sorts by length by itself."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(str(folder), device="cpu")

    def embed(texts: Sequence[str]) -> Vectors:
        found: Vectors = model.encode(
            list(texts), batch_size=BATCH_TEXTS, normalize_embeddings=True
        )
        return found

    return embed


def fastembed(folder: Path, threads: int) -> Embed:
    """On the same ONNX as onnxruntime below, by its own way of batching."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "local/minilm"
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(url="local"),
        dim=WIDTH,
        model_file="model.onnx",
    )
    model = TextEmbedding(name, threads=threads, specific_model_path=str(folder / "onnx"))

    def embed(texts: Sequence[str]) -> Vectors:
        return np.stack(list(model.embed(list(texts), batch_size=BATCH_TEXTS)))

    return embed


def onnxruntime(folder: Path, threads: int) -> Embed:
    """The plainest program that uses it well: texts sorted by length, batches padded."""
    import onnxruntime as runtime
    from tokenizers import Tokenizer

    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(
        folder / "onnx" / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    tokenizer = Tokenizer.from_file(str(folder / "onnx" / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS_MAX)
    tokenizer.enable_padding()

    def embed(texts: Sequence[str]) -> Vectors:
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: Vectors = np.zeros((len(texts), WIDTH), np.float32)
        for at in range(0, len(order), BATCH_TEXTS):
            places = order[at : at + BATCH_TEXTS]
            encoded = tokenizer.encode_batch([texts[place] for place in places])
            ids = np.array([one.ids for one in encoded], np.int64)
            mask = np.array([one.attention_mask for one in encoded], np.int64)
            given = {
                "input_ids": ids,
                "attention_mask": mask,
                "token_type_ids": np.zeros_like(ids),
            }
            names = {one.name for one in session.get_inputs()}
            rows = session.run(None, {name: given[name] for name in names})[0]
            weights = mask[..., None].astype(np.float32)
            means = (rows * weights).sum(1) / weights.sum(1)
            found[places] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return found

    return embed


def main() -> None:
    folder, kind, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    makers = {
        "sentence-transformers": sentence_transformers,
        "fastembed": fastembed,
        "onnxruntime": onnxruntime,
    }
    embed = makers[kind](folder, threads)
    embed(["What is lazy is done by then."] * BATCH_TEXTS)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        texts = json.loads(line)["texts"]
        began = time.perf_counter()
        vectors = embed(texts)
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "vectors": vectors.tolist()}), flush=True)


if __name__ == "__main__":
    main()
