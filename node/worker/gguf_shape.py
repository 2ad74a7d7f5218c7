"""From the header of a GGUF file to the shape of its decoder. What is not known is refused by
name: a relative that would load and then talk nonsense is worse than none.

Keys and defaults are those of llama.cpp (gguf-py/gguf/constants.py, src/llama-model.cpp).
"""

import math
import re
from typing import Final

from node.worker.gguf import GgufFile
from node.worker.shape import Shape
from node.worker.shape_limits import LAYERS_MAX, is_sound
from node.worker.weight_file import bad_model

FAMILIES: Final = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")

_TOP: Final = {"token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"}
_BLOCK: Final = frozenset(
    f"{name}.weight"
    for name in (
        "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate",
        "ffn_up", "ffn_down",
    )
)  # fmt: skip
_BIASES: Final = frozenset(("attn_q.bias", "attn_k.bias", "attn_v.bias"))
_HEAD_NORMS: Final = frozenset(("attn_q_norm.weight", "attn_k_norm.weight"))
_POST_NORMS: Final = frozenset(("post_attention_norm.weight", "post_ffw_norm.weight"))
_BLOCK_OF: Final = {
    "llama": _BLOCK,
    "qwen2": _BLOCK | _BIASES,
    "qwen3": _BLOCK | _HEAD_NORMS,
    "gemma2": _BLOCK | _POST_NORMS,
    "gemma3": _BLOCK | _POST_NORMS | _HEAD_NORMS,
}
# Windowed layers come in turns: all but every second, or all but every sixth.
_WINDOW_TURN: Final = {"gemma2": 2, "gemma3": 6}
_WINDOW_DEFAULT: Final = {"gemma2": 4096}
# The 27B models' scores are scaled by their width per head, which is not their heads' width.
_SCALED_BY_WIDTH: Final = {("gemma2", 46), ("gemma3", 62)}


def shape_of(gguf: GgufFile) -> Shape:
    """Raises LocalError BAD_MODEL for another architecture, or numbers that do not fit."""
    family = gguf.text("general.architecture")
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise bad_model(gguf.path, f"its architecture is {family[:40]}, and known are {known}")
    if gguf.integer("split.count", 1) > 1:
        raise bad_model(gguf.path, "it is one part of several: join them with llama-gguf-split")
    _refuse_variants(gguf, family)
    heads, layers = gguf.integer(f"{family}.attention.head_count"), _layers(gguf, family)
    width = gguf.integer(f"{family}.embedding_length")
    head_width = gguf.integer(f"{family}.attention.key_length", width // max(heads, 1))
    base = gguf.number(f"{family}.rope.freq_base", 10_000.0)
    gemma, windowed = family.startswith("gemma"), _windowed(gguf, family, layers)
    shape = Shape(
        family=family,
        layers=layers,
        width=width,
        inner_width=gguf.integer(f"{family}.feed_forward_length"),
        heads=heads,
        key_heads=gguf.integer(f"{family}.attention.head_count_kv", heads),
        head_width=head_width,
        vocabulary=_vocabulary(gguf),
        context_tokens=gguf.integer(f"{family}.context_length"),
        norm_epsilon=gguf.number(f"{family}.attention.layer_norm_rms_epsilon"),
        rope_base=base,
        rope_base_local=_local_base(gguf, family, base),
        rope_scale=_rope_scale(gguf, family),
        attention_scale=_attention_scale(family, layers, width / max(heads, 1), head_width),
        attention_softcap=_softcap(gguf, family, "attn", 50.0 if family == "gemma2" else 0.0),
        logit_softcap=_softcap(gguf, family, "final", 30.0 if family == "gemma2" else 0.0),
        embedding_scale=max(width, 0) ** 0.5 if gemma else 1.0,
        activation="gelu_tanh" if gemma else "silu",
        query_key_value_bias=family == "qwen2",
        query_key_norm=family in ("qwen3", "gemma3"),
        post_norms=gemma,
        window=_window(gguf, family) if any(windowed) else 0,
        windowed=windowed,
        tied="output.weight" not in gguf.tensors,
    )
    if not is_sound(shape):
        raise bad_model(gguf.path, "the sizes in its header do not fit each other")
    _refuse_other_widths(gguf, shape)
    return shape


def _layers(gguf: GgufFile, family: str) -> int:
    layers = gguf.integer(f"{family}.block_count")
    if not 1 <= layers <= LAYERS_MAX:
        raise bad_model(gguf.path, f"its {layers} layers do not fit: 1 to {LAYERS_MAX} are known")
    return layers


def _vocabulary(gguf: GgufFile) -> int:
    """The embedding has a row for each token, and the tokenizer as many tokens."""
    embedding = gguf.tensors.get("token_embd.weight")
    if embedding is None:
        raise bad_model(gguf.path, "it has no tensor token_embd.weight")
    rows = embedding.shape[0]
    if "tokenizer.ggml.tokens" in gguf.metadata:
        tokens = len(gguf.texts("tokenizer.ggml.tokens"))
        if tokens != rows:
            raise bad_model(gguf.path, f"its {rows} embeddings do not fit its {tokens} tokens")
    return rows


def _windowed(gguf: GgufFile, family: str, layers: int) -> tuple[bool, ...]:
    turn = _WINDOW_TURN.get(family)
    if turn is None:
        return (False,) * layers
    said = gguf.metadata.get(f"{family}.attention.sliding_window_pattern", turn)
    if isinstance(said, tuple):  # Newer files may say it layer by layer.
        windowed = tuple(each for each in said if isinstance(each, bool))
        if len(windowed) == len(said) == layers:
            return windowed
    elif type(said) is int and said >= 1:
        return tuple(layer % said != said - 1 for layer in range(layers))
    raise bad_model(gguf.path, "its sliding_window_pattern does not fit")


def _window(gguf: GgufFile, family: str) -> int:
    return gguf.integer(f"{family}.attention.sliding_window", _WINDOW_DEFAULT.get(family))


def _local_base(gguf: GgufFile, family: str, base: float) -> float:
    if family != "gemma3":
        return base
    return gguf.number(f"{family}.rope.freq_base_swa", 10_000.0)


def _rope_scale(gguf: GgufFile, family: str) -> float:
    stretch = gguf.text(f"{family}.rope.scaling.type", "linear")
    if stretch not in ("none", "linear"):
        raise bad_model(
            gguf.path, f"it stretches its positions by {stretch[:40]} (rope scaling), not linearly"
        )
    older = gguf.number(f"{family}.rope.scale_linear", 0.0)
    factor = gguf.number(f"{family}.rope.scaling.factor", older)
    return 1.0 if factor == 0.0 or stretch == "none" else 1.0 / factor


def _attention_scale(family: str, layers: int, width_per_head: float, head_width: int) -> float:
    by_width = (family, layers) in _SCALED_BY_WIDTH
    return 1.0 / math.sqrt(max(width_per_head if by_width else head_width, 1))


def _softcap(gguf: GgufFile, family: str, where: str, default: float) -> float:
    return gguf.number(f"{family}.{where}_logit_softcapping", default)


def _refuse_variants(gguf: GgufFile, family: str) -> None:
    if gguf.integer(f"{family}.expert_count", 0):
        raise bad_model(gguf.path, "it is a mixture of experts")
    for key in ("attention.scale", "logit_scale", "embedding_scale", "residual_scale"):
        if gguf.number(f"{family}.{key}", 1.0) != 1.0:
            raise bad_model(gguf.path, f"its {key} is unknown in {family}")
    for name in gguf.tensors:
        match = re.fullmatch(r"blk\.\d{1,4}\.(.+)", name)
        if name not in _TOP and (match is None or match[1] not in _BLOCK_OF[family]):
            biased = name.endswith(".bias")
            what = "it has biases" if biased else "it has a tensor that no " + family + " has"
            raise bad_model(gguf.path, f"{what}: {name[:60]}")


def _refuse_other_widths(gguf: GgufFile, shape: Shape) -> None:
    family, head_width = shape.family, shape.head_width
    if gguf.integer(f"{family}.rope.dimension_count", head_width) != head_width:
        raise bad_model(gguf.path, "it rotates only a part of each head")
    if gguf.integer(f"{family}.attention.value_length", head_width) != head_width:
        raise bad_model(gguf.path, "its keys and values differ in width")
