"""What happens in a simulated world and when, drawn from a seed before the world begins.

Each event holds all chance that it needs and has a number. So a schedule from which some events
are left out is a schedule too, and the others stay what they were: that is how it is shrunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from node.simulator.determinism import chance
from node.simulator.plan import Cast, Options

CALM_END: Final = 0.9  # No fault begins in the last tenth: what is open then can be finished.
FAULT_SECONDS_MAX: Final = 1800.0
JUMP_SECONDS_MAX: Final = 86_400
WITNESS_JUMP_SECONDS_MAX: Final = 300
"""A witness whose clock runs ahead promises far turns of a channel, and is of no use to it until
then (facts of the ledger, 1.4); all of them at once would be more faults than are promised for."""

# How often each deed and each fault is drawn, against the others.
_DEEDS: Final = {"job": 10, "pay": 4, "settle": 1, "want": 1}
_HOSTILE_DEEDS: Final = {
    "spend-twice": 3,
    "cheat": 3,
    "garbage": 1,
    "replay": 2,
    "old-voucher": 3,
    "job": 2,
}
_FAULTS: Final = {
    "crash": ("crashes", 8),
    "split": ("partitions", 3),
    "storm": ("loss", 2),
    "jump": ("clocks", 2),
    "backup": ("backups", 1),
    "full": ("disks", 2),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happens: `who` does it, or it befalls them."""

    number: int
    at_seconds: float
    name: str
    who: int
    other: int
    size: int
    """What it means depends on the name: microcredits, seconds of a jump, tokens, a seed."""
    seconds: float
    """How long it lasts."""


def schedule_of(options: Options, cast: Cast) -> Sequence[Event]:
    """All events in their order, those that are left out excepted."""
    events = [*_deeds(options, cast), *_faults(options, cast)]
    events.sort(key=lambda event: (event.at_seconds, event.name, event.who))
    numbered = [
        Event(number, *fields)
        for number, fields in enumerate(
            (one.at_seconds, one.name, one.who, one.other, one.size, one.seconds) for one in events
        )
    ]
    return [one for one in numbered if options.only is None or one.number in options.only]


def _deeds(options: Options, cast: Cast) -> list[Event]:
    pick = chance(options.seed_bytes, "deeds")
    people = [number for number in range(len(cast.identities)) if number not in cast.liars]
    count = round(options.hours * options.deeds_per_hour * len(people))
    events = []
    for _ in range(count):
        who = pick.choice(people)
        names = _HOSTILE_DEEDS if who in cast.hostile else _DEEDS
        events.append(
            Event(
                number=0,
                at_seconds=pick.uniform(0.0, options.seconds),
                name=_drawn(pick, names),
                who=who,
                other=pick.choice([number for number in people if number != who]),
                size=pick.randrange(1, 1 << 20),
                seconds=0.0,
            )
        )
    return events


def _faults(options: Options, cast: Cast) -> list[Event]:
    pick = chance(options.seed_bytes, "faults")
    weights = {name: weight for name, (fault, weight) in _FAULTS.items() if fault in options.faults}
    if not weights:
        return []
    witnesses = set(range(len(cast.genesis.witnesses)))
    events = []
    for _ in range(round(options.hours * options.faults_per_hour)):
        name = _drawn(pick, weights)
        honest = cast.honest
        if name == "backup":
            # A witness that has forgotten its votes is one of the f that may be dishonest.
            honest = [number for number in honest if number not in witnesses]
        if not honest:
            continue
        who = pick.choice(honest)
        jump_max = WITNESS_JUMP_SECONDS_MAX if who in witnesses else JUMP_SECONDS_MAX
        events.append(
            Event(
                number=0,
                at_seconds=pick.uniform(0.0, options.seconds * CALM_END),
                name=name,
                who=who,
                other=0,
                size=pick.randint(-jump_max, jump_max)
                if name == "jump"
                else pick.randrange(1, 1 << 30),
                seconds=FAULT_SECONDS_MAX * pick.random() ** 3,
            )
        )
    return events


def _drawn(pick: Random, weights: dict[str, int]) -> str:
    return pick.choices(list(weights), list(weights.values()))[0]
