"""What this node has, owes and holds back: the store's newest figures, in memory."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from node.ledger.base import Income, Standing
from node.ledger.keeper import News
from node.storage.ledger_own import Figures
from protocol.errors import Code, LocalError
from protocol.units import Microcredits, credits_text

CLAIMED_MS: Final = 2_000  # A certificate takes less where the witnesses are there.
INCOMES_KEPT_MAX: Final = 4096  # Of those that come while we run: about a MiB.


class Purse:
    """The figures of our own account, what orders that run have reserved, and our incomes."""

    def __init__(self, figures: Figures, incomes: Sequence[Income]) -> None:
        self._figures = figures
        self._reserved = 0
        self._incomes = deque(incomes, maxlen=len(incomes) + INCOMES_KEPT_MAX)
        self._watchers: list[Callable[[Income], None]] = []
        self.when_short: Callable[[], None] = lambda: None
        """Called when more is asked for than can be spent while something can be claimed."""

    @property
    def figures(self) -> Figures:
        """The newest figures that have come."""
        return self._figures

    def heard(self, news: News) -> None:
        """Something has changed in the store."""
        self.renew(news.figures)
        for income in news.incomes:
            self._incomes.append(income)
            for watcher in self._watchers:
                watcher(income)

    def renew(self, figures: Figures | None) -> None:
        """Take figures, unless newer ones were faster."""
        if figures is not None and figures.moment >= self._figures.moment:
            self._figures = figures

    def watch(self, watcher: Callable[[Income], None]) -> None:
        """As `Ledger.watch_income`."""
        for income in self._incomes:
            watcher(income)
        self._watchers.append(watcher)

    def standing(self) -> Standing:
        """As `Ledger.standing`."""
        figures = self._figures
        return Standing(
            balance=Microcredits(figures.account.balance),
            pending=Microcredits(figures.pending),
            reserved=Microcredits(self._reserved),
            claimable=Microcredits(figures.claimable),
            seq=figures.account.seq,
            head=figures.account.head,
        )

    @contextmanager
    def reserve(self, amount: int) -> Iterator[None]:
        """As `Ledger.reserve`."""
        assert amount >= 0
        standing = self.standing()
        if amount > standing.spendable:
            raise self._overdrawn(amount, standing)
        self._reserved += amount
        try:
            yield
        finally:
            self._reserved -= amount

    def _overdrawn(self, amount: int, standing: Standing) -> LocalError:
        remedy = "Earn credits by sharing this machine, or let somebody send some to this node."
        retry_ms = 0
        if standing.claimable:
            self.when_short()
            remedy = (
                f"{credits_text(standing.claimable)} more are earned and are being claimed now: "
                "try again in a moment."
            )
            retry_ms = CLAIMED_MS
        return LocalError(
            Code.OVERDRAWN,
            f"This needs {credits_text(amount)} credits; {credits_text(standing.spendable)} can be "
            f"spent of a balance of {credits_text(standing.balance)}. {remedy}",
            retry_ms,
        )
