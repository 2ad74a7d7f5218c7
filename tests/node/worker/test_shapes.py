"""What a file says of its decoder: both kinds say the same, and the unknown is refused by name."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.worker.config_json import Config
from node.worker.config_shape import rope_divisors, shape_of_config
from node.worker.gguf import GgufFile, read_gguf
from node.worker.gguf_shape import shape_of
from node.worker.shape import Shape
from node.worker.shape_limits import is_sound
from protocol.errors import Code, LocalError
from tests.node.worker import tiny_families
from tests.node.worker.tiny_families import FAMILIES

PATH = Path("config.json")


def of(config: dict[str, Any]) -> Shape:
    return shape_of_config(Config(PATH, config))


def changed(name: str, **changes: object) -> dict[str, Any]:
    return FAMILIES[name] | changes


@pytest.mark.parametrize("name", FAMILIES)
def test_both_kinds_of_file_say_the_same(tmp_path: Path, name: str) -> None:
    tiny_families.save_gguf(tmp_path / "tiny.gguf", FAMILIES[name])
    ours, theirs = of(FAMILIES[name]), shape_of(read_gguf(tmp_path / "tiny.gguf"))
    # A GGUF keeps numbers in float32.
    assert theirs.norm_epsilon == pytest.approx(ours.norm_epsilon)
    for field in Shape.__slots__:
        if field != "norm_epsilon":
            assert getattr(theirs, field) == getattr(ours, field), field


def test_the_older_spelling_says_the_same() -> None:
    llama = changed("llama-3", rope_parameters=None, rope_theta=10_000.0)
    llama["rope_scaling"] = FAMILIES["llama-3"]["rope_parameters"]
    assert of(llama) == of(FAMILIES["llama-3"])
    divisors = rope_divisors(Config(PATH, llama), of(llama))
    assert divisors == rope_divisors(Config(PATH, FAMILIES["llama-3"]), of(llama))
    assert (divisors[0], divisors[-1]) == (1.0, 8.0)
    assert any(1.0 < each < 8.0 for each in divisors)
    linear = changed("llama-linear", rope_parameters=None, rope_theta=10_000.0)
    linear["rope_scaling"] = {"type": "linear", "factor": 4.0}
    assert of(linear) == of(FAMILIES["llama-linear"])
    gemma = changed(
        "gemma3",
        rope_parameters=None,
        rope_theta=1_000_000.0,
        rope_local_base_freq=10_000.0,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
        layer_types=None,
        sliding_window_pattern=6,
    )
    assert of(gemma) == of(FAMILIES["gemma3"])
    assert of(changed("gemma2", layer_types=None)) == of(FAMILIES["gemma2"])


def test_a_model_that_sees_too_is_known_by_its_text() -> None:
    """As google/gemma-3-4b-it says it, with all that its code takes for granted left out."""
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    shape = of({"model_type": "gemma3", "text_config": text, "vision_config": {"x": 1}})
    assert (shape.heads, shape.key_heads, shape.head_width, shape.vocabulary) == (8, 4, 256, 262208)
    assert (shape.rope_base, shape.rope_base_local, shape.rope_scale) == (1e6, 1e4, 0.125)
    assert shape.windowed[:7] == (True, True, True, True, True, False, True)
    assert (shape.window, shape.context_tokens, shape.tied) == (1024, 131_072, True)
    assert shape.attention_scale == 1 / 16


def test_a_window_that_only_upper_layers_have() -> None:
    config = changed("qwen2", use_sliding_window=True, max_window_layers=2, sliding_window=8)
    assert of(config).windowed == (False, False, True)
    assert of(config).window == 8
    assert of(changed("qwen2", sliding_window=8)).window == 0


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("llama", {"model_type": "mixtral"}, "mixtral"),
        ("llama", {"model_type": "qwen3_moe"}, "qwen3_moe"),
        ("llama", {"model_type": None}, "not a text"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 0.0}}, "fit"),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": "x"}}, "number"),
        ("llama", {"partial_rotary_factor": 0.5}, "part of each head"),
        ("llama", {"attention_bias": True}, "biases"),
        ("llama", {"mlp_bias": True}, "biases"),
        ("llama", {"hidden_act": "relu"}, "relu"),
        ("gemma2", {"hidden_activation": "gelu"}, "gelu"),
        ("gemma3", {"use_bidirectional_attention": True}, "comes after"),
        ("gemma3", {"layer_types": ["full_attention"]}, "layer_types"),
        ("gemma3", {"layer_types": ["linear_attention"] * 7}, "layer_types"),
        ("gemma2", {"sliding_window": 0}, "fit"),
        ("llama", {"quantization_config": {"quant_method": "awq"}}, "awq"),
        ("llama", {"num_key_value_heads": 3}, "fit"),
        ("llama", {"num_key_value_heads": 0}, "fit"),
        ("llama", {"num_attention_heads": 0}, "fit"),
        ("llama", {"num_hidden_layers": 10**9}, "1 to"),
        ("llama", {"hidden_size": 1 << 40}, "fit"),
        ("llama", {"hidden_size": True}, "not an integer"),
        ("llama", {"vocab_size": -5}, "fit"),
        ("llama", {"head_dim": 15}, "fit"),
        ("llama", {"rms_norm_eps": 10**400}, "too large"),
        ("llama", {"text_config": 5, "model_type": "gemma3"}, "not an object"),
    ],
)
def test_an_unknown_configuration_is_refused(
    name: str, changes: dict[str, object], word: str
) -> None:
    with pytest.raises(LocalError, match=word) as caught:
        of(changed(name, **changes))
    assert caught.value.code == Code.BAD_MODEL


def test_scaling_that_makes_no_sense_is_refused() -> None:
    rope = FAMILIES["llama-3"]["rope_parameters"]
    for key, value in (("factor", 0.5), ("low_freq_factor", 4.0), ("high_freq_factor", 0.5)):
        config = changed("llama-3", rope_parameters=rope | {key: value})
        with pytest.raises(LocalError, match="no sense"):
            rope_divisors(Config(PATH, config), of(config))


def header(tmp_path: Path, name: str, changes: dict[str, Any]) -> GgufFile:
    """A GGUF's header with other values; None takes one away."""
    tiny_families.save_gguf(tmp_path / "tiny.gguf", FAMILIES[name])
    whole = read_gguf(tmp_path / "tiny.gguf")
    metadata = {k: v for k, v in (whole.metadata | changes).items() if v is not None}
    return GgufFile(whole.path, metadata, whole.tensors)


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("llama", {"general.architecture": "mamba"}, "mamba"),
        ("llama", {"general.architecture": "qwen3moe"}, "qwen3moe"),
        ("llama", {"llama.expert_count": 8}, "experts"),
        ("llama", {"llama.rope.scaling.type": "yarn"}, "yarn"),
        ("llama", {"llama.rope.dimension_count": 8}, "part of each head"),
        ("llama", {"llama.attention.value_length": 8}, "differ in width"),
        ("llama", {"llama.attention.head_count_kv": 3}, "fit"),
        ("llama", {"llama.attention.head_count": 0}, "fit"),
        ("llama", {"llama.block_count": 0}, "fit"),
        ("llama", {"llama.context_length": 0}, "fit"),
        ("llama", {"llama.attention.layer_norm_rms_epsilon": None}, "epsilon"),
        ("llama", {"llama.logit_scale": 2.0}, "logit_scale"),
        ("llama", {"split.count": 3}, "several"),
        ("llama", {"tokenizer.ggml.tokens": ("a", "b")}, "2 tokens"),
        ("qwen2", {"general.architecture": "llama", "llama.block_count": 3}, "biases"),
        ("gemma3", {"gemma3.attention.sliding_window": None}, "sliding_window"),
        ("gemma3", {"gemma3.attention.sliding_window_pattern": (True, False)}, "pattern"),
    ],
)
def test_an_unknown_header_is_refused(
    tmp_path: Path, name: str, changes: dict[str, Any], word: str
) -> None:
    with pytest.raises(LocalError, match=word) as caught:
        shape_of(header(tmp_path, name, changes))
    assert caught.value.code == Code.BAD_MODEL


def test_a_header_may_name_its_windowed_layers(tmp_path: Path) -> None:
    key, layers = "gemma3.attention.sliding_window_pattern", (False, True) * 3 + (True,)
    assert shape_of(header(tmp_path, "gemma3", {key: layers})).windowed == layers
    assert shape_of(header(tmp_path, "gemma3", {key: 2})).windowed == (True, False) * 3 + (True,)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=4,
)


@given(
    st.sampled_from(sorted(FAMILIES)),
    st.dictionaries(st.sampled_from(sorted(FAMILIES["gemma2"])), json_values, max_size=3),
)
def test_any_configuration_is_sound_or_refused(name: str, changes: dict[str, object]) -> None:
    try:
        shape = of(changed(name, **changes))
    except LocalError as error:
        refused = error.code
    else:
        refused = None
        assert is_sound(shape)
    assert refused in (None, Code.BAD_MODEL)
