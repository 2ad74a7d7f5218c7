"""The requester's choice: who could do a job, best first, and why nobody can."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from protocol.capacity import Advert
from protocol.errors import Code, LocalError
from protocol.ids import ModelId, NodeId
from protocol.job.requester import Candidate
from protocol.matching import Ranked, Wish, rank

Adverts = Callable[[], Mapping[NodeId, Advert]]
"""Live adverts of nodes that can be reached, without our own."""


class Market:
    """Ranks providers by their adverts and our own orders that run at each."""

    def __init__(self, adverts: Adverts) -> None:
        self._adverts = adverts
        self._orders: Counter[NodeId] = Counter()

    def models_named(self, name: str) -> list[ModelId]:
        """The models that somebody offers under this name; all where the name is empty.

        Raises LocalError NO_PROVIDER where nobody offers anything, MODEL_NOT_SERVED with the
        names there are.
        """
        offers = [offer for advert in self._adverts().values() for offer in advert.models]
        if not offers:
            raise LocalError(
                Code.NO_PROVIDER,
                "No node that can be reached shares a model now; `ayni peers` shows who is there.",
            )
        found = {offer.model for offer in offers if name in ("", offer.name, offer.model.hex())}
        if not found:
            names = ", ".join(sorted({offer.name for offer in offers}))
            raise LocalError(
                Code.MODEL_NOT_SERVED, f"Nobody serves {name[:64]!r} now; served: {names}."
            )
        return sorted(found)

    def candidates(self, wish: Wish) -> list[Ranked]:
        """Providers for a job, best first; busy ones last, since their adverts may be old.

        Raises LocalError NO_PROVIDER with the reason.
        """
        adverts = self._adverts()
        ranked = rank(wish, adverts, self._orders)
        if ranked:
            return ranked
        if wish.provider is not None:
            if wish.provider not in adverts:
                reason = "The provider that was asked for is not there now"
            else:
                reason = f"{adverts[wish.provider].name} takes no such job now"
        elif all(advert.sharing != "on" for advert in adverts.values() if advert.models):
            reason = "All nodes with such a model have paused sharing"
        else:
            reason = (
                f"No node takes a prompt of about {wish.prompt_tokens} tokens for at most "
                f"{wish.cost_max} microcredits"
            )
        raise LocalError(Code.NO_PROVIDER, f"{reason}; `ayni peers` shows who is there.")

    @contextmanager
    def ordering(self, node: NodeId) -> Iterator[None]:
        """An order of ours is with this node: it counts against its free slots."""
        self._orders[node] += 1
        try:
            yield
        finally:
            self._orders[node] -= 1
            if not self._orders[node]:
                del self._orders[node]


def candidate(ranked: Ranked) -> Candidate:
    """What the job's machine needs of a ranked provider."""
    offer = ranked.offer
    return Candidate(ranked.node, offer.model, offer.price_in, offer.price_out)
