"""The numbers and the variants of a decoder: what a file of weights says before its tensors."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder of the Llama kind and its near relatives. Where a family has no such thing, the
    number is 0, the scale 1 and the flag False."""

    family: str  # "llama", "qwen2", "qwen3", "gemma2" or "gemma3".
    layers: int
    width: int
    inner_width: int
    heads: int
    key_heads: int
    head_width: int
    vocabulary: int
    context_tokens: int
    norm_epsilon: float
    rope_base: float
    rope_base_local: float  # Of layers with a window; the same as rope_base but in Gemma 3.
    rope_scale: float  # Positions are multiplied by it, in layers without a window.
    attention_scale: float  # What scores are multiplied by: mostly head_width ** -0.5.
    attention_softcap: float
    logit_softcap: float
    embedding_scale: float
    activation: Literal["silu", "gelu_tanh"]
    query_key_value_bias: bool
    query_key_norm: bool
    post_norms: bool  # A norm after attention and after the feed-forward too, before the sum.
    window: int  # Tokens that a windowed layer sees, the token itself counted.
    windowed: tuple[bool, ...]  # For each layer.
    tied: bool  # The head is the embedding.
