"""The channels of this node in memory, by all certificates that have come; who watches is told."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from node.ledger.base import ChannelFacts
from node.ledger.keeper import News
from protocol.errors import Code, LocalError
from protocol.ids import MessageId, short

DONE_KEPT_MAX: Final = 256  # Channels whose share we have: for people, and for late questions.


class Registry:
    """What is final of our channels; all of it comes from the store."""

    def __init__(self, facts: Iterable[ChannelFacts]) -> None:
        self._facts: OrderedDict[MessageId, ChannelFacts] = OrderedDict()
        self._watchers: list[Callable[[ChannelFacts], None]] = []
        for one in facts:
            self._keep(one)

    def heard(self, news: News) -> None:
        """Something has changed in the store."""
        for facts in news.channels:
            if self._facts.get(facts.id) == facts or self._is_older(facts):
                continue
            self._keep(facts)
            for watcher in self._watchers:
                watcher(facts)

    def all(self) -> Sequence[ChannelFacts]:
        """As `Ledger.channels`."""
        return list(self._facts.values())

    def open(self) -> Sequence[ChannelFacts]:
        """Those that are not settled."""
        return [facts for facts in self._facts.values() if facts.settled is None]

    def find(self, channel: MessageId) -> ChannelFacts:
        """One channel of ours. Raises LocalError NOT_FOUND."""
        facts = self._facts.get(channel)
        if facts is None:
            raise LocalError(
                Code.NOT_FOUND,
                f"This node knows of no channel {short(channel)}; `ayni wallet channels` lists "
                "those that it has.",
            )
        return facts

    def watch(self, watcher: Callable[[ChannelFacts], None]) -> None:
        """As `Ledger.watch_channels`."""
        for facts in self._facts.values():
            watcher(facts)
        self._watchers.append(watcher)

    def _is_older(self, facts: ChannelFacts) -> bool:
        """Two changes may be told in another order than they were made; facts only grow."""
        known = self._facts.get(facts.id)
        return known is not None and _order(facts) < _order(known)

    def _keep(self, facts: ChannelFacts) -> None:
        self._facts[facts.id] = facts
        if not facts.is_claimed:
            return
        self._facts.move_to_end(facts.id)
        done = [one.id for one in self._facts.values() if one.is_claimed]
        for channel in done[:-DONE_KEPT_MAX]:
            del self._facts[channel]


def _order(facts: ChannelFacts) -> tuple[int, bool, bool]:
    return facts.topups, facts.settled is not None, facts.is_claimed
