"""What can happen to a job that we ask for: the events that `RequesterJob` is fed.

Each names the attempt it belongs to, so a late word of a provider that we gave up on no longer
counts.
"""

from dataclasses import dataclass

from protocol.errors import Code
from protocol.ids import MessageId
from protocol.job.terms import Chunk, Delta, Quote, Receipt, Refuse, Request, Started


@dataclass(frozen=True, slots=True)
class Funded:
    """What the order may cost is held in a channel to the provider, which has seen it."""

    attempt: int


@dataclass(frozen=True, slots=True)
class RequestSent:
    attempt: int
    request: Request
    id: MessageId


@dataclass(frozen=True, slots=True)
class QuoteCame:
    attempt: int
    quote: Quote
    id: MessageId


@dataclass(frozen=True, slots=True)
class OrderSent:
    attempt: int
    id: MessageId


@dataclass(frozen=True, slots=True)
class NotOrdered:
    """Our own node does not place the order, since it could not pay for it."""

    attempt: int
    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class Came:
    attempt: int
    message: Started | Delta | Chunk | Receipt | Refuse


@dataclass(frozen=True, slots=True)
class ProviderLost:
    """The stream broke (LOST), or the provider broke the rules (the code says which)."""

    attempt: int
    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    pass


@dataclass(frozen=True, slots=True)
class TimePassed:
    pass


Event = (
    Funded
    | RequestSent
    | QuoteCame
    | OrderSent
    | NotOrdered
    | Came
    | ProviderLost
    | CancelAsked
    | TimePassed
)
