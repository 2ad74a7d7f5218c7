"""Settlement under an adversary: never two outcomes, one honest turn settles, mistakes are found.

The adversary owns payer, payee, f witnesses and the network: it asks whom it likes, in any order,
repeats, loses, and shows whichever reports it has. Clocks are switched off (any turn at any time)
or on and wrong; the rule may rest on none.
"""

from itertools import count
from random import Random

import pytest

from tests.protocol.ledger.settling import VALUES, Rules, World, honest_turn
from tests.protocol.ledger.settling_mistakes import MISTAKES, NEED_THREE_TURNS
from tests.protocol.ledger.settling_walk import Walk, walked

TURNS = 5


def walk_of(rules: Rules, seed: int, turns: int = TURNS, **how) -> Walk:
    return Walk(World.new(rules), Random(seed), turns, **how)


def healed(world: World) -> None:
    """From wherever a history ends, one turn of an honest owner settles, and to the same value."""
    before = world.settled()
    turn = max(TURNS, *(voice.key.promised for voice in world.voices)) + 1
    value = honest_turn(world, turn)
    assert value is not None
    assert before <= {value}
    assert world.settled() == {value}


def many(witnesses: int, walks: range, *, gates: bool) -> None:
    rules, rivals, late = Rules(witnesses), 0, 0
    for seed in walks:
        walk = walk_of(rules, seed, values=VALUES, gates=gates)
        world = walked(walk)
        prepared = {lock for voice in world.voices for lock in voice.prepared}
        rivals += len({value for _, value in prepared}) > 1
        late += any(turn >= 4 for voice in world.voices for turn, _ in voice.committed)
        healed(world)
    # The walks go somewhere: rival values are prepared, and late turns reach commits.
    assert rivals > len(walks) // 10
    assert late


@pytest.mark.parametrize("gates", [False, True], ids=["clocks off", "clocks on"])
@pytest.mark.parametrize(("witnesses", "walks"), [(4, 200), (7, 40), (10, 20)])
def test_no_walk_ends_with_two_outcomes_and_one_honest_turn_settles(witnesses, walks, gates):
    many(witnesses, range(walks), gates=gates)


@pytest.mark.slow
@pytest.mark.parametrize("gates", [False, True], ids=["clocks off", "clocks on"])
@pytest.mark.parametrize(("witnesses", "walks"), [(4, 8_000), (7, 1_500), (10, 600)])
def test_nor_does_any_of_many(witnesses, walks, gates):
    many(witnesses, range(1_000, 1_000 + walks), gates=gates)


@pytest.mark.parametrize(
    "mistake",
    [
        # The rarest takes some thousand walks.
        pytest.param(name, marks=pytest.mark.slow) if name.startswith("lowest") else name
        for name in MISTAKES
    ],
)
def test_each_mistake_is_found(mistake):
    """The rule passes all the walks that each mistake is found in, and more."""
    rules, turns = MISTAKES[mistake](4), 3 if mistake in NEED_THREE_TURNS else 2
    for seed in count():
        assert seed < 20_000, "the walks miss it"
        try:
            walked(walk_of(rules, seed, turns))
        except AssertionError:
            return
