"""One turn of a channel, asked of all witnesses at once: reports, prepares, commits.

As with votes there is one task for each witness, and each looks at what its witness still lacks.
So nothing that is slow is cancelled before the end, and a witness that comes back in the middle
is asked for what is wanted now.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from node.ledger.signal import Signal
from node.network.base import NetworkError
from node.telemetry.logs import Log
from protocol.envelope import Signed, unseal
from protocol.errors import Code, RemoteError, code_known
from protocol.ids import short
from protocol.ledger.agreement import (
    STATEMENT_BYTES_MAX,
    commit_seal,
    prepare_seal,
    prepared_made,
    report_checked,
    settlement_checked,
    settlement_made,
)
from protocol.ledger.certificate import Certified, Seal
from protocol.ledger.charter import Charter
from protocol.ledger.statement import PrepareCertificate, Proposal, ReportShown, Settlement
from protocol.ledger.sync import (
    Answer,
    Ask,
    AskReport,
    Committed,
    Lock,
    Prepared,
    Propose,
    Refusal,
    Reported,
    Settled,
)

RETRY_SECONDS_MIN: Final = 0.5
RETRY_SECONDS_MAX: Final = 30.0

AskWitness = Callable[[int, Ask], Awaitable[Answer]]
"""The answer of a witness, by its number. Raises NetworkError and RemoteError."""

# From these a witness does not come back within the turn.
_LOST: Final = frozenset({Code.OLD_TURN, Code.VOTED_OTHER})

_log = Log("ledger")


class Round:
    """A turn of ours on its way to a settlement."""

    def __init__(
        self, charter: Charter, shown: Certified, turn: int, ask_witness: AskWitness
    ) -> None:
        self._charter, self._ask_witness = charter, ask_witness
        self._channel, self._open = shown.entry.id, shown
        self._changed = Signal()
        self._wakes = [Signal() for _ in charter.witnesses]
        self._lost: set[int] = set()
        self._ask: Signed | None = None
        self._propose: Propose | None = None
        self._proposal: Proposal | None = None
        self._reports: dict[int, ReportShown] = {}
        self._prepares: dict[int, Seal] = {}
        self._commits: dict[int, Seal] = {}
        self._certificate: PrepareCertificate | None = None
        self.turn = turn
        self.settlement: Settlement | None = None

    @property
    def stage(self) -> str:
        """As `Settling.stage`."""
        if self.settlement is not None:
            return "settled"
        if self._certificate is not None:
            return "locking"
        return "asking" if self._propose is None else "proposing"

    @property
    def seals(self) -> int:
        """How many witnesses have answered what is asked now."""
        if self._certificate is not None:
            return len(self._commits)
        return len(self._reports if self._propose is None else self._prepares)

    @property
    def is_over(self) -> bool:
        """Whether there is a settlement, or can be none in this turn any more."""
        left = len(self._charter.witnesses) - len(self._lost)
        return self.settlement is not None or left < self._charter.quorum

    def wake(self, number: int) -> None:
        """A witness is connected: try it again at once."""
        self._wakes[number].set()

    async def attend(self) -> None:
        """Speak with all witnesses until cancelled; beside it the owner goes from step to step."""
        async with trio.open_nursery() as nursery:
            for number in range(len(self._charter.witnesses)):
                nursery.start_soon(self._attend, number)

    # The steps of the owner; each returns when its quorum is there, or when the round is over.

    async def reports(self, ask: Signed) -> tuple[ReportShown, ...]:
        """Reports of q witnesses; fewer when the round is over."""
        self._ask = ask
        self._changed.set()
        await self._until(lambda: len(self._reports) >= self._charter.quorum)
        return tuple(self._reports.values())

    async def prepared(self, propose: Propose) -> PrepareCertificate | None:
        """What q witnesses prepared; None when the round is over."""
        network = self._charter.network
        opened = unseal(propose.proposal, network, Proposal, STATEMENT_BYTES_MAX)
        self._propose, self._proposal = propose, opened.value
        self._changed.set()

        def made() -> PrepareCertificate | None:
            return prepared_made(opened.value, self._prepares.values(), self._charter)

        await self._until(lambda: made() is not None)
        return made()

    async def committed(self, certificate: PrepareCertificate) -> Settlement | None:
        """What q witnesses committed to; None when the round is over without it."""
        self._certificate = certificate
        self._changed.set()
        await self._until(lambda: False)
        return self.settlement

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not (self.is_over or holds()):
            await self._changed.wait()

    # One witness.

    async def _attend(self, number: int) -> None:
        seconds = RETRY_SECONDS_MIN
        while True:
            while (ask := self._lacking(number)) is None:
                await self._changed.wait()
            wait_seconds = 0.0
            try:
                wait_seconds = self._heard(number, await self._ask_witness(number, ask))
                seconds = RETRY_SECONDS_MIN
            except (NetworkError, RemoteError) as error:
                code = error.code if isinstance(error, RemoteError) else "LOST"
                witness = short(self._charter.witnesses[number])
                _log.debug("witness.silent", witness=witness, code=code)
                wait_seconds, seconds = seconds, min(2 * seconds, RETRY_SECONDS_MAX)
            self._changed.set()
            if wait_seconds:
                await self._wakes[number].wait_at_most(wait_seconds)

    def _lacking(self, number: int) -> AskReport | Propose | Lock | None:
        if number in self._lost or self.settlement is not None:
            return None
        if self._certificate is not None:
            return None if number in self._commits else Lock(self._certificate, self._open)
        if self._propose is not None:
            return None if number in self._prepares else self._propose
        if self._ask is None or number in self._reports:
            return None
        return AskReport(self._ask, self._open)

    def _heard(self, number: int, answer: Answer) -> float:
        """How long to wait before the next question. Raises RemoteError for no good answer."""
        match answer:
            case Settled(settlement):
                if settlement.channel != self._channel:
                    raise RemoteError(Code.UNEXPECTED, "A witness spoke of another channel.")
                settlement_checked(settlement, self._charter)
                self.settlement = self.settlement or settlement
            case Reported(shown):
                report = report_checked(shown, self._channel, self.turn, self._charter)
                self._from(number, report.witness)
                self._reports[number] = shown
            case Prepared(vote) if self._proposal is not None:
                seal = prepare_seal(vote, self._proposal, self._charter)
                self._from(number, seal.witness)
                self._prepares[number] = seal
            case Committed(vote) if self._certificate is not None:
                seal = commit_seal(vote, self._certificate, self._charter)
                self._from(number, seal.witness)
                self._commits[number] = seal
                made = settlement_made(self._certificate, self._commits.values(), self._charter)
                self.settlement = self.settlement or made
            case Refusal():
                return self._refused(number, answer)
            case _:
                raise RemoteError(Code.UNEXPECTED, "A witness answered another question.")
        return 0

    def _from(self, number: int, signer: int) -> None:
        if signer != number:
            raise RemoteError(Code.WRONG_SIGNER, "A witness showed another's statement.")

    def _refused(self, number: int, answer: Refusal) -> float:
        code = code_known(answer.code)
        if code in _LOST:
            self._lost.add(number)
            return 0
        if code is Code.BUSY:
            return max(answer.retry_ms / 1000, RETRY_SECONDS_MIN)
        # One whose clock is in another turn will be in this one: it is tried again as well.
        raise RemoteError(code, answer.sentence, answer.retry_ms)
