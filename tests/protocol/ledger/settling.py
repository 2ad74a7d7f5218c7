"""One channel, its witnesses and an adversary that owns both parties and f witnesses.

The rule under test is the code's: every answer of an honest witness comes from `on_ask`,
`on_propose` and `on_lock`. Because they are pure, an answer is computed once for each seat and
question, and a seat stands in the histories by its key, a small tuple: so hundreds of thousands of
steps run in seconds. A prepare certificate stands by its turn and value: which quorum made it
changes nothing in the rule.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from typing import NamedTuple

from protocol.envelope import seal
from protocol.errors import RemoteError
from protocol.identity import Identity, Seed
from protocol.ledger.agreement import prepare_of
from protocol.ledger.certificate import Seal, statement_signed
from protocol.ledger.channel import channel_checked
from protocol.ledger.charter import charter
from protocol.ledger.entry import Open
from protocol.ledger.genesis import genesis_made
from protocol.ledger.settlement import (
    Clock,
    Decision,
    Seat,
    on_ask,
    on_lock,
    on_propose,
    owner_is_payee,
    turn_begins_ms,
)
from protocol.ledger.statement import (
    Locked,
    PrepareCertificate,
    Proposal,
    Report,
    ReportShown,
    TurnAsk,
)
from protocol.ledger.sync import Propose
from protocol.ledger.voucher import Voucher, voucher_signed
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    NOTHING,
    certified_by,
    entry_after,
    signed_entry,
    start,
)

WITNESSES = sorted(
    (Identity(Seed(bytes([200 + number]) * 32)) for number in range(10)), key=lambda one: one.node
)
EXPIRY_MS = 1_000_000
VALUES = (0, 35, 20)

Lock = tuple[int, int]
"""A turn and its value."""


class Shown(NamedTuple):
    """A report in a proposal: whose, what lock, and whether its certificate is shown."""

    witness: int
    lock: Lock | None
    is_backed: bool = True


class Key(NamedTuple):
    """All that a seat says."""

    promised: int
    report: tuple[int, Lock | None] | None
    prepared: Lock | None
    lock: Lock | None


class Rules:
    """What an honest witness does. The mistakes are subclasses."""

    reports_short = 0
    """How many reports fewer than a quorum its proposals show."""
    prepares_short = 0
    patient = True
    """Whether to prepare a value again changes nothing."""

    def __init__(self, witnesses: int) -> None:
        nodes = {identity.node for identity in WITNESSES[:witnesses]}
        self.charter = charter(genesis_made("ayllu", bytes(16), {ANNA.node: 100}, nodes))
        entry = entry_after(
            start(ANNA, self.charter), Open(BRUNO.node, 40, EXPIRY_MS), self.charter
        )
        signed = signed_entry(ANNA, entry, self.charter)
        self.open = certified_by(WITNESSES[: self.charter.quorum], signed, self.charter)
        self.channel = channel_checked(self.open, self.charter)
        self.seats: dict[Key, Seat] = {}
        self.start = self.key(Seat())
        self.answers: dict[object, object] = {}

    def key(self, seat: Seat) -> Key:
        report, prepared, lock = seat.report, seat.prepared, seat.lock
        key = Key(
            seat.promised,
            None if report is None else (report.turn, _lock(report.locked)),
            None if prepared is None else (prepared.turn, prepared.value),
            None if lock is None else (lock.turn, lock.value),
        )
        self.seats.setdefault(key, seat)
        return key

    # What witnesses and parties sign, each once.

    @cache  # noqa: B019 - a Rules lives as long as the test that made it.
    def prepared(self, turn: int, value: int) -> PrepareCertificate:
        """Of the first q witnesses."""
        proposal = Proposal(self.channel.id, turn, value)
        network, seals = self.charter.network, []
        for number in range(self.charter.quorum - self.prepares_short):
            vote = statement_signed(WITNESSES[number], prepare_of(proposal), network)
            seals.append(Seal(number, vote.signature))
        return PrepareCertificate(0, self.channel.id, turn, value, tuple(seals))

    @cache  # noqa: B019
    def report(self, turn: int, shown: Shown) -> ReportShown:
        locked = None if shown.lock is None else Locked(*shown.lock)
        report = Report(0, self.channel.id, turn, locked)
        signed = statement_signed(WITNESSES[shown.witness], report, self.charter.network)
        backed = shown.lock is not None and shown.is_backed
        return ReportShown(signed, self.prepared(*shown.lock) if backed else None)

    @cache  # noqa: B019
    def proposal(self, turn: int, value: int, reports: tuple[Shown, ...]) -> Propose:
        identity = BRUNO if owner_is_payee(turn) else ANNA
        network = self.charter.network
        voucher = Voucher(self.channel.id, value, NOTHING, b"") if value else None
        return Propose(
            seal(identity, network, Proposal(self.channel.id, turn, value)),
            self.open,
            (),
            None if voucher is None else voucher_signed(ANNA, voucher, network),
            tuple(self.report(turn, shown) for shown in reports),
        )

    def clock(self, turn: int) -> Clock:
        """One by which it is this turn: the gates are open."""
        begins = turn_begins_ms(EXPIRY_MS, max(turn, 2), self.charter)
        return Clock(begins if turn > 1 else 0)

    # The rule.

    def ask(self, seat: Seat, turn: int, clock: Clock) -> Decision:
        identity = BRUNO if owner_is_payee(turn) else ANNA
        asked = seal(identity, self.charter.network, TurnAsk(self.channel.id, turn))
        return on_ask(asked, self.channel, seat, clock, self.charter)

    def propose(
        self, seat: Seat, turn: int, value: int, reports: tuple[Shown, ...], clock: Clock
    ) -> Decision:
        ask = self.proposal(turn, value, reports)
        return on_propose(ask, self.channel, seat, clock, self.charter)

    def lock(self, seat: Seat, turn: int, value: int) -> Decision:
        return on_lock(self.prepared(turn, value), self.channel, seat, self.charter)

    def crashed(self, seat: Seat) -> Seat:
        """What comes back of a seat: all of it, since it was stored before each answer."""
        return seat

    def outcome(self, prepared: int, committed: int) -> bool:
        """Whether so many prepares and commits of one turn and value settle the channel."""
        return committed >= self.charter.quorum

    # The same, by keys.

    def answered(self, key: Key, what: str, *arguments: object) -> tuple[Key, object] | None:
        """The seat after an answer, and the lock that a report shows; None: refused."""
        asked = (key, what, arguments)
        if asked not in self.answers:
            try:
                decision = getattr(self, what)(self.seats[key], *arguments)
            except RemoteError:
                self.answers[asked] = None
            else:
                said = decision.statement
                lock = _lock(said.locked) if isinstance(said, Report) else None
                self.answers[asked] = self.key(decision.seat), lock
        return self.answers[asked]

    def after_crash(self, key: Key) -> Key:
        return self.key(self.crashed(self.seats[key]))


def _lock(locked: Locked | None) -> Lock | None:
    return None if locked is None else (locked.turn, locked.value)


class Voice(NamedTuple):
    """An honest witness: its seat, and all that it ever signed, which nobody forgets."""

    key: Key
    reports: frozenset[tuple[int, Lock | None]] = frozenset()
    prepared: frozenset[Lock] = frozenset()
    committed: frozenset[Lock] = frozenset()


@dataclass
class World:
    """The honest witnesses; the other f sign whatever they are asked to."""

    rules: Rules
    voices: list[Voice]

    @staticmethod
    def new(rules: Rules) -> "World":
        honest = rules.charter.quorum
        return World(rules, [Voice(rules.start)] * honest)

    @property
    def liars(self) -> range:
        return range(self.rules.charter.quorum, len(self.rules.charter.witnesses))

    def prepares(self, turn: int, value: int) -> int:
        """How many have prepared it, every liar included."""
        return len(self.liars) + sum((turn, value) in one.prepared for one in self.voices)

    def has_certificate(self, turn: int, value: int) -> bool:
        """Whether q prepares of it exist. Without one honest prepare there is nothing to see."""
        needed = self.rules.charter.quorum - self.rules.prepares_short
        return self.prepares(turn, value) >= needed

    def certificates(self, below: int) -> list[Lock]:
        known = {lock for one in self.voices for lock in one.prepared}
        return [lock for lock in sorted(known) if lock[0] < below and self.has_certificate(*lock)]

    def settled(self) -> set[int]:
        """Every value that some quorum has made final: at most one."""
        said = {lock for one in self.voices for lock in one.prepared | one.committed}
        return {
            value
            for turn, value in said
            if self.rules.outcome(
                self.prepares(turn, value),
                len(self.liars) + sum((turn, value) in one.committed for one in self.voices),
            )
        }

    def lies(self, turn: int, values: Iterable[int]) -> list[tuple[Lock | None, bool]]:
        """What a liar may report: nothing, a real certificate, or a lock out of the air."""
        real = self.certificates(turn)
        made_up = [(before, value) for before in range(1, turn) for value in values]
        return [
            (None, True),
            *((lock, True) for lock in real),
            *((lock, False) for lock in made_up if lock not in real),
        ]

    # Steps. Each changes one honest witness, or nothing.

    def ask(self, number: int, turn: int, clock: Clock | None = None) -> None:
        voice = self.voices[number]
        clock = clock or self.rules.clock(turn)
        if answer := self.rules.answered(voice.key, "ask", turn, clock):
            key, lock = answer
            reports = voice.reports | {(turn, lock)}
            self.voices[number] = voice._replace(key=key, reports=reports)

    def propose(
        self,
        number: int,
        turn: int,
        value: int,
        reports: tuple[Shown, ...],
        clock: Clock | None = None,
    ) -> bool:
        voice = self.voices[number]
        clock = clock or self.rules.clock(turn)
        answer = self.rules.answered(voice.key, "propose", turn, value, reports, clock)
        if answer is None:
            return False
        prepared = voice.prepared | {(turn, value)}
        self.voices[number] = voice._replace(key=answer[0], prepared=prepared)
        return True

    def lock(self, number: int, turn: int, value: int) -> None:
        voice = self.voices[number]
        if not self.has_certificate(turn, value):
            return
        if answer := self.rules.answered(voice.key, "lock", turn, value):
            committed = voice.committed | {(turn, value)}
            self.voices[number] = voice._replace(key=answer[0], committed=committed)

    def crash(self, number: int) -> None:
        voice = self.voices[number]
        self.voices[number] = voice._replace(key=self.rules.after_crash(voice.key))

    def reports(self, turn: int) -> list[list[Shown]]:
        """For each honest witness, the reports of a turn that it ever gave."""
        return [
            [Shown(number, lock) for at, lock in sorted(voice.reports, key=str) if at == turn]
            for number, voice in enumerate(self.voices)
        ]

    def shows(self, turn: int, values: Iterable[int]) -> Iterator[tuple[Shown, ...]]:
        """Every set of reports that the owner of a turn may show; all of one size."""
        if turn == 1:
            yield ()
            return
        size = self.rules.charter.quorum - self.rules.reports_short
        given = [each for each in self.reports(turn) if each]
        lies = [
            Shown(liar, lock, backed)
            for lock, backed in self.lies(turn, values)
            for liar in self.liars[:1]
        ]
        for liars in range(min(1, len(self.liars)) + 1):
            for chosen in combinations(given, size - liars):
                yield from product(*chosen, *([lies] * liars))


def honest_turn(world: World, turn: int) -> int | None:
    """What one turn of an honest owner settles, with every liar silent and all clocks right."""
    rules, quorum = world.rules, range(len(world.voices))
    for number in quorum:
        world.ask(number, turn)
    shown = tuple(each[-1] for each in world.reports(turn) if each)
    if len(shown) < len(world.voices):
        return None
    highest = max((one.lock for one in shown if one.lock), default=None)
    value = highest[1] if highest else 0
    for number in quorum:
        world.propose(number, turn, value, shown)
    for number in quorum:
        world.lock(number, turn, value)
    whole = all((turn, value) in voice.committed for voice in world.voices)
    assert not whole or len(world.voices) == rules.charter.quorum
    return value if whole else None
