"""Walks over the settlement of one channel, with the clock gates off and through many turns.

Payer and payee are dishonest together and sign whatever they like, the last f witnesses seal
whatever they are shown, witnesses crash, and messages reach whom the adversary chooses, when it
chooses. Each witness's clock says whatever suits the question: a clock only ever makes a witness
refuse, so what is safe without clocks is safe with any. Two mistakes of facts 3 hide from walks
that keep to the clock (a commit below the promise, and a lock that is not the highest).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from msgspec import Struct

from node.simulator.determinism import chance, key_seed
from protocol.envelope import seal
from protocol.errors import RemoteError
from protocol.identity import Identity, digest
from protocol.ledger.agreement import (
    commit_of,
    prepare_of,
    prepared_made,
    report_checked,
    settlement_made,
)
from protocol.ledger.certificate import (
    EPOCH,
    Certified,
    Seal,
    Vote,
    certificate_made,
    statement_signed,
)
from protocol.ledger.channel import Channel, channel_checked
from protocol.ledger.charter import Charter, charter
from protocol.ledger.entry import Entry, Open
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

START: Final = 1000
DEPOSIT: Final = 100
EXPIRY_MS: Final = 1_000_000
VALUES: Final = (0, 20, 35)
TURNS: Final = 8


class Unsafe(Exception):
    """Two values, or none where there must be one."""


@dataclass(frozen=True)
class Rule:
    """What an honest witness does; tests put a mistake in the place of each."""

    on_ask: Callable[..., Decision] = on_ask
    on_propose: Callable[..., Decision] = on_propose
    on_lock: Callable[..., Decision] = on_lock
    kept: Callable[[Seat, Decision], Seat] = lambda before, decision: decision.seat
    """What a crash leaves of a decision that was answered."""
    prepares_missing: int = 0
    """How many prepares fewer than a quorum make a certificate."""
    reports_missing: int = 0
    """How many reports fewer than a quorum are enough."""
    is_one_phase: bool = False
    """Whether q prepares count as a settlement."""


@dataclass(slots=True)
class _Witness:
    identity: Identity
    seat: Seat = field(default_factory=Seat)
    disk: Seat = field(default_factory=Seat)


@dataclass(slots=True)
class Counts:
    """What walks got to: without these, nothing would be shown by finding nothing."""

    walks: int = 0
    settled: int = 0
    rivals_prepared: int = 0
    rivals_committed: int = 0

    def add(self, walk: "Walk") -> None:
        """One more walk, at its end."""
        self.walks += 1
        self.settled += len(walk.settled)
        self.rivals_prepared += len({value for _, value in walk.prepared}) > 1
        self.rivals_committed += len({value for _, value in walk.committed}) > 1


class Walk:
    """One channel from its opening to its settlement."""

    def __init__(self, seed: bytes, witnesses: int, rule: Rule) -> None:
        self._pick: Random = chance(seed, "walk")
        self._rule = rule
        keys = sorted(
            (Identity(key_seed(digest(b"settling"), number)) for number in range(witnesses)),
            key=lambda identity: identity.node,
        )
        self._payer, self._payee = (Identity(key_seed(digest(b"clients"), one)) for one in (0, 1))
        self._charter: Charter = charter(
            genesis_made(
                "settling", bytes(16), {self._payer.node: START}, {key.node for key in keys}
            )
        )
        liars = self._charter.faulty_max
        self._honest = [_Witness(key) for key in keys[: witnesses - liars]]
        self._liars = keys[witnesses - liars :]
        self._open = self._opened(keys)
        self._channel: Channel = channel_checked(self._open, self._charter)
        self._reports: dict[int, dict[int, ReportShown]] = {}
        self._prepares: dict[tuple[int, int], dict[int, Seal]] = {}
        self.prepared: dict[tuple[int, int], PrepareCertificate] = {}
        self.committed: dict[tuple[int, int], dict[int, Seal]] = {}
        self.settled: dict[int, int] = {}  # Values, with the turn in which each was first settled.
        self.turn = 1

    # What the adversary does.

    def run(self, turns: int = TURNS) -> None:
        """Go through so many turns. Raises Unsafe."""
        for number in range(1, turns + 1):
            self.turn = number
            if number > 1:
                self._ask(number, self._some())
            self._crash()
            self._stale()
            for _ in range(self._pick.choice((1, 1, 2))):
                self._propose(number, self._value(number), self._some())
                self._stale()
            for value in VALUES:
                self._lock(number, value, self._some(is_last=True))
            self._crash()
            self._stale()
        self.finish()

    def finish(self) -> None:
        """One turn of an honest owner settles, to the value that was settled if one was. Raises
        Unsafe where it does not."""
        self.turn += 1
        number = self.turn
        for one in self._honest:
            one.seat = one.disk
        self._ask(number, self._honest, only_honest=True)
        shown = tuple(self._reports[number].values())
        rules = self._lenient(self._rule.prepares_missing)
        locks = [report_checked(it, self._channel.id, number, rules).locked for it in shown]
        known = [lock for lock in locks if lock is not None]
        best = max(known, key=lambda lock: lock.turn).value if known else VALUES[-1]
        self._propose(number, best, self._honest, shown)
        self._lock(number, best, self._honest)
        if best not in self.settled:
            raise Unsafe(f"an honest turn {number} did not settle the channel to {best}")

    def _some(self, *, is_last: bool = False) -> Sequence[_Witness]:
        """Some honest witnesses: mostly just as many as it takes with the liars' help, since that
        is where rules break. Of the last step of a turn mostly fewer, or the walk is soon over."""
        needed = self._charter.quorum - len(self._liars)
        likely = (0, 0, 1, 1, needed) if is_last else (needed,) * 6
        anything = self._pick.randint(0, len(self._honest))
        return self._pick.sample(self._honest, self._pick.choice((*likely, anything)))

    def _crash(self) -> None:
        """Some witnesses start again with what they have on disk."""
        if self._pick.random() < 0.3:
            for one in self._some():
                one.seat = one.disk

    def _value(self, number: int) -> int:
        """Mostly what some report of the turn holds, or else a value that is none of those."""
        locks = [shown.lock.value for shown in self._reports.get(number, {}).values() if shown.lock]
        if locks and self._pick.random() < 0.6:
            return self._pick.choice(locks)
        rivals = [value for value in VALUES if (number - 1, value) not in self.prepared]
        return self._pick.choice(rivals)

    def _stale(self) -> None:
        """An old certificate reaches some witnesses late."""
        if self.prepared and self._pick.random() < 0.4:
            number, value = self._pick.choice(list(self.prepared))
            self._lock(number, value, self._some(is_last=True))

    def _owner(self, number: int) -> Identity:
        return self._payee if owner_is_payee(number) else self._payer

    def _clock(self, number: int) -> Clock:
        """A clock that has no objection."""
        expiry_ms = self._channel.expiry_ms
        return Clock(0 if number == 1 else turn_begins_ms(expiry_ms, number, self._charter))

    def _ask(self, number: int, some: Sequence[_Witness], *, only_honest: bool = False) -> None:
        ask = seal(self._owner(number), self._charter.network, TurnAsk(self._channel.id, number))
        reports = self._reports.setdefault(number, {})
        for one in some:
            try:
                decision = self._rule.on_ask(
                    ask, self._channel, one.seat, self._clock(number), self._charter
                )
            except RemoteError:
                continue
            self._keep(one, decision)
            report = statement_signed(one.identity, decision.statement, self._charter.network)
            reports[self._number(one.identity)] = ReportShown(report, decision.backing)
        for liar in () if only_honest else self._liars:
            reports[self._number(liar)] = self._lie(liar, number)

    def _lie(self, liar: Identity, number: int) -> ReportShown:
        """A liar's report: no lock, any lock that there is proof of, or one without proof."""
        choices: list[tuple[Locked | None, PrepareCertificate | None]] = [(None, None)] * 6
        for (turn, value), certificate in self.prepared.items():
            if turn < number:
                choices.append((Locked(turn, value), certificate))
        if number > 2 and self._pick.random() < 0.1:
            choices = [(Locked(number - 1, self._pick.choice(VALUES)), None)]
        locked, backing = self._pick.choice(choices)
        report = Report(EPOCH, self._channel.id, number, locked)
        return ReportShown(statement_signed(liar, report, self._charter.network), backing)

    def _propose(
        self,
        number: int,
        value: int,
        some: Sequence[_Witness],
        shown: Sequence[ReportShown] | None = None,
    ) -> None:
        if shown is None and number > 1:
            reports = list(self._reports.get(number, {}).values())
            self._pick.shuffle(reports)
            shown = reports[: self._charter.quorum - self._rule.reports_missing]
            if len(shown) < self._charter.quorum - self._rule.reports_missing:
                return
        proposal = Proposal(self._channel.id, number, value)
        voucher = Voucher(self._channel.id, value or 1, bytes(32), b"")
        ask = Propose(
            seal(self._owner(number), self._charter.network, proposal),
            self._open,
            (),
            voucher_signed(self._payer, voucher, self._charter.network) if value else None,
            tuple(shown or ()),
        )
        place, prepare = (number, value), prepare_of(proposal)
        seals = self._prepares.setdefault(place, {})
        rules = self._lenient(max(self._rule.prepares_missing, self._rule.reports_missing))
        clock = self._clock(number)
        for one in some:
            try:
                decision = self._rule.on_propose(ask, self._channel, one.seat, clock, rules)
            except RemoteError:
                continue
            self._keep(one, decision)
            seals[self._number(one.identity)] = self._seal(one.identity, prepare)
        if not seals or place in self.prepared:
            return
        for liar in self._liars:
            seals[self._number(liar)] = self._seal(liar, prepare)
        certificate = prepared_made(
            proposal, seals.values(), self._lenient(self._rule.prepares_missing)
        )
        if certificate is not None:
            self.prepared[place] = certificate
            if self._rule.is_one_phase:
                self._settle(value, number)

    def _lock(self, number: int, value: int, some: Sequence[_Witness]) -> None:
        certificate = self.prepared.get((number, value))
        if certificate is None:
            return
        seals = self.committed.get((number, value), {})
        rules = self._lenient(self._rule.prepares_missing)
        for one in some:
            try:
                decision = self._rule.on_lock(certificate, self._channel, one.seat, rules)
            except RemoteError:
                continue
            self._keep(one, decision)
            seals[self._number(one.identity)] = self._seal(one.identity, commit_of(certificate))
        if not seals:
            return
        self.committed[number, value] = seals
        for liar in self._liars:
            seals[self._number(liar)] = self._seal(liar, commit_of(certificate))
        if settlement_made(certificate, seals.values(), self._charter) is not None:
            self._settle(value, number)

    def _settle(self, value: int, number: int) -> None:
        self.settled.setdefault(value, number)
        if len(self.settled) > 1:
            raise Unsafe(f"the channel was settled to {sorted(self.settled.items())}")

    # Within.

    def _keep(self, one: _Witness, decision: Decision) -> None:
        one.disk = self._rule.kept(one.disk, decision)
        one.seat = decision.seat

    def _lenient(self, missing: int) -> Charter:
        """The charter, with so many fewer for a quorum."""
        return replace(self._charter, quorum=self._charter.quorum - missing)

    def _number(self, witness: Identity) -> int:
        number = self._charter.number(witness.node)
        assert number is not None
        return number

    def _seal(self, witness: Identity, statement: Struct) -> Seal:
        signed = statement_signed(witness, statement, self._charter.network)
        return Seal(self._number(witness), signed.signature)

    def _opened(self, witnesses: Sequence[Identity]) -> Certified:
        network = self._charter.network
        body = Open(self._payee.node, DEPOSIT, EXPIRY_MS)
        entry = Entry(network, self._payer.node, 1, network, body, 0, START - DEPOSIT)
        signed = seal(self._payer, network, entry)
        seals = [self._seal(witness, Vote(EPOCH, signed.id)) for witness in witnesses]
        certificate = certificate_made(signed.id, seals, self._charter)
        assert certificate is not None
        return Certified(signed, certificate)


def walk_many(
    seed: bytes, witnesses: int, walks: int, rule: Rule | None = None, turns: int = TURNS
) -> Counts:
    """So many walks. Raises Unsafe, with the number of the walk."""
    counts = Counts()
    for number in range(walks):
        walk = Walk(digest(seed, number.to_bytes(8)), witnesses, rule or Rule())
        try:
            walk.run(turns)
        except Unsafe as unsafe:
            raise Unsafe(f"walk {number}: {unsafe}") from None
        counts.add(walk)
    return counts
