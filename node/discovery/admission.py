"""Which adverts come in: by gossip or in a page, each is strictly decoded, checked and rated."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio

from node.discovery.clock import Clock
from node.discovery.directory import Directory
from node.discovery.rates import Rates
from node.network.quota import Quotas, is_blamed
from protocol import codec
from protocol.capacity import AdvertsPage, advert_opened, dated_near, supersedes
from protocol.envelope import Signed
from protocol.errors import Code, RemoteError
from protocol.identity import Identity
from protocol.ids import NetworkId, NodeId
from protocol.limits import CONNECTIONS_MAX, DIRECTORY_PEERS_MAX, GOSSIP_BYTES_MAX

# A node that keeps to ADVERT_SPACING_MS sends one in ten seconds; twice that, and a few at once
# after a restart, is still taken.
_FROM_ORIGIN, _FROM_ORIGIN_SECONDS = 3, 15
# What one neighbour passes on. A network of 4,000 nodes makes 70 adverts a second; what comes on
# top of this is dropped unread, with no blame, since the neighbour may itself be flooded.
_FROM_FORWARDER, _FROM_FORWARDER_SECONDS = 1000, 10
_CLOCKS_KEPT = 32  # Origins whose clocks are compared with ours.


@dataclass(frozen=True, slots=True)
class Member:
    """Who we are, in which network."""

    identity: Identity
    network: NetworkId

    @property
    def node(self) -> NodeId:
        return self.identity.node


class Admission:
    """Puts what holds into the directory, and counts what does not.

    `cut` is called for a peer whose failed checks are over its quota; `dated` with what a node's
    own signature says of its clock, in milliseconds since 1970. Neither may wait.
    """

    def __init__(
        self,
        member: Member,
        directory: Directory,
        quotas: Quotas,
        clock: Clock,
        cut: Callable[[NodeId], None],
        *,
        dated: Callable[[NodeId, int], None] = lambda _node, _ms: None,
    ) -> None:
        self._dated = dated
        self._member, self._directory, self._clock = member, directory, clock
        self._quotas, self._cut = quotas, cut
        self._origins = Rates(_FROM_ORIGIN, _FROM_ORIGIN_SECONDS, DIRECTORY_PEERS_MAX)
        self._forwarders = Rates(_FROM_FORWARDER, _FROM_FORWARDER_SECONDS, 2 * CONNECTIONS_MAX)
        self._refused: Counter[Code] = Counter()
        self._clocks: OrderedDict[NodeId, bool] = OrderedDict()
        self.own_sequence_heard = 0
        """The highest sequence of an advert of ours that others hold."""

    @property
    def refused(self) -> Mapping[Code, int]:
        """How many adverts were refused since the start, by code."""
        return self._refused

    @property
    def clock_suspect(self) -> bool:
        """Did most of the nodes heard last date their adverts more than three minutes from our
        clock? Then it is ours that is wrong."""
        return sum(self._clocks.values()) * 2 > len(self._clocks)

    def judge(self, forwarder: NodeId, data: bytes) -> bool:
        """Take one advert from gossip; whether to pass it on. A second copy gets the answer of
        the first and changes nothing."""
        if not self._forwarders.take(forwarder, self._clock.steady_ms()):
            self._refused[Code.QUOTA] += 1
            return False
        try:
            signed = codec.decode(data, Signed, GOSSIP_BYTES_MAX)
            if self._directory.repeated(signed, age_ms=0):
                return True
            return self._take(signed, age_ms=0, is_gossip=True)
        except RemoteError as error:
            self.blame(forwarder, error)
            return False

    async def take_page(self, peer: NodeId, page: AdvertsPage) -> int:
        """Take the adverts that a peer knows; how many were news. It lets other tasks run."""
        news = 0
        for age_ms, signed in page.adverts:
            await trio.lowlevel.checkpoint()  # A signature takes 0.1 ms, and there may be 256.
            if self._directory.repeated(signed, age_ms):
                continue
            try:
                is_first_hand = peer == signed.signer
                news += self._take(signed, age_ms, is_gossip=False, is_first_hand=is_first_hand)
            except RemoteError as error:
                self.blame(peer, error)
                if self._quotas.refused(peer, self._clock.steady_ms() / 1000):
                    break
        return news

    def blame(self, peer: NodeId, error: RemoteError) -> None:
        """Count what a peer sent that did not hold, and cut the peer when that is too often."""
        self._refused[error.code] += 1
        if is_blamed(error) and self._quotas.failed(peer, self._clock.steady_ms() / 1000):
            self._cut(peer)

    def _take(
        self, signed: Signed, age_ms: int, *, is_gossip: bool, is_first_hand: bool = False
    ) -> bool:
        """Whether it was news. Nobody signs the age of an advert, so that of a clock is taken from
        its own node only. Raises RemoteError for what does not hold."""
        opened = advert_opened(signed, self._member.network)
        if is_gossip or is_first_hand:
            self._dated(opened.signer, opened.value.issued_at + age_ms)
        try:
            dated_near(opened.value, self._clock.wall_ms())
        except RemoteError:
            self._compare_clocks(opened.signer, differ=True)
            raise
        self._compare_clocks(opened.signer, differ=False)
        if opened.signer == self._member.node:
            self.own_sequence_heard = max(self.own_sequence_heard, opened.value.sequence)
            return False
        sequence = self._directory.sequence_of(opened.signer)
        if not supersedes(opened.value, sequence):
            return False  # An old one, from somebody who has not heard the new one: no blame.
        if is_gossip and not self._origins.take(opened.signer, self._clock.steady_ms()):
            self._refused[Code.QUOTA] += 1
            return False
        return self._directory.heard(opened, signed, age_ms)

    def _compare_clocks(self, origin: NodeId, *, differ: bool) -> None:
        self._clocks[origin] = differ
        self._clocks.move_to_end(origin)
        if len(self._clocks) > _CLOCKS_KEPT:
            self._clocks.popitem(last=False)
