"""The direct exchange: when a connection comes up, each side asks the other for all it knows."""

from node.discovery.admission import Admission
from node.discovery.advertise import Advertiser
from node.discovery.clock import Clock
from node.discovery.directory import Directory
from node.discovery.rates import Rates
from node.network.base import Handler, Network
from node.network.rpc import answering, ask
from protocol import codec
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId
from protocol.limits import CONNECTIONS_MAX
from protocol.messages import ADVERTS_ASKED, ADVERTS_PROTOCOL, adverts_page

# A page may be a megabyte, and a peer needs one for each connection.
_PAGES, _PAGES_SECONDS = 6, 60


class Exchange:
    """Both ends of `/ayni/adverts/1`."""

    def __init__(
        self, directory: Directory, admission: Admission, advertiser: Advertiser, clock: Clock
    ) -> None:
        self._directory, self._admission = directory, admission
        self._advertiser, self._clock = advertiser, clock
        self._pages = Rates(_PAGES, _PAGES_SECONDS, 4 * CONNECTIONS_MAX)

    @property
    def handler(self) -> Handler:
        """What serves the peers that ask us."""
        return answering(self._answer, size_max=len(ADVERTS_ASKED))

    async def ask(self, network: Network, peer: NodeId) -> int:
        """Take what a connected peer knows; how much of it was news. What does not hold counts
        against the peer. Raises NetworkError when it does not answer, RemoteError when what it
        answers is no page."""
        data = await ask(network, peer, ADVERTS_PROTOCOL, ADVERTS_ASKED)
        return await self._admission.take_page(peer, adverts_page(data))

    async def _answer(self, peer: NodeId, request: bytes) -> bytes:
        if request != ADVERTS_ASKED:
            raise RemoteError(Code.BAD_MESSAGE, "A request for adverts has only one form.")
        if not self._pages.take(peer, self._clock.steady_ms()):
            raise RemoteError(Code.QUOTA, f"{_PAGES} pages a minute are enough for any peer.")
        return codec.encode(self._directory.page(first=self._advertiser.current()))
