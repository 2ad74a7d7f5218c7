"""An account on paper: a real key in a test's hand, with no journal that would stop it, and the
real wire to the witnesses."""

import os
import secrets
from collections.abc import Iterable, Sequence

from node.network.libp2p import open_network
from node.network.rpc import ask
from protocol.envelope import Signed
from protocol.identity import Identity, Seed
from protocol.ids import NodeId, node_parsed, node_text
from protocol.ledger.account import Account, opening
from protocol.ledger.certificate import Certified, certificate_made, seal_of
from protocol.ledger.charter import charter
from protocol.ledger.entry import Body, Claim, Pay, Source, entry_opened
from protocol.ledger.genesis import network_file_parsed
from protocol.ledger.sync import (
    LEDGER_PROTOCOL,
    Accepted,
    Announce,
    Answer,
    Ask,
    AskRange,
    Entries,
    Submit,
    Voted,
    answer_decoded,
    message_encoded,
)
from protocol.limits import INSTANCE_BYTES, RANGE_ENTRIES_MAX
from tests.network.mortals import Mortals, node_id, send
from tests.network.testnet import Node
from tests.protocol.ledger.chains import entry_after, signed_entry


def submission(entry: Signed, *proofs: Certified) -> Submit:
    return Submit(entry, proofs, (), secrets.token_bytes(INSTANCE_BYTES))


class Paper:
    """Begins with nothing, as any account that the genesis does not name."""

    def __init__(self, mortals: Mortals) -> None:
        self._mortals = mortals
        self.seed = Seed(os.urandom(32))
        self.identity = Identity(self.seed)
        file = mortals.folder / "network.ayni"
        self.charter = charter(network_file_parsed(file.read_text()).genesis)
        self.account = opening(self.charter, self.identity.node)

    @property
    def id(self) -> str:
        return node_text(self.identity.node)

    async def ask(self, node: Node, *messages: Ask) -> list[Answer]:
        """Over a connection of a stranger's: who hands an entry in does not matter."""
        address = node.get("status")["addresses"][0]
        answers = []
        async with open_network(Seed(os.urandom(32)), []) as network:
            peer = await network.connect(address)
            for message in messages:
                data = await ask(network, peer, LEDGER_PROTOCOL, message_encoded(message))
                answers.append(answer_decoded(data))
        return answers

    async def submit(self, node: Node, entry: Signed, *proofs: Certified) -> Answer:
        [answer] = await self.ask(node, submission(entry, *proofs))
        return answer

    async def sent(self, payer: Node, *amounts: int) -> list[Certified]:
        """Certified pays of so many microcredits to this account."""
        for amount in amounts:
            send(payer, self.id, amount)
        pays = await self.pays(payer, self.identity.node)
        return pays[-len(amounts) :]

    async def pays(self, payer: Node, to: NodeId) -> list[Certified]:
        """The last certified pays of one account to another."""
        account, entries = node_parsed(node_id(payer)), payer.get("wallet")["seq"]
        first_seq = max(1, entries - RANGE_ENTRIES_MAX + 1)
        [page] = await self.ask(payer, AskRange(account, first_seq, RANGE_ENTRIES_MAX))
        assert isinstance(page, Entries)
        bodies = [entry_opened(one.entry, self.charter.network).value.body for one in page.entries]
        return [
            certified
            for certified, body in zip(page.entries, bodies, strict=True)
            if isinstance(body, Pay) and body.to == to
        ]

    def claim(self, pays: Sequence[Certified], **wrong: object) -> Signed:
        """The next entry: it takes these pays."""
        sources = [
            Source("pay", opened.id, body.amount)
            for opened in (entry_opened(pay.entry, self.charter.network) for pay in pays)
            if isinstance(body := opened.value.body, Pay)
        ]
        return self.next(Claim(tuple(sources)), **wrong)

    def next(self, body: Body, **wrong: object) -> Signed:
        """The next entry, right but for what is said to be wrong."""
        return signed_entry(
            self.identity, entry_after(self.account, body, self.charter, **wrong), self.charter
        )

    async def certify(
        self, entry: Signed, witnesses: Iterable[Node], proofs: Sequence[Certified] = ()
    ) -> Certified:
        """Have an entry sealed by these witnesses and taken by them; the account goes on from
        there."""
        witnesses = list(witnesses)
        answers = [await self.submit(witness, entry, *proofs) for witness in witnesses]
        seals = [
            seal_of(answer.vote, entry.id, self.charter)
            for answer in answers
            if isinstance(answer, Voted)
        ]
        certificate = certificate_made(entry.id, seals, self.charter)
        assert certificate is not None, answers
        certified = Certified(entry, certificate)
        for witness in witnesses:
            assert await self.ask(witness, Announce(certified)) == [Accepted()]
        opened = entry_opened(entry, self.charter.network)
        self.account = Account(
            self.identity.node, opened.value.seq, opened.id, opened.value.balance
        )
        return certified
