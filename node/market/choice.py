"""The requester's choice: who could do a job, best first, and why nobody can."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from node.market.tally import NodeTally
from protocol.capacity import Advert
from protocol.errors import Code, LocalError
from protocol.ids import ModelId, NodeId
from protocol.job.kinds import MODEL_EMBEDS, MODEL_GENERATES
from protocol.job.requester_actions import Candidate
from protocol.job.unverifiable import is_unverifiable
from protocol.limits import MODES_MAX
from protocol.matching import Ranked, Wish, rank

Adverts = Callable[[], Mapping[NodeId, Advert]]
"""Live adverts of nodes that can be reached, without our own."""

RETRY_PAUSED_MS = 10_000


class Market:
    """Ranks providers by their adverts and our own orders that run at each."""

    def __init__(self, adverts: Adverts, suspect: Callable[[NodeId], bool]) -> None:
        """`suspect` nodes have contradicted themselves on the ledger: they come after others."""
        self._adverts = adverts
        self._suspect = suspect
        self._orders = NodeTally()

    def models_named(self, name: str, kind: str = MODEL_GENERATES) -> list[ModelId]:
        """The models of this kind that somebody offers under this name; all where it is empty.

        Raises LocalError NO_PROVIDER where nobody offers anything, MODEL_NOT_SERVED with the
        names there are.
        """
        offers = [
            offer
            for advert in self._adverts().values()
            for offer in advert.models
            if offer.kind == kind
        ]
        if not offers:
            what = "a model for embeddings" if kind == MODEL_EMBEDS else "a model"
            raise LocalError(
                Code.NO_PROVIDER,
                f"No node that can be reached shares {what} now; `ayni peers` shows who is there.",
            )
        found = {offer.model for offer in offers if name in ("", offer.name, offer.model.hex())}
        if not found:
            names = ", ".join(sorted({offer.name for offer in offers}))
            raise LocalError(
                Code.MODEL_NOT_SERVED, f"Nobody serves {name[:64]!r} now; served: {names}."
            )
        return sorted(found)

    def modes_checkable(self) -> tuple[str, ...]:
        """The modes of what is offered now whose output somebody could check, for a wish; a
        request names those of `modes_of`. Raises LocalError NO_PROVIDER where there is none."""
        offers = [offer for advert in self._adverts().values() for offer in advert.models]
        modes = sorted({offer.mode for offer in offers if not is_unverifiable(offer.mode)})
        if not modes:
            raise LocalError(
                Code.NO_PROVIDER,
                "Nobody shares a model now whose output can be checked; where that need not be, "
                "leave --checkable-only out.",
            )
        return tuple(modes)

    def candidates(self, wish: Wish) -> list[Ranked]:
        """Providers for a job, best first; busy ones last, since their adverts may be old.

        Raises LocalError NO_PROVIDER, CONTEXT_EXCEEDED or COST_EXCEEDED with the reason.
        """
        adverts = self._adverts()
        ranked = rank(wish, adverts, self._orders.counts)
        if ranked:
            return sorted(ranked, key=lambda one: self._suspect(one.node))  # Else as ranked.
        raise self._nobody(wish, adverts)

    def _nobody(self, wish: Wish, adverts: Mapping[NodeId, Advert]) -> LocalError:
        code, retry_ms = Code.NO_PROVIDER, 0
        if wish.provider is not None:
            adverts = {node: adverts[node] for node in adverts if node == wish.provider}
        offers = [
            offer
            for advert in adverts.values()
            for offer in advert.models
            if offer.kind == wish.kind and (not wish.models or offer.model in wish.models)
        ]
        fitting = [offer for offer in offers if not wish.modes or offer.mode in wish.modes]
        context = max((offer.context_tokens for offer in fitting), default=0)
        if wish.provider is not None and not adverts:
            reason = "The provider that was asked for is not there now"
        elif not offers:
            reason = "The provider that was asked for shares no such model now"
        elif not fitting:
            reason = "All that share such a model run it where its output cannot be checked"
        elif all(advert.sharing != "on" for advert in adverts.values() if advert.models):
            reason, retry_ms = "All nodes with such a model have paused sharing", RETRY_PAUSED_MS
        elif wish.kind != MODEL_EMBEDS and wish.prompt_tokens >= context:
            code = Code.CONTEXT_EXCEEDED
            reason = (
                f"The prompt has about {wish.prompt_tokens} tokens; the most that anybody's model "
                f"takes is {context}"
            )
        else:
            code = Code.COST_EXCEEDED
            reason = (
                f"The job's cap of {wish.cost_max} microcredits pays for no prompt of about "
                f"{wish.prompt_tokens} tokens at today's prices"
            )
        return LocalError(code, f"{reason}; `ayni peers` shows who is there.", retry_ms)

    def ordering(self, node: NodeId) -> AbstractContextManager[None]:
        """An order of ours is with this node: it counts against its free slots."""
        return self._orders.counted(node)


def candidate(ranked: Ranked) -> Candidate:
    """What the job's machine needs of a ranked provider."""
    offer = ranked.offer
    return Candidate(ranked.node, offer.model, offer.price_in, offer.price_out)


def modes_of(ranked: Sequence[Ranked]) -> tuple[str, ...]:
    """The modes of providers that are asked in this order, at most as many as a request may name:
    those of the best, so that nobody's invented modes push theirs out."""
    return tuple(dict.fromkeys(one.offer.mode for one in ranked))[:MODES_MAX]
