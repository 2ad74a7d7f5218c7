"""What one peer may take of us (T2): streams, frames and failed checks, in token buckets.

Pure: the time is an argument, in seconds of any clock that only grows. The networks ask about
streams themselves; whoever reads frames asks about frames and tells of failed checks, and when
the answer is "cut it" calls `network.disconnect(peer)`. A cut peer stays refused for a while.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum, auto

from protocol.errors import Code, RemoteError
from protocol.ids import NodeId
from protocol.limits import (
    FAILED_CHECKS_MAX,
    FRAMES_PER_SECOND_MAX,
    GOSSIP_PER_SECOND_MAX,
    QUOTA_PEERS_MAX,
    REFUSED_SECONDS,
    STREAM_OPENINGS_PER_MINUTE_MAX,
    STREAMS_PER_CONNECTION_MAX,
)

# Codes of what only a broken or hostile peer does; a refusal, a time-out or a loss is no blame.
_BLAMED = frozenset(
    {
        Code.BAD_FRAME,
        Code.BAD_ENCODING,
        Code.BAD_MESSAGE,
        Code.BAD_SIGNATURE,
        Code.UNEXPECTED,
        Code.TOO_LARGE,
        Code.WRONG_SIGNER,
        Code.REPLAYED,
    }
)


class Verdict(Enum):
    """What to do with a stream that a peer has opened."""

    ALLOW = auto()
    RESET = auto()  # This stream only: too many are open at once.
    CUT = auto()  # The connection: it has opened too many in too short a time.


@dataclass(frozen=True, slots=True)
class Limits:
    """The quota of each peer."""

    openings_per_minute: int = STREAM_OPENINGS_PER_MINUTE_MAX
    streams_at_once: int = STREAMS_PER_CONNECTION_MAX
    frames_per_second: int = FRAMES_PER_SECOND_MAX
    gossip_per_second: int = GOSSIP_PER_SECOND_MAX
    failed_per_minute: int = FAILED_CHECKS_MAX
    refused_seconds: float = REFUSED_SECONDS
    peers_max: int = QUOTA_PEERS_MAX


class Bucket:
    """Holds `size` tokens, is full at first, and fills at `size` tokens every `seconds`."""

    __slots__ = ("_at", "_level", "_rate", "_size")

    def __init__(self, size: int, seconds: float, now: float) -> None:
        self._size, self._rate = size, size / seconds
        self._level, self._at = float(size), now

    def take(self, now: float) -> bool:
        """Take one token. False when there is none, and then nothing is taken."""
        self._level = min(self._size, self._level + max(0.0, now - self._at) * self._rate)
        self._at = max(now, self._at)
        if self._level < 1:
            return False
        self._level -= 1
        return True


@dataclass(slots=True)
class _Account:
    openings: Bucket
    frames: Bucket
    gossip: Bucket
    failures: Bucket
    open: int = 0
    refused_until: float = field(default=float("-inf"))


class Quotas:
    """One account for each peer, and at most `peers_max` accounts."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._accounts: OrderedDict[NodeId, _Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def refused(self, peer: NodeId, now: float) -> bool:
        """Was it cut a short while ago? Then it gets no connection."""
        account = self._accounts.get(peer)
        return account is not None and now < account.refused_until

    def opened(self, peer: NodeId, now: float) -> Verdict:
        """The peer opens a stream. After ALLOW, and only then, `closed` must follow."""
        account = self._account(peer, now)
        if now < account.refused_until:
            return Verdict.CUT
        if not account.openings.take(now):
            self._refuse(account, now)
            return Verdict.CUT
        if account.open >= self._limits.streams_at_once:
            return Verdict.RESET
        account.open += 1
        return Verdict.ALLOW

    def closed(self, peer: NodeId) -> None:
        """A stream that was allowed is over."""
        account = self._accounts[peer]  # It has an open stream, so it was not forgotten.
        assert account.open > 0
        account.open -= 1

    def framed(self, peer: NodeId, now: float) -> bool:
        """A frame came from the peer. True: cut it."""
        account = self._account(peer, now)
        if account.frames.take(now):
            return False
        self._refuse(account, now)
        return True

    def gossiped(self, peer: NodeId, now: float) -> bool:
        """The peer has handed on a message of gossip. True: cut it."""
        account = self._account(peer, now)
        if account.gossip.take(now):
            return False
        self._refuse(account, now)
        return True

    def failed(self, peer: NodeId, now: float) -> bool:
        """Something of the peer's did not hold: a signature, an encoding, a rule. True: cut it."""
        account = self._account(peer, now)
        if account.failures.take(now):
            return False
        self._refuse(account, now)
        return True

    def _refuse(self, account: _Account, now: float) -> None:
        account.refused_until = now + self._limits.refused_seconds

    def _account(self, peer: NodeId, now: float) -> _Account:
        account = self._accounts.get(peer)
        if account is None:
            self._forget(now)
            limits = self._limits
            account = self._accounts[peer] = _Account(
                Bucket(limits.openings_per_minute, 60, now),
                Bucket(limits.frames_per_second, 1, now),
                Bucket(limits.gossip_per_second, 1, now),
                Bucket(limits.failed_per_minute, 60, now),
            )
        self._accounts.move_to_end(peer)
        return account

    def _forget(self, now: float) -> None:
        """Make room: the peer longest unheard of goes, one in disgrace only when all are."""
        while len(self._accounts) >= self._limits.peers_max:
            idle = [peer for peer, account in self._accounts.items() if not account.open]
            if not idle:
                return  # All have open streams, and the bound on connections bounds those.
            calm = (peer for peer in idle if now >= self._accounts[peer].refused_until)
            del self._accounts[next(calm, idle[0])]


def is_blamed(error: RemoteError) -> bool:
    """Does the error show a broken or hostile peer, so that it counts as a failed check?"""
    return error.code in _BLAMED
