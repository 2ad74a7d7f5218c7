"""Which provider for a job: filter by what it can do, rank by price and time. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protocol.capacity import Advert, ModelOffer
from protocol.identity import digest
from protocol.ids import JobId, ModelId, NodeId
from protocol.job.kinds import MODEL_EMBEDS, MODEL_GENERATES
from protocol.pricing import cost

SECOND_MICROCREDITS = 1_000
"""What a second of waiting is worth: a provider twice as fast may cost this much more."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a job needs of a provider. No models or modes listed: any will do."""

    job: JobId
    models: Sequence[ModelId]
    modes: Sequence[str]
    prompt_tokens: int  # An estimate: bytes / 4.
    output_tokens: int
    cost_max: int
    provider: NodeId | None = None
    kind: str = MODEL_GENERATES
    """Of the model."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A provider that can serve the job; `free` is false where it must first end others."""

    node: NodeId
    offer: ModelOffer
    cost: int
    ms: int
    free: bool


def rank(
    wish: Wish, adverts: Mapping[NodeId, Advert], orders_running: Mapping[NodeId, int]
) -> list[Ranked]:
    """Best first. `orders_running` are our own orders at each provider, which its last advert may
    not know of yet. Equal ones come in an order that the job's id settles, so that many
    requesters do not all run to the same provider."""
    found = [
        ranked
        for node, advert in adverts.items()
        if advert.sharing == "on" and wish.provider in (None, node)
        for offer in advert.models
        if (ranked := _fit(wish, node, offer, orders_running.get(node, 0))) is not None
    ]

    def order(ranked: Ranked) -> tuple[bool, int, bytes]:
        worth = ranked.cost + ranked.ms * SECOND_MICROCREDITS // 1000
        return (not ranked.free, worth, digest(wish.job, ranked.node, ranked.offer.model))

    return sorted(found, key=order)


def _fit(wish: Wish, node: NodeId, offer: ModelOffer, orders_running: int) -> Ranked | None:
    if offer.kind != wish.kind:
        return None
    if wish.models and offer.model not in wish.models:
        return None
    if wish.modes and offer.mode not in wish.modes:
        return None
    # An embed's tokens are those of many texts, each of which is cut to the model's context.
    fits = wish.kind == MODEL_EMBEDS or wish.prompt_tokens < offer.context_tokens
    if not (fits and offer.slots):
        return None
    answer_least = min(1, wish.output_tokens)
    if cost(wish.prompt_tokens, answer_least, offer.price_in, offer.price_out) > wish.cost_max:
        return None
    estimate = cost(wish.prompt_tokens, wish.output_tokens, offer.price_in, offer.price_out)
    ms = _ms(wish.prompt_tokens, offer.prefill_millitokens_per_second) + _ms(
        wish.output_tokens, offer.decode_millitokens_per_second
    )
    # Either count may include orders that the other knows of, so the smaller is believed.
    free = min(offer.slots_free, offer.slots - orders_running) > 0
    return Ranked(node, offer, estimate, ms, free)


def _ms(tokens: int, millitokens_per_second: int) -> int:
    return tokens * 1_000_000 // max(1, millitokens_per_second)
