"""From a model's `config.json` to the shape of its decoder. What is not known is refused by name:
a relative that would load and then talk nonsense is worse than none.

Keys and defaults are those of transformers (src/transformers/models/*/configuration_*.py), in its
older and its newer spelling.
"""

import math
from dataclasses import dataclass
from typing import Final

from node.worker.config_json import Config
from node.worker.shape import Shape
from node.worker.shape_limits import LAYERS_MAX, is_sound
from node.worker.weight_file import bad_model

# Types of model -> family; "gemma3" sees images too, of which its text part is taken.
FAMILIES: Final = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gemma3": "gemma3",
}


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What stands in no file because the family's code has it."""

    context_tokens: int
    rope_base: float = 10_000.0
    key_heads: int = 0  # 0: as many as heads.
    head_width: int = 0  # 0: the width, divided by the heads.
    vocabulary: int | None = None  # These three: None where every file says them.
    heads: int | None = None
    window: int = 4096


_DEFAULTS: Final = {
    "llama": _Defaults(2048),
    "qwen2": _Defaults(32_768, key_heads=32),
    "qwen3": _Defaults(32_768, key_heads=32, head_width=128),
    "gemma2": _Defaults(8192, key_heads=4, head_width=256),
    "gemma3": _Defaults(
        131_072, 1_000_000.0, key_heads=4, head_width=256, vocabulary=262_208, heads=8
    ),
}
_ACTIVATIONS: Final = {"llama": "silu", "qwen2": "silu", "qwen3": "silu"}  # Gemma: tanh GELU.
_STRETCHES: Final = ("default", "linear", "llama3")
_SLIDING, _FULL = "sliding_attention", "full_attention"


def shape_of_config(config: Config) -> Shape:
    """Raises LocalError BAD_MODEL for another architecture, or numbers that do not fit."""
    config, family = _text_part(config)
    _refuse_variants(config, family)
    default, gemma = _DEFAULTS[family], family.startswith("gemma")
    width, heads = (
        config.integer("hidden_size"),
        config.integer("num_attention_heads", default.heads),
    )
    head_width = config.integer("head_dim", default.head_width or width // max(heads, 1))
    windowed = _windowed(config, family, _layers(config))
    rope = _rope(config, family, _FULL)
    shape = Shape(
        family=family,
        layers=_layers(config),
        width=width,
        inner_width=config.integer("intermediate_size"),
        heads=heads,
        key_heads=config.integer("num_key_value_heads", default.key_heads or heads),
        head_width=head_width,
        vocabulary=config.integer("vocab_size", default.vocabulary),
        context_tokens=config.integer("max_position_embeddings", default.context_tokens),
        norm_epsilon=config.number("rms_norm_eps", 1e-6),
        rope_base=rope.number("rope_theta", default.rope_base),
        rope_base_local=_local_base(config, family, rope.number("rope_theta", default.rope_base)),
        rope_scale=_rope_scale(rope),
        attention_scale=_attention_scale(config, gemma, head_width),
        attention_softcap=_softcap(config, family, "attn", 50.0),
        logit_softcap=_softcap(config, family, "final", 30.0),
        embedding_scale=max(width, 0) ** 0.5 if gemma else 1.0,
        activation="gelu_tanh" if gemma else "silu",
        query_key_value_bias=family == "qwen2",
        query_key_norm=family in ("qwen3", "gemma3"),
        post_norms=gemma,
        window=config.integer("sliding_window", default.window) if any(windowed) else 0,
        windowed=windowed,
        tied=config.boolean("tie_word_embeddings", gemma),
    )
    if not is_sound(shape):
        raise bad_model(config.path, "the sizes in it do not fit each other")
    return shape


def rope_divisors(config: Config, shape: Shape) -> list[float]:
    """What Llama 3's way to reach further divides each frequency by (transformers'
    modeling_rope_utils.py; in a GGUF the tensor `rope_freqs.weight`); empty for other ways."""
    config, family = _text_part(config)
    rope = _rope(config, family, _FULL)
    if _stretch(rope) != "llama3":
        return []
    factor, low = rope.number("factor"), rope.number("low_freq_factor")
    high, before = rope.number("high_freq_factor"), rope.number("original_max_position_embeddings")
    if not (1.0 <= factor < 1e6 and 0.0 < low < high < 1e6 and 0.0 < before < 1e12):
        raise bad_model(config.path, "its rope scaling makes no sense")
    divisors = []
    half = shape.head_width // 2
    for number in range(half):
        wave = 2.0 * math.pi * shape.rope_base ** (number / half)
        share = (before / wave - low) / (high - low)
        share = min(1.0, max(0.0, share))  # Of the frequency that stays as it was.
        divisors.append(1.0 / ((1.0 - share) / factor + share))
    return divisors


def _text_part(config: Config) -> tuple[Config, str]:
    kind = config.text("model_type")
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise bad_model(config.path, f"its model_type is {kind[:40]}, and known are {known}")
    if kind == "gemma3":
        text = config.part("text_config")
        # Whether the head is the embedding is said of the whole model, if it is said.
        tied = {key: config.values[key] for key in ("tie_word_embeddings",) if key in config}
        config = Config(config.path, {**tied, **text.values})
    return config, FAMILIES[kind]


def _layers(config: Config) -> int:
    layers = config.integer("num_hidden_layers")
    if not 1 <= layers <= LAYERS_MAX:
        raise bad_model(config.path, f"its {layers} layers do not fit: 1 to {LAYERS_MAX} are known")
    return layers


def _windowed(config: Config, family: str, layers: int) -> tuple[bool, ...]:
    kinds = config.texts("layer_types")
    if kinds:
        if len(kinds) != layers or not {_SLIDING, _FULL}.issuperset(kinds):
            raise bad_model(config.path, "its layer_types do not fit")
        return tuple(kind == _SLIDING for kind in kinds)
    if family.startswith("gemma"):
        turn = 2 if family == "gemma2" else config.integer("sliding_window_pattern", 6)
        if turn < 1:
            raise bad_model(config.path, "its sliding_window_pattern does not fit")
        return tuple(layer % turn != turn - 1 for layer in range(layers))
    first = layers
    if family != "llama" and config.boolean("use_sliding_window", False):
        first = config.integer("max_window_layers", 28)
    return tuple(layer >= first for layer in range(layers))


def _rope(config: Config, family: str, layers: str) -> Config:
    """The rotation of a kind of layers. Newer files have all in one place, and in Gemma 3 by kind
    of layer; older ones have the base outside of it."""
    newer = config.part("rope_parameters")
    if family == "gemma3" and (_FULL in newer or _SLIDING in newer):
        return newer.part(layers)
    if newer.values:
        return newer
    older = {} if layers == _SLIDING else dict(config.part("rope_scaling").values)
    base = "rope_local_base_freq" if layers == _SLIDING else "rope_theta"
    return Config(config.path, {**older, "rope_theta": config.values.get(base)})


def _local_base(config: Config, family: str, base: float) -> float:
    if family != "gemma3":
        return base
    local = _rope(config, family, _SLIDING)
    if _stretch(local) != "default":
        raise bad_model(config.path, "it stretches the positions of layers with a window")
    return local.number("rope_theta", 10_000.0)


def _stretch(rope: Config) -> str:
    kind = rope.text("rope_type", rope.text("type", "default"))
    if kind not in _STRETCHES:
        known = ", ".join(_STRETCHES)
        raise bad_model(
            rope.path,
            f"it stretches its positions by {kind[:40]} (rope scaling): known are {known}",
        )
    if rope.number("partial_rotary_factor", 1.0) != 1.0:
        raise bad_model(rope.path, "it rotates only a part of each head")
    return kind


def _rope_scale(rope: Config) -> float:
    factor = rope.number("factor") if _stretch(rope) == "linear" else 1.0
    return 1.0 / factor if factor > 0.0 else 0.0


def _attention_scale(config: Config, gemma: bool, head_width: int) -> float:
    by = config.number("query_pre_attn_scalar", 256.0) if gemma else head_width
    return 1.0 / math.sqrt(max(by, 1.0))


def _softcap(config: Config, family: str, where: str, default: float) -> float:
    """Gemma 2 has both, and says null where one is off; no other family knows them."""
    key = f"{where}_logit_softcapping"
    if family not in ("gemma2", "gemma3"):
        return 0.0
    absent = default if family == "gemma2" and key not in config.values else 0.0
    return config.number(key, absent)


def _refuse_variants(config: Config, family: str) -> None:
    if "quantization_config" in config:
        method = config.part("quantization_config").text("quant_method", "unknown")
        raise bad_model(
            config.path, f"its weights are quantised in the way {method[:40]}: take a GGUF of it"
        )
    if family != "qwen2" and config.boolean("attention_bias", False):
        raise bad_model(config.path, "it has biases (attention_bias)")
    if config.boolean("mlp_bias", False):
        raise bad_model(config.path, "it has biases (mlp_bias)")
    if config.number("partial_rotary_factor", 1.0) != 1.0:
        raise bad_model(config.path, "it rotates only a part of each head")
    if config.boolean("use_bidirectional_attention", False):
        raise bad_model(config.path, "it looks at what comes after (use_bidirectional_attention)")
    known = _ACTIVATIONS.get(family, "gelu_pytorch_tanh")
    key = "hidden_activation" if family.startswith("gemma") else "hidden_act"
    if config.text(key, known) != known:
        raise bad_model(config.path, f"its {key} is {config.text(key)[:40]}, and known is {known}")
