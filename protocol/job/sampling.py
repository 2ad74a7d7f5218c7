"""How tokens are drawn: integers only, so that two machines mean the same number."""

from typing import Annotated

from msgspec import Meta, Struct

from protocol.limits import BIAS_MAX, BIASED_TOKENS_MAX, LOGPROBS_MAX
from protocol.units import MILLION, MillionthsField, TokenId

BiasField = Annotated[int, Meta(ge=-BIAS_MAX * MILLION, le=BIAS_MAX * MILLION)]
"""What is added to the logit of one token, in millionths."""


class Sampling(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Numbers in millionths, as job.md section 3 says; the sampler divides once, in float64.

    The rule is that of verification.md section 7: Gumbel-max over the kept set, with noise that
    is a pure function of the order's seed, the token's place and its id.
    """

    temperature_millionths: Annotated[int, Meta(ge=0, le=2 * MILLION)] = 0
    """0 is greedy."""
    top_p_millionths: Annotated[int, Meta(ge=1, le=MILLION)] = MILLION
    min_p_millionths: Annotated[int, Meta(ge=0, le=MILLION)] = 0
    top_k: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    """0 keeps all."""
    repetition_penalty_millionths: Annotated[int, Meta(ge=1, le=10 * MILLION)] = MILLION
    frequency_penalty_millionths: MillionthsField = 0
    presence_penalty_millionths: MillionthsField = 0
    bias: Annotated[tuple[tuple[TokenId, BiasField], ...], Meta(max_length=BIASED_TOKENS_MAX)] = ()
    """Ids strictly rising, so that one meaning has one form; an id that the model does not have
    changes nothing."""
    logprobs: Annotated[int, Meta(ge=0, le=LOGPROBS_MAX)] = 0
    """How many tokens to tell the probability of at each place: 0 none, 1 the one that was drawn,
    more: also the likeliest, one fewer than this, among which it may be again."""
