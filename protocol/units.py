"""Checked integer units: money, prices, tokens, time, energy. No fractions of a unit exist."""

from typing import Annotated, NewType

from msgspec import Meta

from protocol.limits import JOB_MS_MAX, MICROCREDITS_MAX, OUTPUT_TOKENS_MAX, PRICE_MAX

MICROCREDITS_PER_CREDIT = 1_000_000
TOKENS_PER_PRICE = 1_000_000
MILLION = 1_000_000

# Each NewType is for the type checker, each Annotated for the decoder: a value from the wire
# that is out of range never becomes a message.
Microcredits = NewType("Microcredits", int)
MicrocreditsField = Annotated[int, Meta(ge=0, le=MICROCREDITS_MAX)]
PriceField = Annotated[int, Meta(ge=0, le=PRICE_MAX)]
"""Microcredits for a million tokens."""
TokensField = Annotated[int, Meta(ge=0, le=1 << 31)]
OutputTokensField = Annotated[int, Meta(ge=0, le=OUTPUT_TOKENS_MAX)]
TOKEN_ID_MAX = (1 << 31) - 1
TokenId = Annotated[int, Meta(ge=0, le=TOKEN_ID_MAX)]
DurationField = Annotated[int, Meta(ge=0, le=JOB_MS_MAX)]
"""Milliseconds, at most an hour."""
TimestampField = Annotated[int, Meta(ge=0, le=1 << 53)]
"""Milliseconds since 1970 by the clock of whoever signs."""
CountField = Annotated[int, Meta(ge=0, le=1 << 53)]
MillionthsField = Annotated[int, Meta(ge=-(1 << 40), le=1 << 40)]
"""A rational number in steps of one millionth: how the wire writes a temperature."""


def credits_text(amount: int) -> str:
    """Microcredits as credits for a person: 1234567 is "1.234567", 2000000 is "2"."""
    sign = "-" if amount < 0 else ""
    whole, rest = divmod(abs(amount), MICROCREDITS_PER_CREDIT)
    return f"{sign}{whole}" + (f".{rest:06d}".rstrip("0") if rest else "")


def credits_parsed(text: str) -> Microcredits:
    """The microcredits that "1.25" credits are. Raises ValueError for anything but a plain
    decimal number, not negative, with at most six places."""
    whole, _, rest = text.strip().partition(".")
    digits = whole + rest
    if not (digits.isascii() and digits.isdigit() and whole and len(rest) <= 6):
        raise ValueError(f"{text!r} is no amount of credits: write a number like 12 or 0.000001")
    amount = int(whole) * MICROCREDITS_PER_CREDIT + int(rest.ljust(6, "0") or "0")
    if amount > MICROCREDITS_MAX:
        raise ValueError(f"{text} credits are more than can exist")
    return Microcredits(amount)
