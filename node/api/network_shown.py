"""From a network's file to what the API shows of it; the command line uses it offline too."""

from node.api.views import Network
from protocol.ids import node_text
from protocol.ledger.charter import quorum
from protocol.ledger.genesis import NetworkFile, network_id


def network_shown(file: NetworkFile) -> Network:
    genesis = file.genesis
    return Network(
        name=genesis.name,
        id=network_id(genesis).hex(),
        supply_microcredits=genesis.supply,
        accounts=len(genesis.allocations),
        witnesses=tuple(node_text(witness) for witness in genesis.witnesses),
        quorum=quorum(len(genesis.witnesses))[1] if genesis.witnesses else 0,
        entry_fee_microcredits=genesis.entry_fee,
        bootstrap=file.bootstrap,
    )
