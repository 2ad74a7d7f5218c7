"""Keep our own advert fresh: signed at the start, on change and before it is over."""

from collections.abc import Callable
from typing import Protocol

import trio

from node.discovery.admission import Member
from node.discovery.clock import Clock
from node.discovery.directory import Aged
from node.discovery.own import OwnState, Stamp, own_advert
from node.network.base import Network, NetworkError
from node.telemetry.logs import Log
from protocol import codec
from protocol.capacity import capacity_topic
from protocol.envelope import Signed, seal
from protocol.limits import ADVERT_LIFE_MS, ADVERT_SPACING_MS

LIFE_MS_MIN = 10_000
"""Others take two adverts of a node in ten seconds; with a shorter life ours could run out."""

_SETTLE_MS = 1_000  # A new connection hears gossip after 0.25-0.56 s (facts, libp2p section 4).

_log = Log("discovery")

_URGENT_SPACING_MS = 2_000  # Others take three adverts of a node at once, then one in 5 s.


class Sequences(Protocol):
    """Where the numbers of our adverts are kept over a restart."""

    async def next_sequence(self, now_ms: int) -> int:
        """Larger than every one before, and at least `now_ms`; on disk when it returns."""


class Advertiser:
    """Our advert, and the task that spreads it."""

    def __init__(
        self,
        network: Network,
        member: Member,
        sequences: Sequences,
        state: Callable[[], OwnState],
        clock: Clock,
        *,
        life_ms: int = ADVERT_LIFE_MS,
        spacing_ms: int = ADVERT_SPACING_MS,
    ) -> None:
        assert LIFE_MS_MIN <= life_ms <= ADVERT_LIFE_MS, life_ms
        self._network, self._member, self._sequences = network, member, sequences
        self._state, self._clock, self._life_ms = state, clock, life_ms
        self._refresh_ms = life_ms // 2
        self._spacing_ms = min(spacing_ms, self._refresh_ms)
        self._signed: Signed | None = None
        self._signed_at_ms = 0
        self._sequence = 0
        self._sequence_min = 0
        self._left_out = 0
        # When others last heard us: an advert that was told to nobody is as good as none.
        self._heard_at_ms: int | None = None
        self._is_company_new = False
        self._news = trio.Event()
        self._urgent = trio.Event()

    @property
    def sequence(self) -> int:
        """The number of the last advert."""
        return self._sequence

    def changed(self, *, urgent: bool = False) -> None:
        """What the advert says is no longer so. Many calls make one advert in each spacing; an
        owner's own word is `urgent` and goes out within two seconds."""
        self._news.set()
        if urgent:
            self._urgent.set()

    def connected(self) -> None:
        """A connection came up. It matters when it is the only one: nobody beyond it has heard
        us, and its peer, which asks for our page, does not pass that on."""
        if len(self._network.peers) <= 1:
            self._is_company_new = True
            self._news.set()

    def outrun(self, sequence: int) -> None:
        """Others hold an advert of ours with this number, so one above it is due: our clock or
        our disk went back, or somebody else has our key."""
        if sequence > max(self._sequence, self._sequence_min):
            _log.warning("advert.outrun", sequence=sequence, own=self._sequence)
            self._sequence_min = sequence
            self._news.set()

    def current(self) -> list[Aged]:
        """Our advert with its age, or nothing where it is over or not yet made."""
        age_ms = self._clock.steady_ms() - self._signed_at_ms
        if self._signed is None or age_ms >= self._life_ms:
            return []
        return [(age_ms, self._signed)]

    async def renew(self) -> Signed:
        """Make the advert anew from how things are now."""
        now_ms = self._clock.wall_ms()
        least = max(now_ms, self._sequence_min + 1)
        self._sequence = await self._sequences.next_sequence(least)
        stamp = Stamp(self._sequence, now_ms, self._life_ms)
        advert, left_out = own_advert(self._state(), self._network.addresses, stamp)
        if left_out and left_out != self._left_out:
            _log.warning("advert.shortened", left_out=left_out)
        self._left_out = left_out
        self._signed = seal(self._member.identity, self._member.network, advert)
        self._signed_at_ms = self._clock.steady_ms()
        return self._signed

    async def run(self) -> None:
        """Spread the advert until cancelled."""
        while True:
            await self._publish(await self.renew())
            await self._wait()

    async def _publish(self, signed: Signed) -> None:
        if not self._network.peers:
            return
        try:
            await self._network.publish(capacity_topic(self._member.network), codec.encode(signed))
        except NetworkError:
            _log.debug("advert.unsent", peers=len(self._network.peers))
            return
        self._heard_at_ms = self._clock.steady_ms()

    async def _wait(self) -> None:
        """Until there is something to say that may be said now, or it is time to say it again."""
        with trio.move_on_after(self._refresh_ms / 1000):
            await self._news.wait()
            while not self._network.peers:
                self._news = trio.Event()
                await self._news.wait()
            settle_ms = _SETTLE_MS if self._is_company_new else 0
            with trio.move_on_after(self._wait_ms(settle_ms, self._spacing_ms) / 1000):
                await self._urgent.wait()
                await trio.sleep(self._wait_ms(settle_ms, _URGENT_SPACING_MS) / 1000)
            self._is_company_new = False
        # What happens from here on is news for the next advert: this one is made right now.
        self._news, self._urgent = trio.Event(), trio.Event()

    def _wait_ms(self, settle_ms: int, spacing_ms: int) -> int:
        if self._heard_at_ms is None:
            return settle_ms
        return max(settle_ms, spacing_ms - (self._clock.steady_ms() - self._heard_at_ms))
