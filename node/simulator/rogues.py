"""Dishonest accounts: each runs a real node with a real key, and does this beside it."""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Final

import msgspec
import trio

from node.channels.base import Payer, Spending
from node.network.base import NetworkError
from node.network.framing import FrameStream
from node.simulator.machine import Machine
from node.simulator.parts import Build, address
from node.simulator.plan import Cast
from node.simulator.schedule import Event
from node.simulator.statements import frames, tag_of
from node.storage.ledger_own import OwnChains
from protocol.codec import decode
from protocol.envelope import Signed, seal
from protocol.errors import LocalError, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.certificate import Certified, certificate_made, seal_of
from protocol.ledger.charter import Charter
from protocol.ledger.entry import PAY, Claim, Entry, Pay, Source
from protocol.ledger.statement import Proposal
from protocol.ledger.sync import (
    LEDGER_PROTOCOL,
    Announce,
    Answer,
    Ask,
    Propose,
    Submit,
    Voted,
    answer_decoded,
    message_encoded,
)
from protocol.ledger.voucher import Voucher
from protocol.limits import ENTRY_BYTES_MAX, FRAME_LENGTH_BYTES, INSTANCE_BYTES
from protocol.messages import JOB_PROTOCOL, job_frame

KEPT: Final = 256  # Frames and vouchers that are remembered, to be shown again.
EXCHANGE_SECONDS_MAX: Final = 10.0
_CHEATS: Final = 5


@dataclass(frozen=True, slots=True)
class _Frame:
    protocol: str
    data: bytes


class Rogues:
    """Carries out the misdeeds of a schedule."""

    def __init__(
        self, machines: Sequence[Machine | None], cast: Cast, charter: Charter, chance: Random
    ) -> None:
        self._machines, self._charter, self._chance = machines, charter, chance
        self._nodes = {cast.identities[number].node for number in cast.hostile}
        self._frames: deque[_Frame] = deque(maxlen=KEPT)
        self._vouchers: dict[MessageId, deque[Signed]] = {}
        self.is_silent = False

    def heard(self, sender: NodeId, receiver: NodeId, protocol: str, data: bytes) -> None:
        """Whatever comes to a rogue, it remembers."""
        if receiver not in self._nodes:
            return
        self._frames.append(_Frame(protocol, data))
        if protocol == JOB_PROTOCOL:
            for frame in frames(data):
                with suppress(RemoteError):
                    self._remember(frame)

    def _remember(self, frame: bytes) -> None:
        signed = job_frame(frame)
        if isinstance(signed, Signed) and tag_of(signed.body) == b"voucher":
            channel = decode(signed.body, Voucher, 512).channel
            self._vouchers.setdefault(channel, deque(maxlen=KEPT)).append(signed)

    async def do(self, event: Event) -> None:
        """One misdeed, as far as the others let it."""
        machine = self._machines[event.who]
        if machine is None or machine.network is None or self.is_silent:
            return
        with suppress(LocalError):
            match event.name:
                case "spend-twice":
                    await self._spend_twice(machine, event)
                case "cheat":
                    await self._cheat(machine, event)
                case "garbage":
                    for _ in range(1 + event.size % 5):
                        junk = self._chance.randbytes(1 + event.size % 2000)
                        length = len(junk).to_bytes(FRAME_LENGTH_BYTES, "big")
                        protocol = self._chance.choice((LEDGER_PROTOCOL, JOB_PROTOCOL))
                        data = self._chance.choice((length + junk, junk))
                        await self._send(machine, self._anybody(), protocol, data)
                case "replay":
                    for _ in range(min(len(self._frames), 5)):
                        frame = self._chance.choice(self._frames)
                        await self._send(machine, self._anybody(), frame.protocol, frame.data)
                case "old-voucher":
                    await self._old_voucher(machine)

    def _anybody(self) -> NodeId:
        return self._chance.choice([one.node for one in self._machines if one is not None])

    async def _spend_twice(self, machine: Machine, event: Event) -> None:
        """Two entries for the next place: some witnesses hear of the one first, some of the
        other, and all of both."""
        rivals = []
        for amount in (1 + event.size % 1000, 2 + event.size % 1000):
            entry = await self._next(machine, amount)
            if entry is not None:
                rivals.append(seal(machine.identity, self._charter.network, entry))
        witnesses = list(self._charter.witnesses)
        self._chance.shuffle(witnesses)
        for signed in rivals:
            await self._certify(machine, signed, (), witnesses[: len(witnesses) // 2])
        for signed in rivals:
            await self._certify(machine, signed, (), witnesses)

    async def _cheat(self, machine: Machine, event: Event) -> None:
        """Entries that break one rule each, with as many votes as they get."""
        for step in range(_CHEATS):
            entry, store = await self._next(machine, 10), machine.store
            if entry is None or store is None:
                return
            claimed = await store.read(lambda chains: _claimed(chains, machine.node))
            invented = Source(PAY, MessageId(self._chance.randbytes(32)), 1000)
            proofs: tuple[Certified, ...] = ()
            match (event.size + step) % _CHEATS:
                case 0:
                    body = Pay(self._anybody(), entry.balance + 1000, bytes(32))
                    entry = msgspec.structs.replace(entry, body=body)
                case 1:
                    entry = msgspec.structs.replace(entry, balance=entry.balance + 10)
                case 2:
                    entry = msgspec.structs.replace(entry, prev=self._chance.randbytes(32))
                case 3:
                    entry = _claiming(entry, invented)
                case _ if claimed is not None:
                    source, shown = claimed
                    entry, proofs = _claiming(entry, source), (shown,)
                case _:
                    continue
            signed = seal(machine.identity, self._charter.network, entry)
            await self._certify(machine, signed, proofs, self._charter.witnesses)

    async def _next(self, machine: Machine, amount: int) -> Entry | None:
        """The next entry of a rogue's chain, a right one; None where it has nothing to spend."""
        store = machine.store
        if store is None:
            return None
        place = await store.read(lambda chains: chains.account(machine.node))
        pay, rules = Pay(self._anybody(), amount, bytes(32)), self._charter
        if pay.to == machine.node or pay.amount > place.balance:
            return None
        left = place.balance - pay.amount
        return Entry(rules.network, place.account, place.seq + 1, place.head, pay, 0, left)

    async def _certify(
        self,
        machine: Machine,
        signed: Signed,
        proofs: tuple[Certified, ...],
        witnesses: Sequence[NodeId],
    ) -> None:
        """Ask for votes, and tell all witnesses if there are enough."""
        rules, seals = self._charter, []
        ask = Submit(signed, proofs, (), self._chance.randbytes(INSTANCE_BYTES))
        for witness in witnesses:
            answer = await self._asked(machine, witness, ask)
            if isinstance(answer, Voted):
                with suppress(RemoteError):
                    seals.append(seal_of(answer.vote, signed.id, rules))
        # Whoever breaks the rules counts by the rules that the others go by.
        certificate = certificate_made(signed.id, seals, rules)
        if certificate is not None:
            for witness in rules.witnesses:
                await self._asked(machine, witness, Announce(Certified(signed, certificate)))

    async def _old_voucher(self, machine: Machine) -> None:
        """As the payee, settle a channel by an old voucher at some witnesses and by the best one
        at others."""
        store = machine.store
        for channel, vouchers in list(self._vouchers.items()):
            if store is None:
                return
            shown = await store.read(lambda chains, number=channel: chains.certified_by_id(number))  # type: ignore[misc]
            if shown is None:
                continue
            for witness in self._charter.witnesses:
                voucher = self._chance.choice(vouchers)
                value = decode(voucher.body, Voucher, 512).cumulative
                proposal = Proposal(channel, 1, value)
                signed = seal(machine.identity, self._charter.network, proposal)
                ask = Propose(signed, shown, (), voucher, ())
                await self._asked(machine, witness, ask)

    async def _asked(self, machine: Machine, node: NodeId, ask: Ask) -> Answer | None:
        """The answer of a node, where one comes."""
        data = message_encoded(ask)
        said = await self._send(
            machine, node, LEDGER_PROTOCOL, len(data).to_bytes(FRAME_LENGTH_BYTES, "big") + data
        )
        with suppress(RemoteError):
            return None if said is None else answer_decoded(said)
        return None

    async def _send(
        self, machine: Machine, node: NodeId, protocol: str, data: bytes
    ) -> bytes | None:
        """Say it on a stream of its own, and wait a moment for a frame that comes back."""
        network = machine.network
        if network is None or node == machine.node:
            return None
        with suppress(NetworkError, RemoteError), trio.move_on_after(EXCHANGE_SECONDS_MAX):
            if node not in network.peers:
                await network.connect(address(node))
            stream = await network.open(node, protocol)
            try:
                await stream.send_all(data)
                return await FrameStream(stream).receive()
            finally:
                await stream.reset()
        return None


def _claiming(entry: Entry, source: Source) -> Entry:
    """The same place, taking this in the place of paying 10."""
    balance = entry.balance + 10 + source.amount
    return msgspec.structs.replace(entry, body=Claim((source,)), balance=balance)


def _claimed(chains: OwnChains, node: NodeId) -> tuple[Source, Certified] | None:
    """A pay that a chain has claimed, with its certificate."""
    for certified in chains.chain(node, 1, KEPT):
        body = decode(certified.entry.body, Entry, ENTRY_BYTES_MAX).body
        for source in body.sources if isinstance(body, Claim) else ():
            shown = chains.certified_by_id(source.id)
            if source.kind == PAY and shown is not None:
                return source, shown
    return None


class Miser(Payer):
    """Signs for the prompt, and for nothing after it."""

    def __init__(self, payer: Payer) -> None:
        self._payer = payer

    @property
    def spendable(self) -> int:
        """As `Payer.spendable`."""
        return self._payer.spendable

    def has_room(self, payee: NodeId, cost_worst: int) -> bool:
        """As `Payer.has_room`."""
        return self._payer.has_room(payee, cost_worst)

    def spend(self, payee: NodeId, cost_worst: int) -> AbstractAsyncContextManager[Spending]:
        """As `Payer.spend`."""
        return self._spend(payee, cost_worst)

    @asynccontextmanager
    async def _spend(self, payee: NodeId, cost_worst: int) -> AsyncIterator[Spending]:
        async with self._payer.spend(payee, cost_worst) as spending:
            yield _MiserSpending(spending)

    def expect(self, payees: list[tuple[NodeId, int]]) -> None:
        """As `Payer.expect`."""
        self._payer.expect(payees)

    async def mistrusted(self, channel: MessageId, sentence: str) -> None:
        """As `Payer.mistrusted`."""
        await self._payer.mistrusted(channel, sentence)


class _MiserSpending(Spending):
    def __init__(self, spending: Spending) -> None:
        self._spending = spending

    @property
    def channel(self) -> MessageId:
        return self._spending.channel

    def prompt_voucher(self, quote: MessageId, amount: int) -> Signed:
        return self._spending.prompt_voucher(quote, amount)

    def voucher(self, order: MessageId, first_t: int, cost: int) -> Signed | None:
        return None

    def return_ahead(self) -> None:
        self._spending.return_ahead()


def miserly(build: Build) -> Build:
    """The same node, but that it does not pay."""
    return replace(build, payer=Miser)
