"""The parts of a running node, as its API sees them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.app.recovery import OldChannels, Recovery
from node.app.shared import Shared
from node.channels.service import Channels
from node.config import Config
from node.discovery.service import Discovery
from node.jobs.requester import Requester
from node.ledger.service import NodeLedger
from node.market.choice import Market
from node.market.desk import Desk
from node.models.cache import ModelCache
from node.models.catalogue import Catalogue
from node.network.base import Network
from node.sharing import Sharing
from node.storage.jobs import JobHistory
from protocol.identity import Identity
from protocol.ledger.charter import Charter
from protocol.ledger.genesis import NetworkFile


@dataclass(frozen=True, slots=True)
class Parts:
    """All of them live while `node.app.run.run_node` does."""

    identity: Identity
    config: Config
    file: NetworkFile
    charter: Charter
    network: Network
    discovery: Discovery
    sharing: Sharing
    shared: Shared
    ledger: NodeLedger
    channels: Channels
    old_channels: OldChannels
    recovery: Recovery
    desk: Desk
    market: Market
    requester: Requester
    history: JobHistory
    catalogue: Catalogue
    cache: ModelCache
    data_folder: Path
    stop: Callable[[], None]
    random_bytes: Callable[[int], bytes]
    wall_ms: Callable[[], int]
