"""Weights in files of safetensors, beside a `config.json`, by the names that GGUF gives them."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import torch
from torch import Tensor

from node.worker.config_json import Config, read_json
from node.worker.config_shape import rope_divisors, shape_of_config
from node.worker.pipe import File
from node.worker.quantised import Blocks
from node.worker.safetensors import SafetensorsFiles
from node.worker.weight_file import bad_model
from protocol.errors import Code, LocalError

CONFIG: Final = "config.json"
INDEX_ENDS: Final = ".safetensors.index.json"
_DIVISORS: Final = "rope_freqs.weight"
# Where the text part of a model stands that can do more, the plain model first.
_PREFIXES: Final = ("model.", "language_model.model.", "model.language_model.")
_TOP: Final = {"token_embd": "embed_tokens", "output_norm": "norm"}
_HEADS: Final = ("lm_head.weight", "language_model.lm_head.weight")
_BLOCK: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Gemma's norms after are not what the others call so.
_GEMMA_BLOCK: Final = _BLOCK | {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


class SafetensorsWeights:
    """Implements node.worker.weights.Weights."""

    container: Final = "safetensors"

    def __init__(self, files: Sequence[File]) -> None:
        """Reads the headers and the configuration.

        Raises LocalError: BAD_MODEL for a model of a kind that this engine cannot run or files
        that do not fit each other, NOT_FOUND.
        """
        config = _config(files)
        self.shape = shape_of_config(config)
        self._divisors = rope_divisors(config, self.shape)
        stored = [file for file in files if file.role == "weights"]
        parts = [file for file in stored if not file.name.endswith(INDEX_ENDS)]
        self._files = SafetensorsFiles([Path(file.path) for file in parts])
        for index in (file for file in files if file.name.endswith(INDEX_ENDS)):
            self._check_index(Path(index.path), parts)
        self._prefix = self._found_prefix()
        self._is_gemma = self.shape.family.startswith("gemma")

    @property
    def path(self) -> Path:
        return self._files.paths[0]

    def __enter__(self) -> Self:
        self._files.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def __contains__(self, name: str) -> bool:
        if name == _DIVISORS:
            return bool(self._divisors)
        return self._stored_name(name) in self._files.tensors

    def format(self, name: str) -> str:
        return self._files.format(self._stored_name(name))

    def blocks(self, name: str, rows: int, columns: int) -> Blocks:
        return self._files.blocks(self._stored_name(name), rows, columns)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name == _DIVISORS:
            assert shape == (len(self._divisors),)
            return torch.tensor(self._divisors, dtype=torch.float32)
        values = self._files.tensor(self._stored_name(name), shape)
        # Gemma stores how far a norm's weight is from 1.
        return values + 1.0 if self._is_gemma and name.endswith("norm.weight") else values

    def _stored_name(self, name: str) -> str:
        """What Hugging Face calls a tensor; a name that is not known stays."""
        if name == "output.weight":
            return next((head for head in _HEADS if head in self._files.tensors), _HEADS[0])
        parts = name.split(".")
        if parts[0] in _TOP:
            return f"{self._prefix}{_TOP[parts[0]]}.weight"
        known = _GEMMA_BLOCK if self._is_gemma else _BLOCK
        if len(parts) == 4 and parts[2] in known:
            return f"{self._prefix}layers.{parts[1]}.{known[parts[2]]}.{parts[3]}"
        return name

    def _found_prefix(self) -> str:
        for prefix in _PREFIXES:
            if f"{prefix}embed_tokens.weight" in self._files.tensors:
                return prefix
        raise bad_model(self.path, "it has no embedding (model.embed_tokens.weight)")

    def _check_index(self, path: Path, parts: Sequence[File]) -> None:
        """Every tensor that the index speaks of is in the file where it should be."""
        places = Config(path, read_json(path)).part("weight_map").values
        names = [Path(file.name).name for file in parts]
        for name, place in places.items():
            stored = self._files.tensors.get(name)
            if stored is None or names[stored.file] != place:
                raise bad_model(path, f"{name[:60]} is not in {str(place)[:60]}: a part is missing")


def _config(files: Sequence[File]) -> Config:
    for file in files:
        if Path(file.name).name == CONFIG:
            path = Path(file.path)
            return Config(path, read_json(path))
    raise LocalError(
        Code.BAD_MODEL,
        f"Weights in safetensors need the {CONFIG} that is beside them: get the model with it.",
    )
