"""Histories of one channel, drawn at random by an adversary that mostly does what could harm."""

from dataclasses import dataclass
from random import Random

from protocol.ledger.settlement import Clock
from tests.protocol.ledger.settling import VALUES, Shown, World


@dataclass
class Walk:
    """A history drawn at random, turn by turn: each message reaches some, in some order, and at
    times one of an old turn comes late or a witness crashes."""

    world: World
    random: Random
    turns: int
    values: tuple[int, ...] = VALUES[:2]
    gates: bool = False  # Whether clocks, each wrong by its own amount, gate the turns.

    def run(self) -> None:
        for turn in range(1, self.turns + 1):
            self._turn(turn)

    def _turn(self, turn: int) -> None:
        draw, everyone = self.random, range(len(self.world.voices))
        # How many a message of each sort reaches: all, some or hardly any, anew in each turn.
        asked, proposed, locked = (draw.choice((0.2, 0.6, 1.0)) for _ in range(3))
        steps = [(0, number, "ask") for number in everyone if draw.random() < asked]
        for at in range(draw.randint(1, 2)):
            steps += [(1 + at, one, "propose") for one in everyone if draw.random() < proposed]
            steps += [(2 + at, one, "lock") for one in everyone if draw.random() < locked]
        for what, often in (("crash", (0, 0.1, 0.9)), ("late", (0, 0.2, 0.9))):
            chance = draw.choice(often)
            steps += [(draw.randint(0, 4), one, what) for one in everyone if draw.random() < chance]
        draw.shuffle(steps)
        disorder = draw.choice((0, 0, 2))
        steps.sort(key=lambda step: step[0] + disorder * draw.random())
        value = draw.choice(self.values)
        for _, number, what in steps:
            if draw.random() < 0.2:
                value = draw.choice(self.values)
            self._step(what, number, turn, value)

    def _step(self, what: str, number: int, turn: int, value: int) -> None:
        world, draw = self.world, self.random
        if what == "late":
            what = draw.choice(("ask", "propose", "lock", "lock", "lock"))
            at = draw.choice((max(1, turn - 1), draw.randint(1, turn)))
        else:
            at = turn
        clock = self._clock(turn) if self.gates else None
        if what == "ask" and at > 1:
            world.ask(number, at, clock)
        elif what == "propose":
            for _ in range(4):  # It knows what to show for a value that it wants.
                shown = self._shown(at)
                if shown is None or world.propose(number, at, value, shown, clock):
                    break
        elif what == "lock":
            for lock in world.certificates(self.turns + 1):
                if lock[0] == at:
                    world.lock(number, *lock)
        elif what == "crash":
            world.crash(number)

    def _clock(self, turn: int) -> Clock:
        rules = self.world.rules
        skew = self.random.choice((-1, 0, 0, 0, 1)) * rules.charter.window_ms // 2
        right = rules.clock(turn).now_ms + rules.charter.window_ms // 2
        return Clock(max(0, right + skew), self.random.random() < 0.9)

    def _shown(self, turn: int) -> tuple[Shown, ...] | None:
        if turn == 1:
            return ()
        world, draw = self.world, self.random
        given = [each for each in world.reports(turn) if each]
        size = world.rules.charter.quorum - world.rules.reports_short
        if size > len(given) + len(world.liars):
            return None
        liars = draw.randint(max(0, size - len(given)), len(world.liars))
        honest = size - liars
        shown = [draw.choice(each) for each in draw.sample(given, honest)]
        lies = world.lies(turn, self.values)
        for liar in world.liars[:liars]:
            lock, backed = lies[0] if draw.random() < 0.5 else draw.choice(lies)
            shown.append(Shown(liar, lock, backed))
        return tuple(shown)


def walked(walk: Walk) -> World:
    """A whole history. Raises AssertionError where two values are final."""
    walk.run()
    values = walk.world.settled()
    assert len(values) <= 1, f"settled at {values}"
    return walk.world
