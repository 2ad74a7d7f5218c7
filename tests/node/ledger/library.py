"""Peers that hold chains and answer about them, truthfully or not; they have no ledger."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from node.network.base import Stream
from node.network.framing import FrameStream
from node.network.memory import MemoryNetwork
from protocol.envelope import Opened, Signed, seal
from protocol.identity import Identity, Seed
from protocol.ids import NodeId
from protocol.ledger.account import follow, opening
from protocol.ledger.certificate import Certified, certificate_made, seal_of, vote_signed
from protocol.ledger.charter import Charter
from protocol.ledger.checkpoint import AskHoldings, Holdings
from protocol.ledger.entry import Body, Entry, Pay, change, entry_read
from protocol.ledger.sync import (
    LEDGER_PROTOCOL,
    Accounts,
    Answer,
    Ask,
    AskAccounts,
    AskHeads,
    AskProofs,
    AskRange,
    Entries,
    Proofs,
    Refusal,
    ask_decoded,
    entries_page,
    message_encoded,
)
from tests.node.ledger.village import NOTHING, WITNESSES, Village

Lie = Callable[[Ask, Answer], Answer]
"""From a question and its true answer to what is answered."""


def sealed_by(charter: Charter, signed: Signed, witnesses: Sequence[Identity]) -> Certified:
    """A certificate that these witnesses make, whatever they have voted before."""
    seals = [
        seal_of(vote_signed(one, signed.id, charter.network), signed.id, charter)
        for one in witnesses
    ]
    certificate = certificate_made(signed.id, seals, charter)
    assert certificate is not None
    return Certified(signed, certificate)


def chain_of(charter: Charter, owner: Identity, bodies: Sequence[Body]) -> list[Certified]:
    """A certified chain of one account, from its first entry on."""
    account, chain, past = opening(charter, owner.node), list[Certified](), Holdings()
    for body in bodies:
        entry = Entry(charter.network, owner.node, account.seq + 1, account.head, body, 0, 0)
        entry = Entry(*entry_fields(entry)[:-1], account.balance + change(entry))
        signed = seal(owner, charter.network, entry)
        account = follow(account, past, Opened(entry, signed.id, owner.node), charter)
        chain.append(sealed_by(charter, signed, WITNESSES[: charter.quorum]))
    return chain


def entry_fields(entry: Entry) -> list[object]:
    return [getattr(entry, name) for name in entry.__struct_fields__]


def pays(to: Identity, count: int) -> list[Body]:
    return [Pay(to.node, 1, NOTHING) for _ in range(count)]


class Library:
    """One such peer. `asked` counts its questions by type."""

    def __init__(self, village: Village, number: int) -> None:
        self.village = village
        self.identity = Identity(Seed(bytes([50 + number]) * 32))
        self.chains: dict[NodeId, list[Certified]] = {}
        self.lie: Lie = lambda ask, truth: truth
        self.asked: Counter[type] = Counter()
        self.pages: list[tuple[NodeId, int]] = []  # Account and first seq of each range asked for.
        self.network: MemoryNetwork

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Library"]:
        async with self.village.world.open_network(self.identity.node) as self.network:
            self.network.serve(LEDGER_PROTOCOL, self._handle)
            yield self

    async def _handle(self, stream: Stream) -> None:
        frames = FrameStream(stream)
        while (request := await frames.receive()) is not None:
            ask = ask_decoded(request)
            self.asked[type(ask)] += 1
            await trio.sleep(0.05)  # A distance: so that pulls from several overlap.
            await frames.send(message_encoded(self.lie(ask, self._truth(ask))))

    def _truth(self, ask: Ask) -> Answer:
        match ask:
            case AskProofs():
                return Proofs(())
            case AskAccounts(after):
                return Accounts(tuple(one for one in sorted(self.chains) if one > after))
            case AskHeads(accounts):
                held = [self.chains[one] for one in accounts if self.chains.get(one)]
                return Entries(tuple(chain[-1] for chain in held))
            case AskRange(account, first_seq, limit):
                self.pages.append((account, first_seq))
                chain = self.chains.get(account, [])
                return entries_page(chain[first_seq - 1 : first_seq - 1 + limit])
            case AskHoldings():
                return Refusal("NOT_FOUND", "There is none here.")
            case _:
                return Entries(())


def lengths(chains: Mapping[NodeId, Sequence[Certified]]) -> int:
    return sum(len(chain) for chain in chains.values())


def seq_of(certified: Certified, charter: Charter) -> int:
    return entry_read(certified.entry, charter.network).value.seq
