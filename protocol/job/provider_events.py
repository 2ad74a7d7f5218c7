"""What can happen to a job that we serve: the events that `ProviderJob` is fed."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.errors import Code
from protocol.ids import MessageId
from protocol.job.logprob import Logprob
from protocol.job.terms import Finish, Order, Receipt, Refuse
from protocol.job.window import Window
from protocol.ledger.voucher import Voucher


@dataclass(frozen=True, slots=True)
class Unpayable:
    """Why the channel that an order names is none by which it could be paid."""

    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class OrderCame:
    """`window` is that of the channel by which the order is paid, and `voucher` what came with it,
    signed by the requester for that channel; it is being counted, and VoucherCounted tells of it.
    Without a window the job costs nothing, or it is `unpayable`."""

    order: Order
    id: MessageId
    window: Window | None = None
    voucher: Voucher | None = None
    unpayable: Unpayable | None = None


@dataclass(frozen=True, slots=True)
class VoucherCounted:
    """A voucher of this order is on disk; the window knows of it already."""

    note: bytes


@dataclass(frozen=True, slots=True)
class VoucherFailed:
    """A voucher of this order does not count."""

    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class Paid:
    """A voucher of some order of the channel was counted: there may be room again."""


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
    | VoucherCounted
    | VoucherFailed
    | Paid
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
