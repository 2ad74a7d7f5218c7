"""The time by which money is decided: this machine's clock, held against those of the witnesses.

A wall clock can jump by a day: after a dead battery, a wrong time server, a slip of the hand. Who
believes it then takes work on channels that are over. Witnesses date their adverts, and the steady
clock of this machine does not jump; so a jump is seen at once, and which of two times is right is
known as soon as the witnesses' next adverts have come. Most of them being honest, their median is.
"""

from collections.abc import Collection
from dataclasses import dataclass
from statistics import median_low
from typing import Final, Literal

from node.discovery.clock import Clock
from node.telemetry.logs import Log
from protocol.ids import NodeId

AGREES_MS: Final = 60_000  # Facts of the ledger, 1.4: beyond this a witness takes no later turns.
SAMPLE_LIFE_MS: Final = 300_000  # Adverts come each minute; five of them may be lost.

_log = Log("clock")

Word = Literal["alone", "agrees", "jumped", "wrong"]
"""`alone`: no witness has been heard. `jumped`: none since the clock jumped. `wrong`: it is more
than a minute from the witnesses' median."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """By how much a witness's clock is ahead of our steady one, in milliseconds; when, by that
    steady one, it was heard; and after how many jumps of our own."""

    ahead_ms: int
    heard_ms: int
    jumps: int


class SoundClock:
    """Tells the time from three sources: the wall clock, the steady clock, the witnesses."""

    def __init__(self, clock: Clock, witnesses: Collection[NodeId], own: NodeId) -> None:
        self._clock = clock
        self._witnesses = frozenset(witnesses) - {own}
        self._samples: dict[NodeId, _Sample] = {}
        self._anchor_ms = clock.wall_ms() - clock.steady_ms()
        self._anchor_max_ms = self._anchor_ms
        self._jumps = 0
        self._is_jump_open = False
        """Whether no witness has confirmed our clock since it jumped."""

    def heard(self, node: NodeId, their_ms: int) -> None:
        """A node's own signature says that its clock shows, or has shown, this time. One that is
        repeated later says too little and never too much, so the highest of each counts."""
        if node not in self._witnesses:
            return  # Keys are free, so a crowd of them says nothing.
        steady_ms = self._clock.steady_ms()
        self._look(steady_ms)
        known, ahead_ms = self._samples.get(node), their_ms - steady_ms
        if known is None or ahead_ms >= known.ahead_ms or self._is_old(known, steady_ms):
            self._samples[node] = _Sample(ahead_ms, steady_ms, self._jumps)

    def now_ms(self) -> int:
        """Milliseconds since 1970: the wall clock's while it agrees with the witnesses, theirs
        where it does not. Of two that nobody has confirmed yet the later one, by which a payee
        takes less work and settles earlier, and loses nothing."""
        word, wall_ms, others_ms = self._compared()
        if word == "wrong":
            assert others_ms is not None
            return others_ms
        if word == "agrees":
            return wall_ms
        return max(wall_ms, self._clock.steady_ms() + self._anchor_max_ms)

    @property
    def is_trusted(self) -> bool:
        """Whether nothing speaks against this machine's clock."""
        return self._compared()[0] in ("alone", "agrees")

    @property
    def state(self) -> tuple[Word, int]:
        """What is known, and by how many milliseconds the wall clock is ahead of the time."""
        word, wall_ms, others_ms = self._compared()
        return word, 0 if others_ms is None else wall_ms - others_ms

    def _compared(self) -> tuple[Word, int, int | None]:
        steady_ms = self._clock.steady_ms()
        wall_ms = self._look(steady_ms)
        heard = [
            sample.ahead_ms
            for sample in self._samples.values()
            if not self._is_old(sample, steady_ms)
        ]
        if not heard:
            jumped = self._is_jump_open and bool(self._samples)
            return "jumped" if jumped else "alone", wall_ms, None
        others_ms = steady_ms + median_low(heard)
        if abs(wall_ms - others_ms) > AGREES_MS:
            return "wrong", wall_ms, others_ms
        self._is_jump_open = False
        self._anchor_max_ms = self._anchor_ms
        return "agrees", wall_ms, others_ms

    def _is_old(self, sample: _Sample, steady_ms: int) -> bool:
        # The steady clock stands still while a machine sleeps, so that a jump may be the waking.
        return steady_ms - sample.heard_ms > SAMPLE_LIFE_MS or sample.jumps != self._jumps

    def _look(self, steady_ms: int) -> int:
        """The wall clock, after a look whether it has jumped."""
        wall_ms = self._clock.wall_ms()
        anchor_ms = wall_ms - steady_ms
        if abs(by_ms := anchor_ms - self._anchor_ms) > AGREES_MS:
            _log.warning("clock.jumped", by_ms=by_ms)
            self._jumps += 1
            self._is_jump_open = True
        # What creeps is a clock being set right little by little, and is followed.
        self._anchor_ms = anchor_ms
        self._anchor_max_ms = max(self._anchor_max_ms, anchor_ms)
        return wall_ms
