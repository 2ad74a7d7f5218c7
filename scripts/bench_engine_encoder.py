"""Writes MiniLM as ONNX, for onnxruntime and fastembed; run by the peers' Python.

    python bench_engine_encoder.py FOLDER

FOLDER is the encoder as sentence-transformers reads it. FOLDER/onnx is written: the model with the
last hidden rows as its output and batch and length left open, and the tokenizer without its
padding to 128 tokens, which would make them work on nothing but padding.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from transformers import AutoModel

NAMES: Final = ("input_ids", "attention_mask", "token_type_ids")
COPIED: Final = ("config.json", "special_tokens_map.json", "tokenizer_config.json")
ERROR_MAX: Final = 1e-4


class Rows(torch.nn.Module):
    """The encoder as a function of three tensors: that is what an ONNX graph is."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        rows: torch.Tensor = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        return rows


def check(rows: Rows, path: Path) -> None:
    """The graph must give what the model gives, with padding too: an exporter may be wrong (the
    newer one of torch 2.13 is, for this model)."""
    ids = torch.randint(1000, 20000, (3, 24), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 20:] = 0
    given: tuple[Any, ...] = (ids, mask, torch.zeros_like(ids))
    wanted = rows(*given).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    named = {name: tensor.numpy() for name, tensor in zip(NAMES, given, strict=True)}
    inputs = {one.name: named[one.name] for one in session.get_inputs()}
    error = np.abs(session.run(None, inputs)[0] - wanted)[mask.bool().numpy()].max()
    if error > ERROR_MAX:
        raise SystemExit(f"The ONNX graph differs from the model by {error:.2g}.")


def write(folder: Path) -> None:
    target = folder / "onnx"
    target.mkdir()
    for name in COPIED:
        shutil.copy(folder / name, target / name)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["padding"] = None
    (target / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    rows = Rows(folder).eval()
    ones = torch.ones(2, 16, dtype=torch.int64)
    with torch.no_grad():
        torch.onnx.export(
            rows,
            (ones, ones, torch.zeros_like(ones)),
            str(target / "model.onnx"),
            input_names=list(NAMES),
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in NAMES},
            dynamo=False,
        )
        check(rows, target / "model.onnx")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
