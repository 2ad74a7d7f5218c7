"""A forger with a real key: what it signs is well formed, and wrong. It speaks the real wire."""

import secrets
from collections.abc import Sequence
from pathlib import Path

import trio

from node.config import find_paths
from node.keystore import load_key
from node.network.base import Network
from node.network.libp2p import open_network
from node.network.rpc import ask
from protocol.envelope import Signed, seal
from protocol.identity import Identity, Seed
from protocol.ids import NetworkId, NodeId
from protocol.ledger.certificate import Certified
from protocol.ledger.entry import Claim, Entry, Pay, Source, change, entry_opened
from protocol.ledger.genesis import network_file_parsed, network_id
from protocol.ledger.sync import (
    LEDGER_PROTOCOL,
    Answer,
    Ask,
    AskRange,
    Entries,
    Refusal,
    Submit,
    answer_decoded,
    message_encoded,
)
from protocol.limits import INSTANCE_BYTES, RANGE_ENTRIES_MAX


class Forger:
    """Has the key of `home` and a chain that it wants to bend; asks one witness for its vote."""

    def __init__(self, home: Path, network_file: Path, witness: str) -> None:
        self._identity = Identity(load_key(find_paths(home).key_file, lambda: b""))
        genesis = network_file_parsed(network_file.read_text()).genesis
        self._network_id: NetworkId = network_id(genesis)
        self._witness = witness

    def run(self) -> dict[str, Refusal]:
        """What was tried, and the refusal it met."""
        return trio.run(self._run)

    async def _run(self) -> dict[str, Refusal]:
        # The stream's own key is a stranger's: who hands an entry in does not matter.
        async with open_network(Seed(secrets.token_bytes(32)), []) as network:
            peer = await network.connect(self._witness)
            found = await self._say(
                network, peer, AskRange(self._identity.node, 1, RANGE_ENTRIES_MAX)
            )
            assert isinstance(found, Entries)
            refusals: dict[str, Refusal] = {}
            for what, entry, proofs in self._forged(found.entries, peer):
                submit = Submit(entry, tuple(proofs), (), secrets.token_bytes(INSTANCE_BYTES))
                answer = await self._say(network, peer, submit)
                assert isinstance(answer, Refusal), f"{what} was voted for"
                refusals[what] = answer
            return refusals

    async def _say(self, network: Network, peer: NodeId, message: Ask) -> Answer:
        return answer_decoded(await ask(network, peer, LEDGER_PROTOCOL, message_encoded(message)))

    def _forged(
        self, chain: Sequence[Certified], friend: NodeId
    ) -> list[tuple[str, Signed, Sequence[Certified]]]:
        """(what it is, the entry, the proofs beside it)."""
        entries = [entry_opened(one.entry, self._network_id) for one in chain]
        first, last = entries[0], entries[-1]
        paid, proof, amount = next(
            (opened.id, certified, body.amount)
            for opened, certified in zip(entries, chain, strict=True)
            if isinstance(body := opened.value.body, Pay)
        )
        balance = last.value.balance
        pay = Pay(friend, 5, bytes(32))
        claim = Claim((Source("pay", paid, amount),))
        again = Entry(
            network=self._network_id,
            account=self._identity.node,
            seq=1,
            prev=first.value.prev,
            body=Pay(friend, -change(first.value), bytes(32)),
            fee=0,
            balance=first.value.balance,
        )

        def following(body: Pay | Claim, after: int) -> Signed:
            entry = Entry(
                network=self._network_id,
                account=self._identity.node,
                seq=last.value.seq + 1,
                prev=last.id,
                body=body,
                fee=0,
                balance=after,
            )
            return seal(self._identity, self._network_id, entry)

        return [
            ("a wrong balance", following(pay, balance), []),
            ("more than there is", following(Pay(friend, balance + 1, bytes(32)), 0), []),
            ("a claim of another's pay", following(claim, balance + amount), [proof]),
            ("a second entry for one place", seal(self._identity, self._network_id, again), []),
        ]
