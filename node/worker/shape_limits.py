"""What the numbers of a decoder must be like before anything is computed from them."""

from typing import Final

from node.worker.shape import Shape

# Most are far beyond any model that a home machine holds; the file's own size bounds the tensors.
LAYERS_MAX: Final = 1024
WIDTH_MAX: Final = 1 << 20
VOCABULARY_MAX: Final = (1 << 19) - 1  # The masses of more would not fit the exact sampler.
CONTEXT_TOKENS_MAX: Final = 1 << 24
WINDOW_MAX: Final = 1 << 24


def is_sound(shape: Shape) -> bool:
    """Whether all sizes are in bounds and fit each other."""
    s = shape
    widths = (s.width, s.inner_width, s.heads, s.key_heads, s.head_width)
    return (
        all(1 <= each <= WIDTH_MAX for each in widths)
        and 1 <= s.layers <= LAYERS_MAX
        and s.heads % s.key_heads == 0
        and s.heads * s.head_width <= WIDTH_MAX
        and s.head_width % 2 == 0
        and 1 <= s.vocabulary <= VOCABULARY_MAX
        and 1 <= s.context_tokens <= CONTEXT_TOKENS_MAX
        and 0.0 < s.norm_epsilon < 1.0
        and all(1.0 < base < 1e12 for base in (s.rope_base, s.rope_base_local))
        and 0.0 < s.rope_scale <= 1.0
        and 0.0 < s.attention_scale <= 1.0
        and all(0.0 <= cap <= 1e6 for cap in (s.attention_softcap, s.logit_softcap))
        and 0.0 < s.embedding_scale <= 1e6
        and len(s.windowed) == s.layers
        and (1 <= s.window <= WINDOW_MAX if any(s.windowed) else s.window == 0)
    )
