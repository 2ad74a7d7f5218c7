"""Questions that wait together travel together, and each gets its own answer, whatever breaks."""

from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from node.ledger.lines import Lines
from node.network.base import NetworkError, Stream
from node.network.framing import FrameStream
from node.network.memory import MemoryWorld
from protocol.ledger.sync import (
    LEDGER_PROTOCOL,
    Accepted,
    Announce,
    AskRange,
    Refusal,
    Submit,
    Voted,
    answer_decoded,
    ask_decoded,
    message_encoded,
)
from protocol.limits import LEDGER_ASKS_AT_ONCE_MAX
from tests.node.ledger.library import chain_of, pays
from tests.node.ledger.village import ANNA, BRUNO, CLARA, WITNESSES, dial, open_village

Clock = trio.testing.MockClock
Serve = Callable[[FrameStream], Awaitable[None]]


class Echo:
    """Answers each question about a range with its first seq, and notes what came together."""

    def __init__(self) -> None:
        self.together: list[int] = []
        self.opened = 0
        self.break_off_after = 1 << 30  # Answers, of all streams.
        self.answered = 0

    async def handle(self, stream: Stream) -> None:
        frames = FrameStream(stream)
        self.opened += 1
        while (data := await frames.receive()) is not None:
            asks = [ask_decoded(data)]
            await trio.sleep(1)  # A distance: meanwhile other questions come.
            while (data := frames.come()) is not None:
                asks.append(ask_decoded(data))
            self.together.append(len(asks))
            for ask in asks:
                if self.answered >= self.break_off_after:
                    await frames.reset()
                    return
                self.answered += 1
                assert isinstance(ask, AskRange)
                await frames.send(message_encoded(Refusal("ECHO", str(ask.first_seq))))


async def asked(lines: Lines, number: int, told: dict[int, str]) -> None:
    try:
        answer = await lines.ask(BRUNO.node, AskRange(CLARA.node, number, 1))
    except NetworkError:
        told[number] = "lost"
        return
    assert isinstance(answer, Refusal)
    told[number] = answer.sentence


async def meeting(world: MemoryWorld, echo: Echo, nursery: trio.Nursery) -> Lines:
    """Lines of Anna's to Bruno, who echoes."""

    async def live(task_status: trio.TaskStatus[Lines]) -> None:
        async with world.open_network(BRUNO.node) as theirs, world.open_network(ANNA.node) as ours:
            theirs.serve(LEDGER_PROTOCOL, echo.handle)
            task_status.started(Lines(ours, lambda node: dial(ours, node)))
            await trio.sleep_forever()

    lines: Lines = await nursery.start(live)
    return lines


async def test_what_waits_together_travels_together(autojump_clock: Clock) -> None:
    echo, told = Echo(), dict[int, str]()
    count = 3 * LEDGER_ASKS_AT_ONCE_MAX
    async with trio.open_nursery() as nursery:
        lines = await meeting(MemoryWorld(), echo, nursery)
        async with trio.open_nursery() as asking:
            for number in range(1, count + 1):
                asking.start_soon(asked, lines, number, told)
        nursery.cancel_scope.cancel()
    assert told == {number: str(number) for number in range(1, count + 1)}
    assert echo.opened == 1
    assert sum(echo.together) == count
    assert max(echo.together) <= LEDGER_ASKS_AT_ONCE_MAX
    assert len(echo.together) <= 5


async def test_who_is_cancelled_takes_nobody_along(autojump_clock: Clock) -> None:
    """The one that asks for all is cancelled in mid-exchange, and so is one of the others."""
    echo, told = Echo(), dict[int, str]()
    async with trio.open_nursery() as nursery:
        lines = await meeting(MemoryWorld(), echo, nursery)
        scopes = {number: trio.CancelScope() for number in range(1, 11)}

        async def cancellable(number: int) -> None:
            with scopes[number]:
                await asked(lines, number, told)

        async with trio.open_nursery() as asking:
            for number in scopes:
                asking.start_soon(cancellable, number)
            await trio.sleep(0.5)
            for number in (1, 2, 3, 4, 5):
                scopes[number].cancel()
        nursery.cancel_scope.cancel()
    for number in (6, 7, 8, 9, 10):
        assert told[number] == str(number)
    assert set(told) <= set(range(1, 11))


async def test_an_exchange_that_breaks_off_is_told_to_all_in_it_and_the_next_goes_well(
    autojump_clock: Clock,
) -> None:
    echo, told = Echo(), dict[int, str]()
    echo.break_off_after = 0
    async with trio.open_nursery() as nursery:
        lines = await meeting(MemoryWorld(), echo, nursery)
        async with trio.open_nursery() as asking:
            for number in range(1, 6):
                asking.start_soon(asked, lines, number, told)
        assert set(told.values()) == {"lost"}
        echo.break_off_after = 1 << 30
        await asked(lines, 9, told)
        assert told[9] == "9"
        # The stream grows old, and is closed by the peer: the same question goes over another.
        echo.break_off_after = echo.answered
        with pytest.raises(NetworkError):
            await lines.ask(BRUNO.node, AskRange(CLARA.node, 1, 1))
        echo.break_off_after = 1 << 30
        await asked(lines, 10, told)
        assert told[10] == "10"
        nursery.cancel_scope.cancel()


async def test_a_witness_answers_in_order_what_depends_on_each_other(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """A certificate and the entry after it in one write: the second needs the first."""
    async with open_village(tmp_path) as village:
        (witness,) = await village.up(WITNESSES[3])
        chain = chain_of(village.charter, ANNA, pays(CLARA, 20))
        async with village.world.open_network(ANNA.node) as network:
            await network.connect(witness.network.addresses[0])
            frames = FrameStream(await network.open(witness.node, LEDGER_PROTOCOL))
            asks: list[Announce | Submit] = []
            for before, after in pairwise(chain[:11]):
                asks += [Announce(before), Submit(after.entry, (), (), bytes(16))]
            await frames.send(*map(message_encoded, asks))
            answers = []
            for _ in asks:
                data = await frames.receive()
                assert data is not None
                answers.append(type(answer_decoded(data)))
        assert answers == [Accepted, Voted] * 10
