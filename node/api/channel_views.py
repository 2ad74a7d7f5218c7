"""What the wallet's calls about channels show: plain values, as in `node.api.ledger_views`."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from node.api.ledger_views import Party

CHANNEL_DIGITS_MIN: Final = 8  # Of a channel's id, as a person names it.
CHANNEL_DIGITS: Final = 64

ChannelField = Annotated[str, Meta(pattern=rf"\A[0-9a-f]{{{CHANNEL_DIGITS}}}\Z")]
"""A channel's whole id in hex."""


class ChannelLine(Struct, frozen=True, kw_only=True):
    """One channel of this node: it pays (`payer`) or is paid (`payee`).

    `funding` is what the payer has put in, `moved` what vouchers have given the payee (None after
    a restart of the payer, until the payee has said what it holds), `lost` what was delivered and
    never paid, `settled` the payee's share once that is final. `step` is what this node does next
    by itself, `step_ms` when (None: as soon as it can), `waits_for` how many of `quorum` witnesses
    are missing for it. `back_ms` is when what is locked comes back to its payer at the latest.
    Moments are milliseconds since 1970.
    """

    channel: str
    role: Literal["payer", "payee"]
    party: Party
    funding_microcredits: int
    moved_microcredits: int | None
    lost_microcredits: int
    expiry_ms: int
    state: Literal["open", "closed", "settling", "settled"]
    settled_microcredits: int | None
    step: str
    step_ms: int | None
    waits_for: int
    quorum: int
    back_ms: int | None
