"""Parts that fail are started again, later and later; nothing that they hold is told."""

import io

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from node.supervise import BackOff, background, contain, fatal, supervise
from node.telemetry import logs
from protocol.errors import Code, LocalError

MARKER = "why-is-the-sky-blue"


@pytest.fixture
def said() -> io.StringIO:
    stream = io.StringIO()
    logs.setup("debug", "json", stream=stream)
    return stream


class Failing:
    """Fails after some seconds, a number of times, and then returns."""

    def __init__(self, failures: int, seconds: float = 0) -> None:
        self.failures = failures
        self.seconds = seconds
        self.starts: list[float] = []

    async def run(self) -> None:
        self.starts.append(trio.current_time())
        await trio.sleep(self.seconds)
        if len(self.starts) <= self.failures:
            raise ValueError(MARKER)


async def test_restarts_wait_longer_each_time_up_to_a_minute(
    autojump_clock: trio.testing.MockClock, said: io.StringIO
) -> None:
    part = Failing(9)
    await supervise("pool", part.run)
    waits = [round(b - a) for a, b in zip(part.starts, part.starts[1:], strict=False)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    text = said.getvalue()
    assert text.count("part.restarts") == 9
    assert "ValueError at" in text
    assert MARKER not in text


async def test_a_healthy_run_forgives(
    autojump_clock: trio.testing.MockClock, said: io.StringIO
) -> None:
    part = Failing(4, seconds=61)
    await supervise("pool", part.run)
    waits = [round(b - a) - 61 for a, b in zip(part.starts, part.starts[1:], strict=False)]
    assert waits == [1, 1, 1, 1]


async def test_cancelling_ends_a_part_and_its_waiting(
    autojump_clock: trio.testing.MockClock, said: io.StringIO
) -> None:
    part = Failing(1_000_000)
    with trio.move_on_after(100) as scope:
        await supervise("pool", part.run)
    assert scope.cancelled_caught
    assert len(part.starts) == 7


async def test_a_fault_beside_a_cancellation_does_not_hold_it_up(
    autojump_clock: trio.testing.MockClock, said: io.StringIO
) -> None:
    async def fails_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError(MARKER)

    async def part() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    with trio.move_on_after(1) as scope:
        await supervise("pool", part)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(1)
    assert MARKER not in said.getvalue()


async def test_contain_says_whether_it_failed(said: io.StringIO) -> None:
    assert await contain("stream", Failing(0).run)
    assert not await contain("stream", Failing(1).run)

    async def refuse() -> None:
        raise LocalError(Code.BUSY, MARKER)

    assert not await contain("stream", refuse)
    assert "LocalError BUSY at" in said.getvalue()
    assert MARKER not in said.getvalue()


async def test_fatal_goes_on_up(said: io.StringIO) -> None:
    with pytest.raises(ValueError, match=MARKER):
        await fatal("database", Failing(1).run)
    assert "part.failed_fatally" in said.getvalue()
    assert MARKER not in said.getvalue()


async def test_what_is_no_exception_passes() -> None:
    async def stop() -> None:
        raise KeyboardInterrupt

    # Beside a group it stays a group; in either case it is not swallowed.
    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)):
        await supervise("pool", stop)


@given(st.lists(st.floats(min_value=0, max_value=1000), max_size=30))
def test_the_wait_is_always_bounded(runs: list[float]) -> None:
    back_off, wait = BackOff(), None
    for ran in runs:
        previous, wait = wait, back_off.next(wait, ran)
        assert back_off.seconds_min <= wait <= back_off.seconds_max
        assert wait == back_off.seconds_min or previous is not None


async def test_background_runs_beside_its_body_and_ends_with_it(autojump_clock: object) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await trio.sleep(1)

    async with background(tick):
        await trio.sleep(2.5)
    await trio.sleep(10)
    assert ticks == 3


async def test_what_the_body_raises_comes_out_as_it_is(autojump_clock: object) -> None:
    with pytest.raises(KeyError, match="of the body"):
        async with background(trio.sleep_forever):
            raise KeyError("of the body")


async def test_a_part_that_fails_ends_the_body(autojump_clock: object) -> None:
    async def fail() -> None:
        raise ValueError("of the part")

    with pytest.raises(ExceptionGroup) as caught:
        async with background(fail):
            await trio.sleep_forever()
    assert caught.group_contains(ValueError, match="of the part")
