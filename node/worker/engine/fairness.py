"""Whose turn it is: the requester that has had the least work done, the owner before all.

The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024):
each requester's counter grows with the tokens that are read and drawn for it; one that comes back
after a rest is lifted to the least of those who have work here, so that rest is not saved up.
"""

from collections import Counter, OrderedDict
from typing import Final

OWNER: Final = b""  # The requester of the owner's own jobs.
REQUESTERS_REMEMBERED_MAX: Final = 1024  # Whoever is forgotten begins again like a newcomer.


class Turns:
    """Counters of requesters."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[bytes, int] = OrderedDict()
        self._here: Counter[bytes] = Counter()  # Jobs of each requester that has any.

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._tokens)

    def came(self, requester: bytes) -> None:
        """One more job of a requester is here."""
        if not self._here[requester]:
            others = [self._tokens[other] for other in self._here if self._here[other]]
            before = self._tokens.get(requester, 0)
            self._tokens[requester] = max(before, min(others)) if others else before
        self._here[requester] += 1

    def went(self, requester: bytes) -> None:
        """One of its jobs is over."""
        assert self._here[requester] > 0
        self._here[requester] -= 1
        if self._here[requester]:
            return
        del self._here[requester]
        self._tokens.move_to_end(requester)
        while len(self._tokens) - len(self._here) > REQUESTERS_REMEMBERED_MAX:
            # Those with work here are in use, and there are few of them.
            oldest = next(name for name in self._tokens if name not in self._here)
            del self._tokens[oldest]

    def served(self, requester: bytes, tokens: int) -> None:
        self._tokens[requester] += tokens

    def rank(self, requester: bytes) -> tuple[bool, int]:
        """The smaller, the more entitled."""
        return requester != OWNER, self._tokens[requester]
