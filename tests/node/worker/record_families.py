"""Writes tests/vectors/families.json: what transformers makes of the tiny models. Run on purpose,
by hand or by the slow test of the same; never by an ordinary test.

python -m tests.node.worker.record_families
"""

import json
import tempfile
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.node.worker import tiny_families

FILE: Final = Path(__file__).parents[2] / "vectors" / "families.json"
IDS: Final = [(7 * n * n + 3 * n) % 96 for n in range(90)]
SHOWN: Final = (3, 40, 89)  # Before any window ends, after, and the last.


def logits_of(folder: Path) -> Tensor:
    """[tokens, vocabulary], float32, of the model in this folder."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    )
    with torch.inference_mode():
        result: Tensor = model.eval()(torch.tensor([IDS])).logits[0]
    return result


def main() -> None:
    recorded = {}
    for name, config in tiny_families.FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            tiny_families.save(Path(folder), config)
            rows = logits_of(Path(folder))[list(SHOWN)].tolist()
        recorded[name] = [[round(value, 6) for value in row] for row in rows]
    text = ",\n".join(
        f'  "{name}": [\n' + ",\n".join(f"    {json.dumps(row)}" for row in rows) + "\n  ]"
        for name, rows in recorded.items()
    )
    FILE.write_text(f'{{\n  "ids": {json.dumps(IDS)},\n  "shown": {list(SHOWN)},\n{text}\n}}\n')


if __name__ == "__main__":
    main()
