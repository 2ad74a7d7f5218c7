"""Every history of one channel with four witnesses, two turns and two values, one by one."""

from collections.abc import Iterator

import pytest

from tests.protocol.ledger.settling import VALUES, Rules, Voice, World, honest_turn
from tests.protocol.ledger.settling_mistakes import MISTAKES, NEED_THREE_TURNS

TURNS, TWO = 2, VALUES[:2]
STATES_MAX = 200_000


def followers(world: World) -> Iterator[World]:
    """The worlds one step away."""
    rules, before = world.rules, world.voices
    for number in range(len(before)):
        for turn in range(2, TURNS + 1):
            yield stepped(world, lambda to, at=number, on=turn: to.ask(at, on))
        yield stepped(world, lambda to, at=number: to.crash(at))
        for turn in range(1, TURNS + 1):
            for value in TWO:
                yield stepped(world, lambda to, at=number, on=turn, of=value: to.lock(at, on, of))
                if (turn, value) in before[number].prepared and rules.patient:
                    continue  # Said before: it would be said again.
                for shown in world.shows(turn, TWO):
                    after = World(rules, list(before))
                    if after.propose(number, turn, value, shown):
                        yield after
                        break  # Which reports allowed it changes nothing.


def stepped(world: World, step) -> World:
    after = World(world.rules, list(world.voices))
    step(after)
    return after


def name_of(world: World) -> tuple[Voice, ...]:
    """Honest witnesses are alike, so who is who does not tell worlds apart."""
    return tuple(sorted(world.voices, key=repr))


def explored(rules: Rules) -> Iterator[World]:
    """Every world that an adversary can bring about, each once."""
    first = World.new(rules)
    seen, ahead = {name_of(first)}, [first]
    while ahead:
        world = ahead.pop()
        yield world
        for after in followers(world):
            name = name_of(after)
            if name not in seen:
                seen.add(name)
                ahead.append(World(rules, list(name)))
    assert len(seen) < STATES_MAX


@pytest.mark.slow
def test_no_history_has_two_outcomes_and_from_each_one_honest_turn_settles():
    worlds = 0
    for world in explored(Rules(4)):
        worlds += 1
        before = world.settled()
        assert len(before) <= 1
        value = honest_turn(World(world.rules, list(world.voices)), TURNS + 1)
        assert value is not None
        assert before <= {value}
    assert worlds > 1_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "mistake",
    [name for name in MISTAKES if name not in NEED_THREE_TURNS],  # The walks find those.
)
def test_each_mistake_of_two_turns_is_found(mistake):
    assert any(len(world.settled()) > 1 for world in explored(MISTAKES[mistake](4)))
