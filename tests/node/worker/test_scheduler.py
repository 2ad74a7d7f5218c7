"""The scheduler against a model that only counts: whatever comes when, each job ends once."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.worker.engine.model import Drawn, Piece
from node.worker.engine.scheduler import (
    PROMPT_TOKENS_ALONE_MAX,
    PROMPT_TOKENS_BESIDE_MAX,
    Event,
    Job,
    Scheduler,
)
from node.worker.pipe import Ended, Failed, Progress
from node.worker.text_stream import TextStream
from protocol.errors import Code, LocalError
from protocol.job.sampling import Sampling

END, BROKEN = 0, 99
LETTERS = [b""] + [bytes([65 + (n - 1) % 26]) for n in range(1, 100)]


class Counting:
    """Checks that pieces fit their slots, and answers with the length of the sequence so far."""

    def __init__(self, end_at: int = 10**9) -> None:
        self.slots: dict[int, list[int]] = {}
        self.steps: list[list[Piece]] = []
        self._end_at = end_at

    def step(self, pieces: Sequence[Piece]) -> Sequence[Drawn]:
        self.steps.append(list(pieces))
        assert len({piece.slot for piece in pieces}) == len(pieces)
        return [self._one(piece) for piece in pieces]

    def _one(self, piece: Piece) -> Drawn:
        said = self.slots.setdefault(piece.slot, [])
        if piece.position == 0:
            said.clear()
        assert piece.position == len(said)
        said += piece.ids
        if piece.draw is None:
            return None
        assert [*piece.draw.prompt, *piece.draw.answer] == said
        if BROKEN in said:
            return LocalError(Code.WORKER_FAILED, "broken")
        return END if len(said) >= self._end_at else 1 + len(said) % 90


def job(number: int, prompt: int = 3, most: int = 5, **changes: object) -> Job:
    values: dict[str, object] = {
        "number": number,
        "prompt": [7] * prompt,
        "prefix": [],
        "text": TextStream(LETTERS, []),
        "sampling": Sampling(),
        "seed": bytes(32),
        "first_t": 0,
        "output_tokens_max": most,
    }
    return Job(**(values | changes))  # type: ignore[arg-type]


def made(model: Counting | None = None, slots: int = 2, context: int = 100) -> Scheduler:
    return Scheduler(model or Counting(), frozenset({END}), slots, context)


def run(scheduler: Scheduler) -> list[Event]:
    events: list[Event] = []
    while not scheduler.idle:
        events += scheduler.step()
    return events


def test_one_token_a_step_goes_out_at_once() -> None:
    scheduler = made()
    scheduler.add(job(1, most=2))
    assert scheduler.step() == [Progress(1, [4], "D")]
    assert scheduler.step() == [Progress(1, [5], "E"), Ended(1, "length")]
    assert scheduler.idle


def test_the_end_token_counts_and_has_no_text() -> None:
    scheduler = made(Counting(end_at=4))
    scheduler.add(job(1))
    assert run(scheduler) == [Progress(1, [4], "D"), Progress(1, [END], ""), Ended(1, "stop")]


def test_a_stop_string_ends_it_and_is_not_shown() -> None:
    scheduler = made()
    scheduler.add(job(1, text=TextStream(LETTERS, ["EF"])))
    events = run(scheduler)
    assert events == [
        Progress(1, [4], "D"), Progress(1, [5], ""), Progress(1, [6], ""), Ended(1, "stop"),
    ]  # fmt: skip


def test_held_text_comes_out_at_the_end() -> None:
    scheduler = made()
    scheduler.add(job(1, most=2, text=TextStream(LETTERS, ["EF"])))
    assert run(scheduler)[-2:] == [Progress(1, [5], "E"), Ended(1, "length")]


def test_the_context_is_a_limit() -> None:
    scheduler = made(context=6)
    scheduler.add(job(1, prompt=3, most=50))
    events = run(scheduler)
    assert [type(event) for event in events] == [Progress, Progress, Progress, Ended]
    assert events[-1] == Ended(1, "length")
    with pytest.raises(LocalError, match="CONTEXT_EXCEEDED"):
        scheduler.add(job(2, prompt=6))
    with pytest.raises(LocalError, match="BAD_REQUEST"):
        scheduler.add(job(2, prompt=0))


def test_a_failing_sequence_fails_alone() -> None:
    scheduler = made()
    scheduler.add(job(1, prompt=2, most=3))
    scheduler.add(job(2, prompt=1, prefix=[BROKEN]))
    events = run(scheduler)
    assert [e for e in events if not isinstance(e, Progress)] == [
        Failed(2, Code.WORKER_FAILED, "broken"), Ended(1, "length"),
    ]  # fmt: skip


def test_a_third_job_is_busy_until_a_slot_is_free() -> None:
    scheduler = made()
    scheduler.add(job(1))
    scheduler.add(job(2))
    with pytest.raises(LocalError, match="BUSY"):
        scheduler.add(job(3))
    assert scheduler.cancel(1) == [Ended(1, "cancelled")]
    assert scheduler.cancel(1) == []
    scheduler.add(job(3))
    assert {e.task for e in run(scheduler) if isinstance(e, Ended)} == {2, 3}


def test_a_long_prompt_never_stops_the_others() -> None:
    model = Counting()
    scheduler = made(model, context=1000)
    scheduler.add(job(1, most=500))
    scheduler.step()
    scheduler.add(job(2, prompt=300, most=1))
    while any(e.task == 1 for e in scheduler.step()):
        pieces = {len(piece.ids) for piece in model.steps[-1]}
        assert max(pieces) <= PROMPT_TOKENS_BESIDE_MAX
        if len(model.steps) > 40:
            break
    assert len(model.slots[model.steps[1][1].slot]) >= 300
    alone = Counting()
    scheduler = made(alone, context=1000)
    scheduler.add(job(1, prompt=300, most=1))
    run(scheduler)
    assert [len(s[0].ids) for s in alone.steps] == [PROMPT_TOKENS_ALONE_MAX] * 2 + [44]


def test_a_takeover_goes_on_where_the_other_stopped() -> None:
    whole, rest = made(), made()
    whole.add(job(1, most=8))
    answer = [e.ids[0] for e in run(whole) if isinstance(e, Progress)]
    rest.add(job(1, most=5, prefix=answer[:3], first_t=3))
    assert [e.ids[0] for e in run(rest) if isinstance(e, Progress)] == answer[3:]


def test_a_prefix_that_has_ended_draws_nothing() -> None:
    for prefix, stops in (([5, END], []), ([END, 5], []), ([5, 6], ["EF"])):
        scheduler = made()
        taken = scheduler.add(job(1, prefix=prefix, text=TextStream(LETTERS, stops)))
        assert taken == [Ended(1, "stop")]
        assert scheduler.idle


actions = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 200), st.integers(1, 6)),
        st.tuples(st.just("cancel"), st.integers(0, 10), st.just(0)),
        st.tuples(st.just("step"), st.integers(1, 3), st.just(0)),
    ),
    max_size=30,
)


@given(actions, st.integers(1, 4), st.integers(8, 150))
def test_every_job_ends_once_and_within_its_bounds(
    script: list[tuple[str, int, int]], slots: int, context: int
) -> None:
    scheduler, events, most = made(slots=slots, context=context), list[Event](), {}
    refused: set[Code] = set()
    for number, (action, first, second) in enumerate(script):
        match action:
            case "add":
                try:
                    events += scheduler.add(job(number, first, second))
                    most[number] = min(second, context - first)
                except LocalError as error:
                    refused.add(error.code)
            case "cancel":
                events += scheduler.cancel(first)
            case _:
                for _ in range(first):
                    events += scheduler.step()
    events += run(scheduler)
    ends = [event.task for event in events if isinstance(event, Ended)]
    assert sorted(ends) == sorted(most)
    assert refused <= {Code.BUSY, Code.CONTEXT_EXCEEDED}
    for number, count in most.items():
        mine = [event for event in events if event.task == number]
        tokens = sum(len(event.ids) for event in mine if isinstance(event, Progress))
        assert isinstance(mine[-1], Ended)
        assert tokens == count if mine[-1].reason == "length" else tokens < count
