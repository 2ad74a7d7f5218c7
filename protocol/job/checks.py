"""Rules on one message of a job, given those before it. Both sides use the same functions."""

from collections.abc import Sequence
from itertools import pairwise

from protocol.errors import Code, RemoteError
from protocol.ids import NetworkId, NodeId
from protocol.job.commitment import prompt_commitment, prompt_size, stop_digest
from protocol.job.kinds import CHAT, COMPLETION, EMBED, KINDS_SERVED, input_tokens_most
from protocol.job.seed import USER, seed_commitment
from protocol.job.terms import Order, Quote, Request
from protocol.limits import PROTOCOL_VERSION
from protocol.pricing import cost, prompt_prepaid
from protocol.units import Microcredits

NO_PAYMENT = "none"
CHANNEL = "channel"
CHANNEL_PROMPT_FIRST = "channel-prompt-first"
PAYMENTS_KNOWN = (NO_PAYMENT, CHANNEL, CHANNEL_PROMPT_FIRST)


def check_request(request: Request, network: NetworkId, provider: NodeId) -> None:
    """What can be said of a request from its own bytes.

    Raises RemoteError WRONG_VERSION, WRONG_NETWORK, WRONG_PROVIDER, KIND_NOT_SERVED or, for a
    length of the answer that is none of its kind and for biases in no order, BAD_MESSAGE.
    """
    if request.version != PROTOCOL_VERSION:
        raise RemoteError(
            Code.WRONG_VERSION,
            f"The request speaks version {request.version}; this node speaks {PROTOCOL_VERSION}.",
        )
    if request.network != network:
        raise RemoteError(
            Code.WRONG_NETWORK,
            f"The request is for network {request.network.hex()[:16]}; this is "
            f"{network.hex()[:16]}.",
        )
    if request.provider != provider:
        raise RemoteError(Code.WRONG_PROVIDER, "The request is addressed to another node.")
    if request.kind not in KINDS_SERVED:
        raise RemoteError(
            Code.KIND_NOT_SERVED,
            f"A job of kind {request.kind!r} was asked for; served are {', '.join(KINDS_SERVED)}.",
        )
    if (request.kind == EMBED) != (request.output_tokens_max == 0):
        raise RemoteError(
            Code.BAD_MESSAGE,
            f"A job of kind {request.kind!r} asks for {request.output_tokens_max} output tokens; "
            f"an {EMBED} has none, and any other at least 1.",
        )
    biased = [token for token, _ in request.sampling.bias]
    if any(this >= following for this, following in pairwise(biased)):
        raise RemoteError(
            Code.BAD_MESSAGE, "The biases of a request must be in rising order, each token once."
        )
    if request.first_t or request.prefix_hash:
        raise RemoteError(
            Code.KIND_NOT_SERVED, "Going on with another node's answer is not served yet."
        )


def check_quote(quote: Quote, request: Request, price_in_max: int, price_out_max: int) -> None:
    """Whether a requester takes a quote: asked-for mode, no dearer than the advert.

    Raises RemoteError MODE_NOT_SERVED, COST_EXCEEDED or KIND_NOT_SERVED (a payment we know not).
    """
    if request.modes and quote.mode not in request.modes:
        raise RemoteError(
            Code.MODE_NOT_SERVED,
            f"Mode {quote.mode} was quoted; asked for was {' or '.join(request.modes)}.",
        )
    if quote.price_in > price_in_max or quote.price_out > price_out_max:
        raise RemoteError(
            Code.COST_EXCEEDED,
            f"The quote of {quote.price_in}/{quote.price_out} microcredits for a million tokens "
            f"in/out is above the advertised {price_in_max}/{price_out_max}.",
        )
    if quote.payment not in PAYMENTS_KNOWN:
        raise RemoteError(
            Code.KIND_NOT_SERVED,
            f"Payment {quote.payment!r} was asked for; known are {', '.join(PAYMENTS_KNOWN)}.",
        )
    if quote.payment != NO_PAYMENT and not (price_in_max or price_out_max):
        raise RemoteError(  # Then there is no channel at hand either.
            Code.COST_EXCEEDED,
            f"Payment {quote.payment!r} was asked for; by the advert nothing is to be paid.",
        )


def payment_for(price_in: int, price_out: int, *, is_prompt_first: bool) -> str:
    """How a provider with these prices is paid: where nothing costs anything, not at all."""
    if not (price_in or price_out):
        return NO_PAYMENT
    return CHANNEL_PROMPT_FIRST if is_prompt_first else CHANNEL


def prompt_first(request: Request, quote: Quote) -> Microcredits:
    """What the voucher that goes with the order pays ahead, in microcredits: 0 where none is
    asked for. Both sides compute it."""
    if quote.payment != CHANNEL_PROMPT_FIRST:
        return Microcredits(0)
    amount = prompt_prepaid(request.prompt_bytes, quote.price_in)
    return min(amount, cost_worst(request, quote))


def cost_worst(request: Request, quote: Quote) -> Microcredits:
    """The most that an order of this quote can cost, in microcredits."""
    if quote.payment == NO_PAYMENT:
        return Microcredits(0)
    most = cost_most(
        request.kind,
        request.prompt_bytes,
        request.output_tokens_max,
        quote.price_in,
        quote.price_out,
    )
    return min(Microcredits(request.cost_max), most)


def cost_most(
    kind: str, prompt_bytes: int, output_tokens_max: int, price_in: int, price_out: int
) -> Microcredits:
    """The most that an answer can cost at these prices, in microcredits, whatever the cap."""
    input_tokens = input_tokens_most(kind, prompt_bytes)
    return cost(input_tokens, output_tokens_max, price_in, price_out)


def check_order(order: Order, request: Request) -> None:
    """Whether an order is the one its request promised. Raises RemoteError PROMPT_MISMATCH."""
    wrong = _order_mismatches(order, request)
    if wrong:
        raise RemoteError(
            Code.PROMPT_MISMATCH, f"The order does not keep its request: {', '.join(wrong)}."
        )


def _order_mismatches(order: Order, request: Request) -> Sequence[str]:
    prompt, wrong = order.prompt, []
    if prompt_size(prompt) != request.prompt_bytes:
        wrong.append("another size of prompt")
    if prompt_commitment(order.salt, prompt) != request.prompt_commitment:
        wrong.append("another prompt")
    if stop_digest(order.salt, order.stop) != request.stop_digest:
        wrong.append("other stop strings")
    if seed_commitment(order.r) != request.seed_commitment:
        wrong.append("another share of the seed")
    if request.seed_source == USER and any(order.r[8:]):
        wrong.append("a user seed of more than 8 bytes")
    if request.kind == EMBED and order.stop:
        wrong.append("stop strings, which end no text here")
    given = (bool(prompt.messages), bool(prompt.text), bool(prompt.texts))
    if given != tuple(request.kind == kind for kind in (CHAT, COMPLETION, EMBED)):
        wrong.append(f"no prompt of a {request.kind}")
    if order.prefix_ids:
        wrong.append("a prefix")
    return wrong
