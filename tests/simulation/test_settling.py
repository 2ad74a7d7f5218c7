"""Settlement with the clock gates off, through eight turns; each mistake in its rule is found."""

import pytest

from node.simulator.settling import Rule, Unsafe, Walk, walk_many
from protocol.identity import digest
from tests.simulation.settling_mistakes import MISTAKES

SEED = digest(b"settling")
WALKS_TO_FIND = 600


@pytest.mark.parametrize(("witnesses", "walks"), [(4, 50), (7, 20), (10, 10)])
def test_a_channel_is_settled_once_and_one_honest_turn_settles_it(witnesses, walks):
    counts = walk_many(SEED, witnesses, walks)
    assert counts.settled == counts.walks == walks
    assert counts.rivals_prepared
    assert counts.rivals_committed


@pytest.mark.slow
@pytest.mark.parametrize(("witnesses", "walks"), [(4, 6000), (7, 2000), (10, 800)])
def test_many_walks(witnesses, walks):
    assert walk_many(digest(SEED, b"many"), witnesses, walks).settled == walks


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_found(mistake):
    with pytest.raises(Unsafe):
        walk_many(digest(b"m"), 4, WALKS_TO_FIND, MISTAKES[mistake])


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_found_with_seven_witnesses(mistake):
    with pytest.raises(Unsafe):
        walk_many(SEED, 7, 2 * WALKS_TO_FIND, MISTAKES[mistake])


def test_a_mistake_that_needs_three_turns_is_not_found_in_two():
    """What the walks go through many turns for."""
    rule = MISTAKES["a lock believed without its certificate"]
    assert walk_many(digest(b"m"), 4, 100, rule, turns=2).settled == 100


def test_a_walk_is_the_same_each_time():
    first, second = Walk(SEED, 4, Rule()), Walk(SEED, 4, Rule())
    for walk in (first, second):
        walk.run()
    assert first.settled == second.settled
    assert list(first.prepared) == list(second.prepared)
