"""How probable a token was at its place: for people to look at, never for money."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from protocol.limits import LOGPROB_TEXT_BYTES_MAX
from protocol.units import TokenId

MICROLOGPROB_MIN: Final = -9_999_000_000
"""What is less probable than e^-9999 counts as that."""


class Logprob(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One token that could have stood at a place."""

    token: TokenId
    text: Annotated[bytes, Meta(max_length=LOGPROB_TEXT_BYTES_MAX)]
    """Its bytes, which may be a part of a character; the first of them where there are more."""
    micrologprob: Annotated[int, Meta(ge=MICROLOGPROB_MIN, le=0)]
    """The natural logarithm of its probability, in millionths; after penalties, bias and mask,
    before temperature."""
