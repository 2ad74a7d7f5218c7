"""Proofs by gossip: bounded, judged before they are passed on, each once."""

from collections import Counter, OrderedDict
from typing import Final, TypeVar

import trio

from node.ledger.keeper import Keeper, News
from node.network.base import Network, NetworkError
from node.network.quota import Quotas
from node.storage.ledger import PROOFS_PER_ACCOUNT_MAX, proof_account
from node.telemetry.logs import Log
from protocol.errors import RemoteError
from protocol.identity import digest
from protocol.ids import NetworkId, NodeId, short
from protocol.ledger.decoder import Decoder, packed
from protocol.ledger.proof import Breach, Contradiction, breach_checked, contradiction_checked
from protocol.limits import GOSSIP_BYTES_MAX

SEEN_MAX: Final = 4096  # Digests and accounts of what was judged: half a MiB.
WAITING_MAX: Final = 64  # Proofs on their way to the disk, in or out.

_DECODER: Final = Decoder(Contradiction | Breach, GOSSIP_BYTES_MAX)  # type: ignore[arg-type]

T = TypeVar("T")

_log = Log("ledger")


def proofs_topic(network: NetworkId) -> str:
    """The gossip topic of proofs."""
    return f"/ayni/{network.hex()[:16]}/proofs/1"


class Gossip:
    """Tells the network of what this node has found, and hears what others have."""

    def __init__(self, network: Network, quotas: Quotas, keeper: Keeper) -> None:
        self._network, self._quotas, self._keeper = network, quotas, keeper
        self._topic = proofs_topic(keeper.charter.network)
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._accounts: Counter[NodeId] = Counter()
        self._to_tell, self._told = trio.open_memory_channel[Contradiction | Breach](WAITING_MAX)
        self._to_keep, self._heard = trio.open_memory_channel[Contradiction | Breach](WAITING_MAX)
        self._to_cut, self._cut = trio.open_memory_channel[NodeId](WAITING_MAX)

    async def subscribe(self) -> None:
        """Hear the topic from now on."""
        await self._network.subscribe(self._topic, self.judge, self.hear)

    def found(self, news: News) -> None:
        """Tell the others of new proofs; best effort, since they can also ask for them."""
        for proof in news.proofs:
            if not self._is_seen(digest(packed(proof))):
                _put(self._to_tell, proof)

    def judge(self, forwarder: NodeId, data: bytes) -> bool:
        """As `Judge`: is this a proof that is new, of an account of which few have come?"""
        if self._quotas.gossiped(forwarder, trio.current_time()):
            _put(self._to_cut, forwarder)
            return False
        if digest(data) in self._seen:
            return False
        try:
            proof = _DECODER.decode(data)
            if isinstance(proof, Breach):
                breach_checked(proof, self._keeper.charter)
            elif self._accounts[proof_account(proof)] >= PROOFS_PER_ACCOUNT_MAX:
                return False
            else:
                contradiction_checked(proof, self._keeper.charter)
        except RemoteError as error:
            _log.info("ledger.bad_gossip", peer=short(forwarder), code=error.code)
            if self._quotas.failed(forwarder, trio.current_time()):
                _put(self._to_cut, forwarder)
            return False
        self._is_seen(digest(data))
        self._accounts[proof_account(proof)] += 1
        if len(self._accounts) > SEEN_MAX:
            self._accounts.clear()
        return True

    def hear(self, data: bytes) -> None:
        """As `Topic`: the judge has found it good."""
        _put(self._to_keep, _DECODER.decode(data))

    async def run(self) -> None:
        """Keep what is heard and tell what is found, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_heard)
            nursery.start_soon(self._tell_found)
            async for peer in self._cut:
                await self._network.disconnect(peer)

    async def _keep_heard(self) -> None:
        async for proof in self._heard:
            await self._keeper.keep_proof(proof)  # The judge has found it good.

    async def _tell_found(self) -> None:
        async for proof in self._told:
            data = packed(proof)
            if len(data) > GOSSIP_BYTES_MAX:
                continue  # Whoever asks for proofs gets it.
            try:
                await self._network.publish(self._topic, data)
            except NetworkError:
                _log.debug("ledger.proof_not_told")

    def _is_seen(self, mark: bytes) -> bool:
        """Whether it was seen before; from now on it was."""
        if mark in self._seen:
            return True
        self._seen[mark] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        return False


def _put(channel: trio.MemorySendChannel[T], value: T) -> None:
    try:
        channel.send_nowait(value)
    except trio.WouldBlock:
        _log.debug("ledger.gossip_full")
