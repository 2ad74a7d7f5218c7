"""What a job that we ask for wants done next: the actions that `RequesterJob` returns."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.errors import Code
from protocol.ids import MessageId, ModelId, NodeId
from protocol.job.logprob import Logprob
from protocol.job.terms import Finish, Quote, Receipt
from protocol.units import Microcredits


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that the market has ranked, with what it advertised."""

    node: NodeId
    model: ModelId
    price_in: int
    price_out: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Hold enough of a channel to this provider, if it takes money, and feed Funded, or NotOrdered
    where it cannot be had; then open a stream, draw the secrets of this attempt, send a request
    whose cost is capped `spent` below the job's, and feed RequestSent."""

    attempt: int
    candidate: Candidate
    spent: Microcredits
    """By orders of this job that came to nothing: it counts against the job's cap (M6)."""
    mistrust: "Failure | None" = None
    """Why this provider refused the channel that it was offered a moment ago."""


@dataclass(frozen=True, slots=True)
class SendOrder:
    """Send the order for this quote, with the channel if it is paid, and feed OrderSent."""

    attempt: int
    quote_id: MessageId
    is_paid: bool
    prompt_first: Microcredits
    """What a voucher that goes with it pays ahead; 0 for none."""


@dataclass(frozen=True, slots=True)
class Accepted:
    attempt: int
    candidate: Candidate
    quote: Quote
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Deliver:
    ids: Sequence[int]
    text: str
    logprobs: Sequence[Sequence[Logprob]] = ()  # For each of `ids`, or none.


@dataclass(frozen=True, slots=True)
class DeliverVectors:
    """Of the next texts of an embed, in their order; checked and signed for."""

    vectors: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class SendCancel:
    attempt: int
    order_id: MessageId


@dataclass(frozen=True, slots=True)
class Pay:
    """Sign and send a voucher: so much the order has cost by the chunks that came and were checked,
    and `first_t` is the first token, or vector, that it does not pay."""

    attempt: int
    order_id: MessageId
    first_t: int
    cost: Microcredits


@dataclass(frozen=True, slots=True)
class Countersign:
    attempt: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class SendRefuse:
    attempt: int
    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Reset this attempt's stream. `is_unread`: the provider has refused the order before it read
    the prompt, so what was paid ahead for that is not spent."""

    attempt: int
    is_unread: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt, and in the end the job, came to nothing."""

    candidate: Candidate | None
    code: Code
    sentence: str
    retry_ms: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The one end of the job. `failures` lists each provider that was tried in vain; when
    `reason` is "none" the job failed, and the last of them says why."""

    reason: Finish
    candidate: Candidate | None
    receipt: Receipt | None
    input_tokens: int
    output_tokens: int
    cost: int
    failures: Sequence[Failure]


Action = (
    Ask
    | SendOrder
    | Accepted
    | Deliver
    | DeliverVectors
    | SendCancel
    | Pay
    | Countersign
    | SendRefuse
    | Drop
    | Finished
)
