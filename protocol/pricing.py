"""From usage to the exact cost: one rule, in integers, for both sides of a bill."""

from protocol.limits import PROMPT_BYTES_PER_TOKEN
from protocol.units import TOKENS_PER_PRICE, Microcredits


def cost(input_tokens: int, output_tokens: int, price_in: int, price_out: int) -> Microcredits:
    """Microcredits for the cumulative usage of one order, rounded up once (job.md section 3).

    Prices are microcredits for a million tokens. Because it is taken of the whole order so far,
    the cost in the last chunk is that of the receipt.
    """
    assert min(input_tokens, output_tokens, price_in, price_out) >= 0
    total = input_tokens * price_in + output_tokens * price_out
    return Microcredits(-(-total // TOKENS_PER_PRICE))


def cost_of_part(whole: int, part: int, parts: int) -> Microcredits:
    """Microcredits for the first `part` of `parts` equal shares of a `whole` cost, rounded up once:
    what the vectors of an embed have cost so far, which all of them together is the whole."""
    assert 0 <= part <= parts
    return Microcredits(-(-whole * part // parts)) if parts else Microcredits(0)


def prompt_prepaid(prompt_bytes: int, price_in: int) -> Microcredits:
    """Microcredits that a stranger pays before its prompt is read. Neither side knows the tokens
    then; this is what the fewest cost that ordinary text of so many bytes has."""
    return cost(-(-prompt_bytes // PROMPT_BYTES_PER_TOKEN), 0, price_in, 0)


def output_tokens_affordable(
    cost_max: int, input_tokens: int, price_in: int, price_out: int
) -> int:
    """How many output tokens fit under `cost_max`; -1 when the input alone does not."""
    left = cost_max * TOKENS_PER_PRICE - input_tokens * price_in
    if left < 0:
        return -1
    return left // price_out if price_out else 1 << 62
