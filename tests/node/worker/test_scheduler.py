"""The scheduler step by step, against a model of hashes."""

from collections.abc import Sequence

import pytest

from node.worker.engine.model import BLOCK_TOKENS, STEP_ROWS_MAX
from node.worker.engine.rows import RowStore
from node.worker.engine.scheduler import Event, Pace, Scheduler, Settings, pace_for
from node.worker.engine.speculation import Speculation
from node.worker.pipe import Ended, Failed, Progress
from node.worker.text_stream import TextStream
from protocol.errors import Code, LocalError
from protocol.job.logprob import Logprob
from protocol.job.rows import leaf
from protocol.job.sampling import Sampling
from tests.node.worker.hash_model import BROKEN, END, HashModel
from tests.node.worker.scheduled import LETTERS, SMALL, alone, job, made, run, said


def ended(events: Sequence[Event]) -> list[int]:
    return [event.task for event in events if isinstance(event, Ended | Failed)]


def test_one_token_a_step_goes_out_at_once_with_the_leaf_of_its_row() -> None:
    rows, model = RowStore(), HashModel(4)
    scheduler = Scheduler(model, Settings(1, 100, frozenset({END})), rows)
    scheduler.add(job(1, most=2, first_t=5))
    (first,) = scheduler.step()
    last, end = scheduler.step()
    assert isinstance(first, Progress)
    assert isinstance(last, Progress)
    assert end == Ended(1, "length")
    assert [len(first.ids), len(last.ids)] == [1, 1]
    kept = rows.open(1, [5, 6, 7])
    assert kept[2] == b""
    assert [*first.leaves, *last.leaves] == [leaf(5, kept[0]), leaf(6, kept[1])]
    assert scheduler.idle


def test_a_failing_sequence_fails_alone() -> None:
    scheduler = made()
    scheduler.add(job(1, [BROKEN, 2]))
    scheduler.add(job(2, most=3))
    heard = said(run(scheduler))
    assert heard[1].ends == [Failed(1, Code.WORKER_FAILED, "broken")]
    assert heard[2] == alone(job(2, most=3), 100)
    assert scheduler.blocks_held == 0


def test_stop_strings_and_what_they_hold_back() -> None:
    whole = alone(job(1, most=20), 100)
    stop = whole.text[4:6]
    found = alone(job(1, most=20, text=TextStream(LETTERS, [stop])), 100)
    assert found.text == whole.text[: whole.text.index(stop)]
    assert found.ends == [Ended(1, "stop")]
    held = whole.text[-1] + "?"
    assert alone(job(1, most=20, text=TextStream(LETTERS, [held])), 100).text == whole.text


def test_the_context_is_a_limit() -> None:
    scheduler = made(context=6)
    scheduler.add(job(1, prompt=3, most=50))
    heard = said(run(scheduler))[1]
    assert len(heard.ids) == 3
    assert heard.ends == [Ended(1, "length")]
    with pytest.raises(LocalError, match="CONTEXT_EXCEEDED"):
        scheduler.add(job(2, prompt=6))
    with pytest.raises(LocalError, match="BAD_REQUEST"):
        scheduler.add(job(2, prompt=0))


def test_a_takeover_goes_on_where_the_other_stopped() -> None:
    whole = alone(job(1, most=8), 100)
    rest = alone(job(1, most=5, prefix=whole.ids[:3], first_t=3), 100)
    assert rest.ids == whole.ids[3:]
    assert rest.leaves == whole.leaves[3:]
    for prefix, stops in (([5, END], []), ([END, 5], []), ([5, 6], ["FG"])):
        scheduler = made()
        taken = scheduler.add(job(1, prefix=prefix, text=TextStream(LETTERS, stops)))
        assert taken == [Ended(1, "stop")]
        assert scheduler.idle


def test_slots_are_for_others_and_the_owner_finds_his_own() -> None:
    scheduler = made(slots=1)
    scheduler.add(job(1, most=50))
    scheduler.step()
    with pytest.raises(LocalError, match="BUSY"):
        scheduler.add(job(2))
    scheduler.add(job(3, most=4, requester=b""))
    with pytest.raises(LocalError, match="BUSY"):
        scheduler.add(job(4, requester=b""))
    heard = [event for _ in range(4) for event in scheduler.step()]
    assert {event.task for event in heard} == {3}  # The other waits inside, and keeps its words.
    assert ended(heard) == [3]
    rest = said(run(scheduler))[1]
    whole = alone(job(1, most=50), 100)
    assert rest.ids == whole.ids[1:]


def test_a_cancelled_job_says_nothing_more_and_holds_nothing() -> None:
    scheduler = made()
    scheduler.add(job(1, prompt=90, most=9))
    assert scheduler.step() == []  # It is being read.
    assert scheduler.cancel(1) == [Ended(1, "cancelled")]
    assert scheduler.cancel(1) == []
    scheduler.add(job(2, prompt=90))
    assert scheduler.cancel(2) == [Ended(2, "cancelled")]  # It had not begun.
    assert scheduler.idle
    assert scheduler.blocks_held == 0


def test_a_long_prompt_delays_others_by_a_budget_and_no_more() -> None:
    model = HashModel(40)
    scheduler = made(model, context=600)
    scheduler.add(job(1, most=100, requester=b"a"))
    scheduler.step()
    scheduler.add(job(2, prompt=300, most=1, requester=b"b"))
    steps = 0
    while 2 not in ended(scheduler.step()):
        steps += 1
        rows = sorted(len(piece.ids) for piece in model.steps[-1])
        assert rows[0] == 1  # The first job's next token, in every step.
        assert rows[1] <= SMALL.beside
    assert steps >= 300 // SMALL.beside
    quick = HashModel(40)
    scheduler = made(quick, context=600)
    scheduler.add(job(1, prompt=100, most=1))
    run(scheduler)
    assert [len(step[0].ids) for step in quick.steps] == [40, 40, 20]


def test_what_was_read_once_is_not_read_again() -> None:
    prompt = list(range(2, 32)) * 5
    model = HashModel(30)
    scheduler = made(model, slots=3, context=200, public=[prompt[:70]])
    first = said([*scheduler.add(job(1, prompt, 3, requester=b"a")), *run(scheduler)])[1]

    def read_by(number: int, **changes: object) -> int:
        before = len(model.steps)
        scheduler.add(job(number, prompt, 3, **changes))
        heard = said(run(scheduler))[number]
        assert (heard.ids, heard.leaves) == (first.ids, first.leaves)
        return sum(len(piece.ids) for step in model.steps[before:] for piece in step)

    whole = len(prompt) + 2
    assert read_by(2, requester=b"a") == whole - 4 * BLOCK_TOKENS
    # Of a stranger's prompt only what is public is known, and nothing behind it.
    assert read_by(3, requester=b"b") == whole - 2 * BLOCK_TOKENS
    scheduler.forget_prefixes()
    assert read_by(4, requester=b"a") == whole


def test_two_that_come_together_read_the_same_words_once() -> None:
    prompt = list(range(2, 32)) * 5
    model = HashModel(30)
    scheduler = made(model, context=200)
    scheduler.add(job(1, prompt, 1))
    scheduler.add(job(2, prompt, 1))
    run(scheduler)
    read = sum(len(piece.ids) for step in model.steps for piece in step)
    # The second may have begun while the first read its last piece.
    assert read <= len(prompt) + SMALL.alone + len(prompt) - 4 * BLOCK_TOKENS


def long(number: int, seed: int) -> list[int]:
    seeded = job(number, prompt=[number] * 20, most=90, seed=bytes([seed]) * 32)
    return alone(seeded, 128).ids


def test_when_the_cache_is_full_the_newest_gives_way_and_says_the_same_later() -> None:
    model = HashModel(4)  # For two sequences of a hundred tokens eight would be needed.
    scheduler = made(model, context=128)
    seed = next(s for s in range(99) if all(len(long(n, s)) == 90 for n in (2, 3)))
    jobs = [
        job(n, prompt=[n] * 20, most=90, requester=bytes([n]), seed=bytes([seed]) * 32)
        for n in (2, 3)
    ]
    for each in jobs:
        scheduler.add(each)
    heard = said(run(scheduler))
    for each in jobs:
        assert heard[each.number].ids == long(each.number, seed)
    again = [piece for step in model.steps for piece in step if len(piece.ids) > 1]
    assert len(again) > 2  # Something was read a second time.


def test_requesters_share_what_is_read_whoever_has_more_jobs() -> None:
    model = HashModel(200)
    scheduler = made(model, slots=8, context=800)
    for number in range(2, 8):
        scheduler.add(job(number, [number] * 700, 1, requester=b"many"))
    for _ in range(4):
        scheduler.step()
    scheduler.add(job(9, [9] * 100, 1, requester=b"one"))
    steps = 0
    while 9 not in ended(scheduler.step()):
        steps += 1
    # Every second step is for it, whose own reading takes three.
    assert steps <= 6


def test_guesses_come_true_and_are_said_together() -> None:
    words = [2, 3, 4, 5, 6, 7, 8] * 6
    slow, quick = HashModel(8), HashModel(8)
    expected = said([*(one := made(slow, 1, 200)).add(job(1, words, 60)), *run(one)])[1]
    guessing = made(quick, 1, 200, speculation=Speculation())
    heard = said([*guessing.add(job(1, words, 60)), *run(guessing)])[1]
    assert heard == expected
    assert len(quick.steps) < len(slow.steps)
    noisy = HashModel(8, is_exact=False)
    careful = made(noisy, 1, 200, speculation=Speculation())
    careful.add(job(1, words, 60))
    run(careful)
    assert len(noisy.steps) == len(slow.steps)


def test_logprobs_are_spelled() -> None:
    scheduler = made()
    scheduler.add(job(1, most=1, sampling=Sampling(logprobs=2)))
    (progress, _) = scheduler.step()
    assert isinstance(progress, Progress)
    (token,) = progress.ids
    assert progress.alternatives == [[Logprob(token, LETTERS[token], -1)] * 2]


def test_the_pace_follows_what_was_measured() -> None:
    assert pace_for(1_000_000) == Pace(alone=250, beside=60)
    assert pace_for(1) == Pace(alone=16, beside=16)
    assert pace_for(10**12) == Pace(alone=STEP_ROWS_MAX, beside=STEP_ROWS_MAX)
