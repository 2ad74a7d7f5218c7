"""Dishonest witnesses: each has a habit, and its key is real.

They hold no ledger. A witness that lies about what it holds does no worse than one that holds
nothing, and what it seals is bound by nothing.
"""

from random import Random
from typing import Final

import trio

from node.network.base import Handler, Stream
from node.network.framing import FrameStream
from node.network.memory import MemoryNetwork, MemoryWorld
from protocol.codec import decode
from protocol.envelope import Signed
from protocol.errors import Code, RemoteError
from protocol.identity import Identity
from protocol.ids import MessageId, NodeId
from protocol.ledger.agreement import commit_of, prepare_of
from protocol.ledger.certificate import EPOCH, statement_signed, vote_signed
from protocol.ledger.charter import Charter
from protocol.ledger.statement import (
    Locked,
    PrepareCertificate,
    Proposal,
    Report,
    ReportShown,
    TurnAsk,
)
from protocol.ledger.sync import (
    LEDGER_PROTOCOL,
    Accepted,
    Accounts,
    Announce,
    Answer,
    Ask,
    AskAccounts,
    AskOwn,
    AskProofs,
    AskReport,
    Committed,
    Entries,
    Lock,
    OwnState,
    Prepared,
    Proofs,
    Propose,
    Refusal,
    Reported,
    Submit,
    TellSettlement,
    Voted,
    ask_decoded,
    message_encoded,
)
from protocol.limits import FRAME_BYTES_MAX

HABITS: Final = ("seals all", "seals nothing", "late", "two-faced")
LATE_SECONDS_MAX: Final = 90.0  # Many askers have given up by then.
BODY_BYTES_MAX: Final = 1024


class Liar:
    """One dishonest witness. In the healing of a world it is silent."""

    def __init__(self, identity: Identity, charter: Charter, chance: Random) -> None:
        self.identity, self._charter, self._chance = identity, charter, chance
        self.habit = chance.choice(HABITS)
        self.is_silent = False
        self._favoured: dict[NodeId, bool] = {}
        self._locks: dict[MessageId, PrepareCertificate] = {}

    async def run(self, world: MemoryWorld) -> None:
        """Answer until cancelled."""
        async with world.open_network(self.identity.node) as network:
            network.serve(LEDGER_PROTOCOL, self._handler(network))
            await trio.sleep_forever()

    def _handler(self, network: MemoryNetwork) -> Handler:
        async def handle(stream: Stream) -> None:
            frames = FrameStream(stream)
            while True:
                data = await frames.receive(FRAME_BYTES_MAX)
                if data is None or self.is_silent:
                    return
                answer = await self._answer(network, stream.peer, ask_decoded(data))
                await frames.send(message_encoded(answer))

        return handle

    async def _answer(self, network: MemoryNetwork, peer: NodeId, ask: Ask) -> Answer:
        is_refused = self.habit == "seals nothing"
        if self.habit == "late":
            await trio.sleep(LATE_SECONDS_MAX * self._chance.random())
        if self.habit == "two-faced":
            is_refused = not self._favoured.setdefault(peer, self._chance.random() < 0.5)
        if is_refused:
            if self._chance.random() < 0.5:
                await trio.sleep_forever()
            return self._refused()
        try:
            return self._sealed(ask)
        except RemoteError:
            return self._refused()

    def _refused(self) -> Refusal:
        code = self._chance.choice((Code.BUSY, Code.MISSING, Code.VOTED_OTHER, Code.OLD_TURN))
        return Refusal(code, "No.", retry_ms=1000, missing_seq=1)

    def _sealed(self, ask: Ask) -> Answer:
        """Whatever is asked for, sealed."""
        match ask:
            case Submit():
                return Voted(vote_signed(self.identity, ask.entry.id, self._charter.network))
            case AskReport():
                return Reported(self._report(ask.ask))
            case Propose():
                proposal = decode(ask.proposal.body, Proposal, BODY_BYTES_MAX)
                return Prepared(self._signed(prepare_of(proposal)))
            case Lock(certificate):
                if self._chance.random() < 0.5:
                    self._locks[certificate.channel] = certificate
                return Committed(self._signed(commit_of(certificate)))
            case AskOwn():
                return OwnState(None, None, None)
            case AskAccounts():
                return Accounts(())
            case AskProofs():
                return Proofs(())
            case Announce() | TellSettlement():
                return Accepted()
            case _:
                return Entries(())

    def _report(self, ask: Signed) -> ReportShown:
        """No lock, or the most harmful one that there is proof of."""
        asked = decode(ask.body, TurnAsk, BODY_BYTES_MAX)
        lock = self._locks.get(asked.channel)
        if lock is not None and lock.turn >= asked.turn:
            lock = None
        locked = None if lock is None else Locked(lock.turn, lock.value)
        return ReportShown(self._signed(Report(EPOCH, asked.channel, asked.turn, locked)), lock)

    def _signed(self, statement: object) -> Signed:
        return statement_signed(self.identity, statement, self._charter.network)  # type: ignore[arg-type]
