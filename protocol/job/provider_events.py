"""What can happen to a job that we serve: the events that `ProviderJob` is fed."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.errors import Code
from protocol.ids import MessageId
from protocol.job.logprob import Logprob
from protocol.job.terms import Finish, Order, Receipt, Refuse


@dataclass(frozen=True, slots=True)
class OrderCame:
    order: Order
    id: MessageId


@dataclass(frozen=True, slots=True)
class ModelBegan:
    prompt_tokens: int
    ids_digest: bytes


@dataclass(frozen=True, slots=True)
class ModelSaid:
    ids: Sequence[int]
    text: str
    logprobs: Sequence[Sequence[Logprob]] = ()  # For each of `ids`, or none.
    leaves: Sequence[bytes] = ()  # For each of `ids`, or none (protocol.job.rows).


@dataclass(frozen=True, slots=True)
class ModelEmbedded:
    """Vectors of the next texts, in their order."""

    vectors: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class ModelEnded:
    reason: Finish


@dataclass(frozen=True, slots=True)
class ModelFailed:
    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class CancelCame:
    pass


@dataclass(frozen=True, slots=True)
class ReceiptCame:
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class RefuseCame:
    refuse: Refuse


@dataclass(frozen=True, slots=True)
class RequesterLost:
    pass


@dataclass(frozen=True, slots=True)
class TimePassed:
    pass


Event = (
    OrderCame
    | ModelBegan
    | ModelSaid
    | ModelEmbedded
    | ModelEnded
    | ModelFailed
    | CancelCame
    | ReceiptCame
    | RefuseCame
    | RequesterLost
    | TimePassed
)
