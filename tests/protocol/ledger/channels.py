"""A channel that Anna opens to Bruno, and everything that is said while it settles."""

from collections.abc import Iterable

from protocol.envelope import Signed, seal
from protocol.identity import Identity
from protocol.ledger.agreement import (
    commit_of,
    commit_seal,
    prepare_of,
    prepare_seal,
    prepared_made,
    settlement_made,
)
from protocol.ledger.certificate import Certified, statement_signed
from protocol.ledger.channel import channel_checked
from protocol.ledger.charter import Charter
from protocol.ledger.entry import EARNED, FEE, PAY, REST, Claim, Open, Source, TopUp
from protocol.ledger.settlement import Clock, owner_is_payee, turn_begins_ms
from protocol.ledger.statement import (
    Locked,
    PrepareCertificate,
    Proposal,
    Report,
    ReportShown,
    Settlement,
    TurnAsk,
)
from protocol.ledger.sync import AskReport, Lock, Propose
from protocol.ledger.voucher import Voucher, voucher_signed
from tests.protocol.ledger.chains import ANNA, BRUNO, CHARTER, NOTHING, WITNESSES, Chain

EXPIRY_MS = 1_000_000
QUORUM = (0, 1, 2)


def open_to(payee: Identity, deposit: int, expiry_ms: int = EXPIRY_MS) -> Open:
    return Open(payee.node, deposit, expiry_ms)


def claim_of(*sources: tuple[str, bytes, int]) -> Claim:
    return Claim(tuple(Source(*source) for source in sources))


def pay_of(entry: bytes, amount: int) -> tuple[str, bytes, int]:
    return PAY, entry, amount


def earned(channel: bytes, amount: int) -> tuple[str, bytes, int]:
    return EARNED, channel, amount


def rest(channel: bytes, amount: int) -> tuple[str, bytes, int]:
    return REST, channel, amount


def fee(entry: bytes, amount: int) -> tuple[str, bytes, int]:
    return FEE, entry, amount


def prepared(
    channel: bytes, turn: int, value: int, by: Iterable[int] = QUORUM, rules: Charter = CHARTER
) -> PrepareCertificate:
    """A certificate of these witnesses."""
    proposal = Proposal(channel, turn, value)
    votes = [statement_signed(WITNESSES[one], prepare_of(proposal), rules.network) for one in by]
    made = prepared_made(proposal, [prepare_seal(vote, proposal, rules) for vote in votes], rules)
    assert made is not None
    return made


def settled(
    channel: bytes, value: int, turn: int = 1, by: Iterable[int] = QUORUM, rules: Charter = CHARTER
) -> Settlement:
    """How these witnesses settled a channel."""
    certificate = prepared(channel, turn, value, rules=rules)
    votes = [statement_signed(WITNESSES[one], commit_of(certificate), rules.network) for one in by]
    seals = [commit_seal(vote, certificate, rules) for vote in votes]
    made = settlement_made(certificate, seals, rules)
    assert made is not None
    return made


class Deal:
    """Anna's channel to Bruno: 40 and a top-up of 10, and what each side says of it."""

    def __init__(self, rules: Charter = CHARTER) -> None:
        self.rules = rules
        self.anna, self.bruno = Chain(ANNA, rules), Chain(BRUNO, rules)
        self.id = self.anna.add(open_to(BRUNO, 40)).id
        self.open = self.anna.certified[-1]
        self.anna.add(TopUp(self.id, 10))
        self.topup: Certified = self.anna.certified[-1]
        self.channel = channel_checked(self.open, rules)

    def owner(self, turn: int) -> Identity:
        return BRUNO if owner_is_payee(turn) else ANNA

    def clock(self, turn: int, *, trusted: bool = True) -> Clock:
        if turn == 1:
            return Clock(0, trusted)
        return Clock(turn_begins_ms(EXPIRY_MS, turn, self.rules), trusted)

    def signed(self, said: TurnAsk | Proposal, by: Identity | None = None) -> Signed:
        return seal(by or self.owner(said.turn), self.rules.network, said)

    def voucher(self, value: int, by: Identity = ANNA, lock: bytes = b"") -> Signed:
        return voucher_signed(by, Voucher(self.id, value, NOTHING, lock), self.rules.network)

    def ask(self, turn: int, by: Identity | None = None) -> AskReport:
        return AskReport(self.signed(TurnAsk(self.id, turn), by), self.open)

    def propose(
        self,
        turn: int,
        value: int,
        reports: Iterable[ReportShown] = (),
        *,
        by: Identity | None = None,
        **shown,
    ) -> Propose:
        """By the turn's owner, with the voucher for the value, unless told otherwise."""
        voucher = shown.get("voucher", self.voucher(value) if value else None)
        topups = shown.get("topups", (self.topup,))
        signed = self.signed(Proposal(self.id, turn, value), by)
        return Propose(signed, self.open, topups, voucher, tuple(reports))

    def lock(self, turn: int, value: int) -> Lock:
        return Lock(prepared(self.id, turn, value, rules=self.rules), self.open)

    def report(
        self, witness: int, turn: int, locked: tuple[int, int] | None = None, *, backed: bool = True
    ) -> ReportShown:
        said = Report(0, self.id, turn, Locked(*locked) if locked else None)
        signed = statement_signed(WITNESSES[witness], said, self.rules.network)
        backing = prepared(self.id, *locked, rules=self.rules) if locked and backed else None
        return ReportShown(signed, backing)

    def reports(self, turn: int, *locked: tuple[int, int] | None) -> tuple[ReportShown, ...]:
        """Of witnesses 0, 1, ..., each with its lock."""
        return tuple(self.report(number, turn, one) for number, one in enumerate(locked))
