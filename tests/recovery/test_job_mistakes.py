"""Deliberate mistakes: the checks of paid jobs find each of them."""

from collections.abc import Awaitable, Callable

import pytest

from node.ledger.base import Vouchers
from node.network.memory_weather import Calm
from node.simulator.determinism import run
from protocol.envelope import Signed
from protocol.ids import MessageId, NodeId
from tests.recovery.job_life import Jobs, open_jobs


class Silent(Vouchers):
    """A payee that tells nobody what it holds."""

    def best(self, channel: MessageId) -> Signed | None:
        return None

    def wanted(self, channel: MessageId) -> None:
        return


class Far(Calm):
    """Everything takes a second."""

    def delay_seconds(self, sender: NodeId, receiver: NodeId) -> float:
        return 1.0


async def forgotten_highest(jobs: Jobs) -> None:
    """A payer that died goes on from nothing."""
    jobs.world.payee.ledger.keep_vouchers(Silent())
    await jobs.world.payer.comes_back()
    await jobs.lived({})


async def forgetful_disk(jobs: Jobs) -> None:
    """A disk that says "written" of what is in its cache only, and loses power."""
    payee = jobs.world.payee
    behind = payee.disk.copy()
    await jobs.lived({})
    await payee.comes_back(behind)


async def wide_window(jobs: Jobs) -> None:
    """A provider that does not keep to the window of its own quote."""
    hear = jobs.wire.hear

    def widened(sender: NodeId, receiver: NodeId, protocol: str, data: bytes) -> None:
        for book in jobs.world.payee.channels.payee.books:
            book.window.chunks_max = 50
        hear(sender, receiver, protocol, data)

    jobs.world.hear, jobs.world.memory.weather = widened, Far()
    await jobs.lived({})


async def order_twice(jobs: Jobs) -> None:
    """What was said for one order is said for it once more."""
    hear = jobs.wire.hear

    def twice(sender: NodeId, receiver: NodeId, protocol: str, data: bytes) -> None:
        hear(sender, receiver, protocol, data)
        hear(sender, receiver, protocol, data)

    jobs.world.hear = twice
    await jobs.lived({})


FOUND = [
    (forgotten_highest, "M4: a payer signed less"),
    (forgetful_disk, "what was counted is paid"),
    (wide_window, "M5: a provider goes beyond its window"),
    (order_twice, "M6: a chunk is paid twice"),
]


async def made(mistake: Callable[[Jobs], Awaitable[None]]) -> None:
    async with open_jobs() as jobs:
        await jobs.lived({})
        await mistake(jobs)
        await jobs.settled()


@pytest.mark.parametrize(("mistake", "words"), FOUND)
def test_it_is_found(mistake: Callable[[Jobs], Awaitable[None]], words: str) -> None:
    with pytest.raises(ExceptionGroup) as found:
        run(lambda: made(mistake), b"mistake")
    assert found.group_contains(AssertionError, match=words)
