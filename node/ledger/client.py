"""Asks all witnesses at once, for ever: votes for our entry, what they know of our account.

There is one task for each witness, and each looks at what its witness still lacks: our certified
entries, our pending entry, our question. So nothing that is slow is cancelled, and a witness that
comes back is brought up to date by the same rule as one that was there.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from node.ledger.lines import Lines
from node.ledger.signal import Signal
from node.ledger.witness import Desk
from node.network.base import NetworkError
from node.storage.ledger import LedgerStore
from node.telemetry.logs import Log
from protocol.envelope import Signed
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId, short
from protocol.ledger.certificate import (
    Certified,
    Seal,
    certificate_made,
    certified_checked,
    seal_of,
)
from protocol.ledger.charter import Charter
from protocol.ledger.entry import entry_opened
from protocol.ledger.head import View, view_checked
from protocol.ledger.proof import Breach
from protocol.ledger.sources import Proofs
from protocol.ledger.sync import (
    Accepted,
    Announce,
    Answer,
    Ask,
    AskOwn,
    OwnState,
    Refusal,
    Submit,
    Voted,
)

RETRY_SECONDS_MIN: Final = 0.5
RETRY_SECONDS_MAX: Final = 30.0

Errand = Callable[[], Awaitable[float]]
"""One exchange; what it returns is how many seconds to wait before the next."""

_log = Log("ledger")


class Superseded(Exception):
    """Another entry of ours has been certified in the place of the one that we asked for."""

    def __init__(self, certified: Certified) -> None:
        super().__init__("another entry is certified in this place")
        self.certified = certified


@dataclass(eq=False)
class Round:
    """One entry on its way to a certificate."""

    entry: Signed
    seq: int
    proofs: Proofs
    seals: dict[int, Seal] = field(default_factory=dict)
    outcome: Certified | Superseded | None = None
    over: trio.Event = field(default_factory=trio.Event)

    def end(self, outcome: Certified | Superseded) -> None:
        self.outcome = self.outcome or outcome
        self.over.set()


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a witness's answer may bring to light; none may wait."""

    rival: Callable[[Signed], None]
    breach: Callable[[Breach], None]


class Client:
    """Speaks with every witness while `run` runs; our own is asked without a network."""

    def __init__(
        self,
        node: NodeId,
        desk: Desk,
        store: LedgerStore,
        charter: Charter,
        lines: Lines,
        *,
        instance: bytes,
        callbacks: Callbacks,
    ) -> None:
        self._node, self._desk, self._store, self._lines = node, desk, store, lines
        self._charter, self._instance, self._callbacks = charter, instance, callbacks
        self._changed = Signal()
        self._wakes = {witness: Signal() for witness in charter.witnesses}
        self._head_seq = 0
        self._told: dict[int, int | None] = dict.fromkeys(range(len(charter.witnesses)))
        self._asking = False
        self.round: Round | None = None  # The last one, also when it is over.
        self.views: dict[int, View] = {}
        self.views_changed = Signal()

    async def certify(self, entry: Signed, seq: int, proofs: Proofs) -> Certified:
        """The certificate of an entry that is on disk; asks until q witnesses have voted.

        Raises Superseded when another entry of ours is certified in its place.
        """
        assert self.round is None or self.round.over.is_set(), "one entry at a time"
        at_hand = self.round = Round(entry, seq, proofs)
        self._changed.set()
        try:
            await at_hand.over.wait()
        finally:
            at_hand.over.set()  # Also when we were cancelled: nobody asks for it any more.
        outcome = at_hand.outcome
        if isinstance(outcome, Superseded):
            raise outcome
        assert outcome is not None
        return outcome

    def show(self, proofs: Proofs) -> None:
        """What the entry at hand claims is shown with these from now on."""
        assert self.round is not None
        self.round.proofs = proofs
        for signal in self._wakes.values():
            signal.set()

    def ask_own(self) -> None:
        """Ask all witnesses what they know of our account; `views` fills, and `views_changed`
        tells."""
        self._asking = True
        self.views.clear()
        self._changed.set()

    def stop_asking(self) -> None:
        """What we asked is known."""
        self._asking = False

    def spread(self, head_seq: int) -> None:
        """Bring all witnesses up to this certified entry of ours."""
        self._head_seq = max(self._head_seq, head_seq)
        self._changed.set()

    def wake(self, peer: NodeId) -> None:
        """A peer is connected: if it is a witness, try it again at once."""
        if peer in self._wakes:
            self._wakes[peer].set()

    async def run(self) -> None:
        """Speak with all witnesses until cancelled."""
        async with trio.open_nursery() as nursery:
            for number, witness in enumerate(self._charter.witnesses):
                nursery.start_soon(self._attend, number, witness)
            await trio.sleep_forever()

    async def _attend(self, number: int, witness: NodeId) -> None:
        seconds = RETRY_SECONDS_MIN
        while True:
            while (errand := self._errand(number)) is None:
                await self._changed.wait()
            try:
                wait_seconds = await errand()
                seconds = RETRY_SECONDS_MIN
            except (NetworkError, RemoteError) as error:
                code = error.code if isinstance(error, RemoteError) else "LOST"
                _log.debug("witness.silent", witness=short(witness), code=code)
                wait_seconds, seconds = seconds, min(2 * seconds, RETRY_SECONDS_MAX)
            if wait_seconds:
                await self._wakes[witness].wait_at_most(wait_seconds)

    def _errand(self, number: int) -> Errand | None:
        """What this witness lacks: first what others wait for."""
        told, at_hand = self._told[number], self.round
        if at_hand is not None and number not in at_hand.seals and not at_hand.over.is_set():
            if told is not None and told == at_hand.seq - 2:
                return lambda: self._hand_on(number, at_hand)
            if told is not None and told < at_hand.seq - 1:
                return lambda: self._announce(number, told + 1)
            return lambda: self._submit(number, at_hand)
        if self._asking and number not in self.views:
            return lambda: self._ask_own(number)
        if self._charter.witnesses[number] == self._node:
            return None  # It shares our store.
        if told is None and self._head_seq:
            return lambda: self._announce(number, self._head_seq)
        if told is not None and told < self._head_seq:
            return lambda: self._announce(number, told + 1)
        return None

    async def ask(self, number: int, ask: Ask) -> Answer:
        """The answer of one witness. Raises NetworkError and RemoteError as `Lines.ask`."""
        witness = self._charter.witnesses[number]
        if witness == self._node:
            return await self._desk.answer(witness, ask)
        return await self._lines.ask(witness, ask)

    async def _hand_on(self, number: int, at_hand: Round) -> float:
        """The certificate of the entry before, and the entry at hand, in one exchange: an account
        that has much to sign needs one for each entry."""
        witness, before = self._charter.witnesses[number], at_hand.seq - 1
        if witness == self._node:
            return await self._submit(number, at_hand)  # It shares our store.
        asks: list[Ask] = [Announce(await self._certified(before)), self._submission(at_hand)]
        announced, submitted = await self._lines.ask_all(witness, asks)
        wait_seconds = self._announced(number, before, announced)
        if isinstance(announced, Accepted):
            return self._submitted(number, at_hand, submitted)
        return wait_seconds

    async def _submit(self, number: int, at_hand: Round) -> float:
        answer = await self.ask(number, self._submission(at_hand))
        return self._submitted(number, at_hand, answer)

    def _submitted(self, number: int, at_hand: Round, answer: Answer) -> float:
        if isinstance(answer, Voted):
            seal = seal_of(answer.vote, at_hand.entry.id, self._charter)
            if seal.witness != number:
                raise RemoteError(Code.WRONG_SIGNER, "A witness showed another's vote.")
            at_hand.seals[number] = seal
            certificate = certificate_made(at_hand.entry.id, at_hand.seals.values(), self._charter)
            if certificate is not None:
                at_hand.end(Certified(at_hand.entry, certificate))
            # Whoever votes for this entry has all before it.
            self._told[number] = max(self._told[number] or 0, at_hand.seq - 1)
            return 0
        return self._refused(number, answer, at_hand)

    def _submission(self, at_hand: Round) -> Submit:
        proofs = at_hand.proofs
        return Submit(
            at_hand.entry, tuple(proofs.entries), tuple(proofs.settlements), self._instance
        )

    def _refused(self, number: int, answer: Answer, at_hand: Round) -> float:
        """How long to wait before the next question. Raises RemoteError for no good answer."""
        if not isinstance(answer, Refusal):
            raise RemoteError(Code.UNEXPECTED, "A witness answered another question.")
        shown = answer.shown
        if answer.code == Code.BUSY:
            return max(answer.retry_ms / 1000, RETRY_SECONDS_MIN)
        if answer.code == Code.MISSING and 0 < answer.missing_seq < at_hand.seq:
            return self._missing(number, answer.missing_seq)
        if answer.code == Code.PAST and isinstance(shown, Certified):
            opened = certified_checked(shown, self._charter)
            if (opened.value.account, opened.value.seq) == (self._node, at_hand.seq):
                is_ours = opened.id == at_hand.entry.id
                at_hand.end(shown if is_ours else Superseded(shown))
                return 0
        if answer.code == Code.VOTED_OTHER and isinstance(shown, Signed):
            rival = entry_opened(shown, self._charter.network)
            if (rival.value.account, rival.value.seq) == (self._node, at_hand.seq):
                self._callbacks.rival(shown)
        if answer.code == Code.HALTED and isinstance(shown, Breach):
            self._callbacks.breach(shown)
        raise _error(answer)

    def _missing(self, number: int, seq: int) -> float:
        """A witness lacks our entries from this seq on. One that says so again after they were
        sent gets a pause."""
        known = self._told[number]
        self._told[number] = seq - 1
        return RETRY_SECONDS_MIN if known is not None and known >= seq else 0

    async def _ask_own(self, number: int) -> float:
        answer = await self.ask(number, AskOwn(self._node, self._instance))
        if isinstance(answer, Refusal):
            if answer.code == Code.HALTED and isinstance(answer.shown, Breach):
                self._callbacks.breach(answer.shown)
            raise _error(answer)
        if not isinstance(answer, OwnState):
            raise RemoteError(Code.UNEXPECTED, "A witness answered another question.")
        self.views[number] = view_checked(answer, self._node, self._charter)
        self.views_changed.set()
        return 0

    async def _announce(self, number: int, seq: int) -> float:
        answer = await self.ask(number, Announce(await self._certified(seq)))
        return self._announced(number, seq, answer)

    async def _certified(self, seq: int) -> Certified:
        certified = await self._store.read(lambda chains: chains.certified(self._node, seq))
        assert certified is not None, "only what is certified here is spread"
        return certified

    def _announced(self, number: int, seq: int, answer: Answer) -> float:
        if isinstance(answer, Accepted):
            self._told[number] = max(self._told[number] or 0, seq)
            return 0
        if isinstance(answer, Refusal):
            if answer.code == Code.MISSING and 0 < answer.missing_seq < seq:
                return self._missing(number, answer.missing_seq)
            if answer.code == Code.HALTED and isinstance(answer.shown, Breach):
                self._callbacks.breach(answer.shown)
            raise _error(answer)
        raise RemoteError(Code.UNEXPECTED, "A witness answered another question.")


def _error(answer: Refusal) -> RemoteError:
    code = Code(answer.code) if answer.code in set(Code) else Code.REFUSED
    return RemoteError(code, answer.sentence, answer.retry_ms)
