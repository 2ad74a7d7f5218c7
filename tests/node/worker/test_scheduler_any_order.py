"""For any order of things, each sequence says what it says alone, and no block is lost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.worker.engine.model import BLOCK_TOKENS
from node.worker.engine.scheduler import Event, Scheduler
from node.worker.engine.sequence import Job
from node.worker.engine.speculation import NEVER, Speculation
from node.worker.pipe import Ended, Failed
from node.worker.text_stream import TextStream
from protocol.errors import Code, LocalError
from tests.node.worker.hash_model import BROKEN, HashModel
from tests.node.worker.scheduled import LETTERS, alone, job, made, said

PUBLIC = [3, 4] * 20  # A block and a bit.
BEGINNINGS: list[Sequence[int]] = [
    [], PUBLIC, [5] * BLOCK_TOKENS, [5] * (2 * BLOCK_TOKENS), [6, 5, 4] * 40, [BROKEN],
]  # fmt: skip


@dataclass(frozen=True)
class Act:
    do: str  # "add", "cancel" or "step".
    number: int = 0  # Which job to cancel, or how many steps.
    job: Job | None = None


def jobs() -> st.SearchStrategy[Job]:
    return st.builds(
        lambda requester, begin, rest, most, taken, seed: job(
            0,
            [*begin, *rest] or [2],
            most,
            requester=requester,
            prefix=[8] * taken,
            first_t=taken,
            seed=bytes([seed]) * 32,
        ),
        st.sampled_from([b"", b"a", b"a", b"b"]),
        st.sampled_from(BEGINNINGS),
        st.one_of(st.just([]), st.just([]), st.lists(st.integers(2, 30), max_size=50)),
        st.sampled_from([1, 3, 20, 200]),
        st.sampled_from([0, 0, 0, 1, 40]),
        st.integers(0, 1),
    )


acts = st.lists(
    st.one_of(
        jobs().map(lambda made_: Act("add", job=made_)),
        jobs().map(lambda made_: Act("add", job=made_)),
        st.builds(Act, st.just("step"), st.sampled_from([1, 1, 2, 8, 30])),
        st.builds(Act, st.just("cancel"), st.integers(0, 40)),
    ),
    min_size=8,
    max_size=40,
)


class Play:
    """A script carried out, with all that has to hold at each moment."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.events: list[Event] = []
        self.taken: dict[int, Job] = {}
        self.cancelled: set[int] = set()
        self.refused: set[Code] = set()

    def carry_out(self, number: int, act: Act) -> None:
        match act:
            case Act("add", _, Job() as made_):
                fresh = replace(made_, number=number, text=TextStream(LETTERS, ["IE"]))
                try:
                    self.events += self.scheduler.add(fresh)
                    self.taken[number] = fresh
                except LocalError as error:
                    self.refused.add(error.code)
            case Act("cancel", which):
                over = {e.task for e in self.events if isinstance(e, Ended | Failed)}
                events = self.scheduler.cancel(which)
                assert events == (
                    [Ended(which, "cancelled")] if which in self.taken.keys() - over else []
                )
                self.cancelled |= {event.task for event in events}
                self.events += events
            case _:
                for _ in range(act.number):
                    self.events += self.scheduler.step()

    def finish(self) -> None:
        steps = 0
        while not self.scheduler.idle:
            self.events += self.scheduler.step()
            steps += 1
            # Each step reads or says at least one token, and what was read again was pushed out
            # by what somebody else said.
            assert steps < 40_000


@settings(max_examples=250)
@given(acts, st.integers(1, 4), st.integers(2, 9), st.integers(0, 4), st.booleans())
def test_each_says_what_it_says_alone(
    script: list[Act], slots: int, blocks: int, guesses: int, is_exact: bool
) -> None:
    context = min(blocks, 5) * BLOCK_TOKENS
    model = HashModel(blocks, is_exact=is_exact)
    model.context_tokens = context = context - 5  # So that it ends within a block.
    speculation = Speculation(guesses) if guesses else NEVER
    play = Play(made(model, slots, context, [PUBLIC], speculation))
    for number, act in enumerate(script):
        play.carry_out(number, act)
        assert play.scheduler.blocks_held <= blocks
    play.finish()
    assert play.scheduler.blocks_held == 0
    assert play.refused <= {Code.BUSY, Code.CONTEXT_EXCEEDED}
    heard = said(play.events)
    assert set(heard) == set(play.taken)  # None lost, none doubled.
    for number, each in play.taken.items():
        expected = alone(replace(each, text=TextStream(LETTERS, ["IE"])), context)
        mine = heard[number]
        if number in play.cancelled:
            assert mine.ids == expected.ids[: len(mine.ids)]
            assert mine.leaves == expected.leaves[: len(mine.ids)]
            assert expected.text.startswith(mine.text)
        else:
            assert mine == expected


@pytest.mark.parametrize("seed", range(3))
def test_two_hundred_at_once_of_which_many_leave(seed: int) -> None:
    """More than the slots: who finds none comes again, as the daemon would have it."""
    random = Random(seed)
    scheduler = made(HashModel(20), 8, 160, [PUBLIC], Speculation())
    waiting = [
        job(
            number,
            [
                *random.choice(BEGINNINGS[:3]),
                *random.choices(range(2, 30), k=random.randint(1, 60)),
            ],
            random.randint(1, 60),
            requester=bytes([number % 5]),
        )
        for number in range(200)
    ]
    events: list[Event] = []
    running: set[int] = set()
    while waiting or not scheduler.idle:
        while waiting and len(running) < 8:
            running.add(waiting[-1].number)
            events += scheduler.add(waiting.pop())
        now = scheduler.step()
        for number in sorted(running):
            if random.random() < 0.03:
                now += scheduler.cancel(number)
        running -= {event.task for event in now if isinstance(event, Ended)}
        events += now
        assert scheduler.blocks_held <= 20
    assert scheduler.blocks_held == 0
    heard = said(events)
    assert sorted(heard) == list(range(200))
    reasons = {end.reason for each in heard.values() for end in each.ends if isinstance(end, Ended)}
    assert reasons == {"length", "stop", "cancelled"}
