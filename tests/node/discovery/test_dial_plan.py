"""Whom to dial: enough neighbours, our own choice of them, and patience with the dead."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from node.discovery.dial_plan import WAIT_MS_MAX, DialPlan
from protocol.ids import NodeId

NODES = [NodeId(bytes([n]) * 32) for n in range(40)]
NOBODY: frozenset[NodeId] = frozenset()


def test_in_a_small_network_everybody_is_dialled_and_the_preferred_first() -> None:
    plan = DialPlan(Random(1), target=8)
    chosen = plan.choose(NODES[3:5], NODES[:3], NOBODY, 0)
    assert chosen[:2] == NODES[3:5]
    assert set(chosen) == set(NODES[:5])
    assert plan.choose(NODES[3:5], NODES[:3], NOBODY, 0) == []


def test_in_a_large_one_a_few_are_chosen_by_chance() -> None:
    picks = [DialPlan(Random(seed), target=8).choose([], NODES, NOBODY, 0) for seed in range(50)]
    assert {len(pick) for pick in picks} == {8}
    assert {node for pick in picks for node in pick} == set(NODES)


def test_who_is_connected_becomes_a_neighbour_without_a_dial() -> None:
    plan = DialPlan(Random(1), target=8)
    assert plan.choose([], NODES[:5], frozenset(NODES[:5]), 0) == []
    assert plan.neighbours == set(NODES[:5])


def test_many_who_connect_to_us_do_not_become_all_of_our_world() -> None:
    plan, crowd = DialPlan(Random(1), target=4), frozenset(NODES[:30])
    for seed in range(20):
        plan = DialPlan(Random(seed), target=4)
        assert plan.choose(NODES[38:], NODES[30:38], crowd, 0)
        assert not plan.neighbours


def test_a_neighbour_that_leaves_is_replaced() -> None:
    plan = DialPlan(Random(1), target=2)
    first = plan.choose([], NODES[:2], NOBODY, 0)
    for node in first:
        plan.succeeded(node)
    assert plan.choose([], NODES[:4], frozenset(first), 0) == []
    replacement = plan.choose([], NODES[2:4], frozenset(first[:1]), 0)
    assert len(replacement) == 1
    assert replacement[0] in NODES[2:4]


def test_a_dial_given_up_may_be_tried_again_at_once() -> None:
    plan = DialPlan(Random(1))
    assert plan.choose([], NODES[:1], NOBODY, 0) == NODES[:1]
    plan.given_up(NODES[0])
    assert plan.choose([], NODES[:1], NOBODY, 0) == NODES[:1]


def test_each_failure_doubles_the_wait_up_to_five_minutes() -> None:
    plan, now = DialPlan(Random(1)), 0
    for count in range(15):
        assert plan.choose([], NODES[:1], NOBODY, now) == NODES[:1]
        plan.failed(NODES[0], now)
        at = plan.wake_at(NODES[:1])
        assert at is not None
        middle = min(1_000 << count, WAIT_MS_MAX)
        assert middle // 2 <= at - now <= middle * 3 // 2
        assert plan.choose([], NODES[:1], NOBODY, at - 1) == []
        now = at
    plan.choose([], NODES[:1], NOBODY, now)
    plan.succeeded(NODES[0])
    assert plan.choose([], NODES[:1], NOBODY, now) == NODES[:1], "it is lost, and forgiven"
    plan.failed(NODES[0], now)
    assert (plan.wake_at(NODES[:1]) or 0) - now <= 1_500


def test_it_wakes_for_those_who_are_still_known_and_not_when_it_has_enough() -> None:
    plan = DialPlan(Random(1), target=1)
    plan.choose([], NODES[:1], NOBODY, 0)
    plan.failed(NODES[0], 0)
    assert plan.wake_at([]) is None
    assert plan.wake_at(NODES[:2]) is not None
    plan.choose([], NODES[1:2], frozenset(NODES[1:2]), 0)
    assert plan.wake_at(NODES[:2]) is None


events = st.lists(
    st.tuples(st.sampled_from(["choose", "good", "bad", "gone"]), st.integers(0, 9)), max_size=60
)


@given(events, st.integers(1, 6), st.integers(0, 1 << 30))
def test_never_more_than_the_target_and_never_twice_at_once(
    script: list[tuple[str, int]], target: int, seed: int
) -> None:
    plan = DialPlan(Random(seed), target=target, failures_max=4)
    connected: set[NodeId] = set()
    dialling: set[NodeId] = set()
    for now, (word, number) in enumerate(script):
        node = NODES[number]
        if word == "choose":
            chosen = plan.choose(NODES[:2], NODES[:10], frozenset(connected), now * 500)
            assert not set(chosen) & dialling
            assert not set(chosen) & connected
            assert len(set(chosen)) == len(chosen)
            dialling |= set(chosen)
            assert len(dialling | set(plan.neighbours)) <= target
            assert plan.neighbours <= connected
        elif word == "gone":
            connected.discard(node)
        elif node in dialling:
            dialling.discard(node)
            if word == "good":
                connected.add(node)
                plan.succeeded(node)
            else:
                plan.failed(node, now * 500)
