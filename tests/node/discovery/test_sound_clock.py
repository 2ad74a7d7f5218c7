"""The time by which money is decided, when clocks jump, creep, lie and sleep."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.discovery.clock import Clock
from node.discovery.sound_clock import AGREES_MS, SAMPLE_LIFE_MS, SoundClock
from protocol.ids import NodeId

DAY_MS = 86_400_000
MINUTE_MS = 60_000
START_MS = 1_795_467_821_000
OWN, *WITNESSES = [NodeId(bytes([number]) * 32) for number in range(5)]
STRANGER = NodeId(bytes([99]) * 32)


@dataclass
class Machine:
    """True time passes; the wall clock is off by `wrong_ms`, and the steady one sleeps along."""

    wrong_ms: int = 0
    passed_ms: int = 0
    slept_ms: int = 0

    def __post_init__(self) -> None:
        clock = Clock(lambda: self.true_ms + self.wrong_ms, lambda: self.passed_ms)
        self.sound = SoundClock(clock, [OWN, *WITNESSES], OWN)

    @property
    def true_ms(self) -> int:
        return START_MS + self.passed_ms + self.slept_ms

    def hear(self, *errors_ms: int) -> None:
        for witness, error_ms in zip(WITNESSES, errors_ms, strict=False):
            self.sound.heard(witness, self.true_ms + error_ms)

    @property
    def word(self) -> str:
        return self.sound.state[0]


def test_alone_it_is_the_wall_clock() -> None:
    machine = Machine(wrong_ms=DAY_MS)
    assert (machine.sound.now_ms(), machine.word) == (START_MS + DAY_MS, "alone")
    assert machine.sound.is_trusted


@pytest.mark.parametrize("jump_ms", [DAY_MS, -DAY_MS, 2 * MINUTE_MS, -2 * MINUTE_MS])
def test_a_jump_is_seen_at_once_and_the_witnesses_are_believed(jump_ms: int) -> None:
    machine = Machine()
    machine.hear(5, -300, 40, 900)
    assert (machine.word, machine.sound.is_trusted) == ("agrees", True)
    machine.wrong_ms = jump_ms
    # It may be the waking after a long sleep, so nobody heard before it counts.
    assert (machine.word, machine.sound.is_trusted) == ("jumped", False)
    assert machine.sound.now_ms() == machine.true_ms + max(0, jump_ms)
    machine.passed_ms += MINUTE_MS
    machine.hear(0, 0, 0, 0)
    assert (machine.word, machine.sound.is_trusted) == ("wrong", False)
    assert machine.sound.now_ms() == machine.true_ms
    assert machine.sound.state[1] == jump_ms
    # The owner sets it right: that is a jump as well, and soon over.
    machine.wrong_ms = 0
    assert abs(machine.sound.now_ms() - machine.true_ms) <= max(0, jump_ms)
    machine.passed_ms += MINUTE_MS
    machine.hear(0, 0, 0, 0)
    assert (machine.word, machine.sound.now_ms()) == ("agrees", machine.true_ms)


def test_a_machine_that_slept_believes_its_clock_again() -> None:
    machine = Machine()
    machine.hear(0, 0, 0, 0)
    assert machine.word == "agrees"
    machine.slept_ms = 8 * 3_600_000
    assert machine.sound.now_ms() == machine.true_ms
    assert not machine.sound.is_trusted
    machine.passed_ms += 1
    machine.hear(0, 0, 0, 0)
    assert (machine.word, machine.sound.now_ms()) == ("agrees", machine.true_ms)


def test_a_clock_that_was_wrong_from_the_start_is_known_for_it() -> None:
    machine = Machine(wrong_ms=-DAY_MS)
    machine.hear(0, 10, -10, 0)
    assert (machine.word, machine.sound.now_ms()) == ("wrong", machine.true_ms)


def test_what_creeps_is_followed() -> None:
    machine = Machine(wrong_ms=40_000)
    for _ in range(80):
        machine.passed_ms += 30_000
        machine.wrong_ms -= 500
        machine.hear(0, 0, 0, 0)
        assert (machine.word, machine.sound.now_ms()) == (
            "agrees",
            machine.true_ms + machine.wrong_ms,
        )


def test_strangers_and_silence_say_nothing() -> None:
    machine = Machine()
    for number in range(100):
        machine.sound.heard(NodeId(bytes([100 + number]) * 32), machine.true_ms + DAY_MS)
    machine.sound.heard(OWN, machine.true_ms + DAY_MS)
    assert machine.word == "alone"
    machine.hear(0, 0, 0, 0)
    machine.passed_ms += SAMPLE_LIFE_MS + 1
    assert machine.word == "alone"


def test_an_advert_that_is_repeated_later_moves_nothing() -> None:
    machine = Machine()
    machine.hear(0, 0, 0, 0)
    for _ in range(4):
        machine.passed_ms += MINUTE_MS
        old_ms = START_MS
        for witness in WITNESSES:
            machine.sound.heard(witness, old_ms)
    assert (machine.word, machine.sound.state[1]) == ("agrees", 0)


@given(
    st.lists(st.integers(-AGREES_MS // 4, AGREES_MS // 4), min_size=3, max_size=3),
    st.integers(-10 * DAY_MS, 10 * DAY_MS),
    st.integers(-2 * DAY_MS, 2 * DAY_MS),
)
def test_one_liar_of_four_moves_it_no_further_than_the_honest_differ(
    honest_ms: list[int], lie_ms: int, wrong_ms: int
) -> None:
    machine = Machine(wrong_ms=wrong_ms)
    machine.hear(*honest_ms, lie_ms)
    now_ms = machine.sound.now_ms()
    assert abs(now_ms - machine.true_ms) <= max(abs(wrong_ms), AGREES_MS)
    if abs(wrong_ms) > 2 * AGREES_MS:
        assert machine.word == "wrong"
        assert abs(now_ms - machine.true_ms) <= AGREES_MS // 4
