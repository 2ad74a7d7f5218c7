"""The turns of a channel: the tables of the facts, each refusal, and what each answer stores."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Code, RemoteError
from protocol.ledger.agreement import (
    commit_seal,
    highest_lock,
    prepare_seal,
    prepared_checked,
    prepared_made,
    report_checked,
    settlement_checked,
    settlement_made,
)
from protocol.ledger.certificate import statement_signed
from protocol.ledger.channel import channel_checked, funding_shown
from protocol.ledger.charter import charter
from protocol.ledger.decoder import packed
from protocol.ledger.genesis import genesis_made
from protocol.ledger.settlement import (
    Clock,
    Decision,
    Seat,
    owner,
    owner_is_payee,
    seat_decoded,
    turn,
    turn_begins_ms,
)
from protocol.ledger.statement import Commit, Locked, Prepare, Proposal, Report
from protocol.ledger.sync import Committed, Prepared, Refusal, Reported, Settled
from protocol.ledger.turns import Forgotten, Turns, turn_answer
from protocol.limits import TURN_MAX
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    CLARA,
    WITNESSES,
    Store,
    replace_fields,
)
from tests.protocol.ledger.channels import Deal, open_to, prepared, settled

DEAL = Deal()


class Home:
    """One witness at its desk: what is fresh is stored before it is answered."""

    def __init__(self, number: int = 3, deal: Deal = DEAL) -> None:  # It has sealed nothing shown.
        self.deal, self.store = deal, Store(deal.rules)
        self.identity = WITNESSES[number]
        self.turns = Turns(deal.rules, self.identity.node)

    @property
    def seat(self) -> Seat:
        return self.store.seat(self.deal.id)

    def hear(self, ask, clock=None):
        """The answer, or the code of the refusal; None where there is nothing new to sign."""
        clock = clock or Clock(0)
        answer = self.turns.answer(ask, self.store, clock)
        if isinstance(answer, Refusal):
            return answer.code
        if isinstance(answer, Settled):
            return answer.settlement
        assert isinstance(answer, Decision)
        assert answer.fresh == (answer.seat != self.seat)
        self.store.seats[self.deal.id] = answer.seat
        return turn_answer(answer, self.identity, self.deal.rules)

    def ask(self, number, **how):
        return self.hear(self.deal.ask(number, **how), self.deal.clock(number))

    def propose(self, number, value, reports=(), **shown):
        return self.hear(
            self.deal.propose(number, value, reports, **shown), self.deal.clock(number)
        )

    def lock(self, number, value):
        return self.hear(self.deal.lock(number, value))


def test_the_turns_of_the_facts():
    genesis = genesis_made("a", bytes(16), {}, set(), grace_ms=300_000, window_ms=600_000)
    rules = charter(genesis)
    table = {0: 1, 1000: 1, 1299: 1, 1300: 2, 1899: 2, 1900: 3, 2500: 4, 87_700: 146}
    for seconds, expected in table.items():
        assert turn(1_000_000, seconds * 1_000, rules) == expected
    assert not owner_is_payee(146)
    assert owner(DEAL.channel, 1) == owner(DEAL.channel, 3) == BRUNO.node
    assert owner(DEAL.channel, 2) == owner(DEAL.channel, 146) == ANNA.node


@given(st.integers(0, 1 << 53), st.integers(0, 1 << 53), st.integers(2, 1_000))
def test_turns_follow_each_other_and_never_go_back(expiry_ms, now_ms, later):
    one = turn(expiry_ms, now_ms, CHARTER)
    assert 1 <= one <= turn(expiry_ms, now_ms + later, CHARTER) <= TURN_MAX
    begins = turn_begins_ms(expiry_ms, later, CHARTER)
    assert (turn(expiry_ms, begins - 1, CHARTER), turn(expiry_ms, begins, CHARTER)) == (
        later - 1,
        later,
    )


def test_two_phases_settle_a_channel():
    homes = [Home(number) for number in range(3)]
    proposal = Proposal(DEAL.id, 1, 35)
    votes = [home.propose(1, 35).vote for home in homes]
    seals = [prepare_seal(vote, proposal, CHARTER) for vote in votes]
    assert prepared_made(proposal, seals[:2], CHARTER) is None
    certificate = prepared_made(proposal, seals, CHARTER)
    assert certificate == prepared(DEAL.id, 1, 35)
    prepared_checked(certificate, CHARTER)
    votes = [home.lock(1, 35).vote for home in homes]
    seals = [commit_seal(vote, certificate, CHARTER) for vote in votes]
    assert settlement_made(certificate, seals[:2], CHARTER) is None
    settlement = settlement_made(certificate, seals, CHARTER)
    assert settlement == settled(DEAL.id, 35)
    settlement_checked(settlement, CHARTER)


def test_s1_a_commit_is_reported_in_every_later_turn():
    home = Home()
    first = home.propose(1, 35)
    assert isinstance(first, Prepared)
    assert home.propose(1, 35) == first
    assert home.propose(1, 20) == Code.VOTED_OTHER
    assert isinstance(home.lock(1, 35), Committed)
    said = home.ask(2)
    assert isinstance(said, Reported)
    assert home.ask(2) == said
    assert report_checked(said.shown, DEAL.id, 2, CHARTER).locked == Locked(1, 35)
    assert home.propose(1, 35) == home.lock(1, 35) == Code.OLD_TURN


def test_s2_a_promise_ends_all_earlier_turns():
    home = Home()
    assert report_checked(home.ask(2).shown, DEAL.id, 2, CHARTER).locked is None
    assert home.propose(1, 35) == home.lock(1, 35) == Code.OLD_TURN
    assert isinstance(home.propose(2, 0, DEAL.reports(2, None, None, None)), Prepared)
    assert report_checked(home.ask(4).shown, DEAL.id, 4, CHARTER).locked is None
    assert home.lock(2, 0) == home.ask(3) == Code.OLD_TURN


def test_s3_the_highest_lock_forces_the_value():
    reports = DEAL.reports(3, None, (1, 35), (2, 0))
    assert highest_lock(reports, DEAL.id, 3, CHARTER) == Locked(2, 0)
    assert Home().propose(3, 35, reports) == Code.BAD_PROOF
    assert isinstance(Home().propose(3, 0, reports), Prepared)
    forced = DEAL.reports(2, None, (1, 35), None)
    assert isinstance(Home().propose(2, 35, forced, voucher=None, topups=()), Prepared)


def test_s4_one_report_that_does_not_hold_refuses_the_proposal():
    good = DEAL.reports(3, None, (1, 35))
    high = DEAL.report(2, 3, (3, 35))
    other = DEAL.report(2, 3, (2, 35))
    for bad in (
        DEAL.report(2, 3, (2, 35), backed=False),
        high,
        msgspec.structs.replace(other, lock=prepared(DEAL.id, 1, 35)),
        msgspec.structs.replace(DEAL.report(2, 3), lock=prepared(DEAL.id, 1, 35)),
        DEAL.report(1, 3),
    ):
        assert Home().propose(3, 35, [*good, bad]) == Code.BAD_PROOF
    assert Home().propose(3, 35, good) == Code.BAD_PROOF
    for bad, code in (
        (DEAL.report(2, 2), Code.UNEXPECTED),
        (DEAL.report(5, 3), Code.NOT_WITNESS),
        (short(DEAL.report(2, 3, (2, 35))), Code.BAD_CERTIFICATE),
        (forged(DEAL.report(2, 3)), Code.BAD_SIGNATURE),
    ):
        assert Home().propose(3, 35, [*good, bad]) == code


def short(shown):
    lock = replace_fields(shown.lock, seals=shown.lock.seals[:2])
    return msgspec.structs.replace(shown, lock=lock)


def forged(shown):
    return msgspec.structs.replace(shown, report=replace_fields(shown.report, signature=bytes(64)))


def test_who_may_speak_and_when():
    for number, stranger in ((1, ANNA), (2, BRUNO), (3, ANNA), (3, CLARA)):
        assert Home().propose(number, 0, by=stranger) == Code.WRONG_SIGNER
        if number > 1:
            assert Home().ask(number, by=stranger) == Code.WRONG_SIGNER
    assert Home().hear(DEAL.ask(1)) == Code.NOT_THIS_TURN
    # By a clock that says otherwise, or one that is not to be trusted.
    nobody = DEAL.reports(3, None, None, None)
    for clock in (DEAL.clock(2), DEAL.clock(4), DEAL.clock(3, trusted=False)):
        assert Home().hear(DEAL.ask(3), clock) == Code.NOT_THIS_TURN
        assert Home().hear(DEAL.propose(3, 0, nobody), clock) == Code.NOT_THIS_TURN
    # The first turn reads no clock, and a certificate neither.
    assert isinstance(Home().hear(DEAL.propose(1, 0), DEAL.clock(7, trusted=False)), Prepared)
    assert isinstance(Home().hear(DEAL.lock(3, 35), DEAL.clock(7, trusted=False)), Committed)
    assert Home(5).propose(1, 35) == Code.NOT_WITNESS


def test_what_a_value_needs():
    assert isinstance(Home().propose(1, 0, voucher=None, topups=()), Prepared)
    assert isinstance(Home().propose(1, 40, topups=()), Prepared)
    assert isinstance(Home().propose(1, 50), Prepared)
    for code, shown in (
        (Code.BAD_VOUCHER, {"voucher": None}),
        (Code.BAD_VOUCHER, {"voucher": DEAL.voucher(44)}),
        (Code.BAD_VOUCHER, {"voucher": DEAL.voucher(46)}),
        (Code.BAD_VOUCHER, {"voucher": DEAL.voucher(45, lock=bytes(32))}),
        (Code.WRONG_SIGNER, {"voucher": DEAL.voucher(45, by=BRUNO)}),
        (Code.OVERDRAWN, {"topups": ()}),
        (Code.UNEXPECTED, {"topups": (DEAL.topup, DEAL.topup)}),
        (Code.UNEXPECTED, {"topups": (DEAL.open,)}),
        (Code.BAD_CERTIFICATE, {"topups": (bare(DEAL.topup),)}),
    ):
        assert Home().propose(1, 45, **shown) == code
    other = Deal(charter(genesis_made("b", bytes(16), {ANNA.node: 100}, set(CHARTER.witnesses))))
    assert Home().propose(1, 45, voucher=other.voucher(45)) == Code.BAD_SIGNATURE
    assert Home().propose(1, 51) == Code.OVERDRAWN


def bare(certified):
    certificate = certified.certificate
    few = replace_fields(certificate, seals=certificate.seals[:2])
    return replace_fields(certified, certificate=few)


def test_the_open_is_that_of_the_channel():
    ask, foreign = DEAL.propose(1, 35), DEAL.topup
    assert Home().hear(replace_fields(ask, open=foreign)) == Code.NO_CHANNEL
    assert Home().hear(replace_fields(ask, open=bare(DEAL.open))) == Code.BAD_CERTIFICATE
    second = Deal()
    second.anna.add(open_to(BRUNO, 7))
    other = second.anna.certified[-1]
    assert Home().hear(replace_fields(ask, open=other)) == Code.UNEXPECTED
    assert Home().hear(replace_fields(DEAL.ask(2), open=other), DEAL.clock(2)) == Code.UNEXPECTED
    assert Home().hear(replace_fields(DEAL.lock(1, 35), open=other)) == Code.UNEXPECTED
    channel = channel_checked(DEAL.open, CHARTER)
    assert funding_shown(channel, [DEAL.topup], CHARTER) == 50


def test_a_certificate_is_checked_before_it_is_locked():
    home = Home()
    ask = DEAL.lock(1, 35)
    few = replace_fields(ask.certificate, seals=ask.certificate.seals[:2])
    assert home.hear(replace_fields(ask, certificate=few)) == Code.BAD_CERTIFICATE
    assert home.seat == Seat()
    assert isinstance(home.hear(ask), Committed)
    assert home.seat == Seat(promised=1, lock=ask.certificate)
    # More than f lied: it holds to what it has.
    assert home.lock(1, 20) == Code.VOTED_OTHER


def test_a_report_is_repeated_with_the_certificate_that_it_had():
    home = Home()
    home.lock(1, 35)
    said = home.ask(2)
    home.lock(2, 35)
    assert home.seat.lock == prepared(DEAL.id, 2, 35)
    assert home.ask(2) == said
    assert report_checked(said.shown, DEAL.id, 2, CHARTER).locked == Locked(1, 35)


def test_who_holds_the_settlement_answers_everything_with_it():
    home = Home()
    final = settled(DEAL.id, 35)
    home.store.settlements[DEAL.id] = final
    for ask in (DEAL.ask(2), DEAL.propose(1, 20), DEAL.lock(1, 35), DEAL.ask(2, by=CLARA)):
        assert home.hear(ask) == final


def test_who_has_stopped_signs_nothing():
    home = Home()
    home.store.stop = DEAL.open  # A certificate with a seal of its own that it does not remember.
    assert home.propose(1, 35) == home.lock(1, 35) == home.ask(2) == Code.FORGOT


def test_statements_of_one_kind_are_no_others():
    """The same fields under another tag seal nothing else."""
    said = {kind: kind(0, DEAL.id, 1, 35) for kind in (Prepare, Commit)}
    votes = {
        kind: statement_signed(WITNESSES[0], one, CHARTER.network) for kind, one in said.items()
    }
    certificate = prepared(DEAL.id, 1, 35)
    with pytest.raises(RemoteError, match="UNEXPECTED"):
        commit_seal(votes[Prepare], certificate, CHARTER)
    swapped = replace_fields(votes[Commit], signature=votes[Prepare].signature)
    with pytest.raises(RemoteError, match="BAD_SIGNATURE"):
        commit_seal(swapped, certificate, CHARTER)
    as_settled = replace_fields(settled(DEAL.id, 35), seals=certificate.seals)
    with pytest.raises(RemoteError, match="BAD_CERTIFICATE"):
        settlement_checked(as_settled, CHARTER)


@pytest.mark.parametrize("later", ["epoch", "turn", "value", "channel"])
def test_a_certificate_is_for_what_it_says(later):
    changed = {"epoch": 1, "turn": 2, "value": 36, "channel": bytes(32)}[later]
    with pytest.raises(RemoteError, match="BAD_CERTIFICATE"):
        settlement_checked(replace_fields(settled(DEAL.id, 35), **{later: changed}), CHARTER)
    with pytest.raises(RemoteError, match="BAD_CERTIFICATE"):
        prepared_checked(replace_fields(prepared(DEAL.id, 1, 35), **{later: changed}), CHARTER)


def test_a_seat_comes_back_from_its_bytes():
    home = Home()
    home.lock(1, 35)
    home.ask(2)
    home.propose(2, 35, DEAL.reports(2, (1, 35), None, None))
    for seat in (Seat(), home.seat):
        assert seat_decoded(packed(seat)) == seat
    assert home.seat.report == Report(0, DEAL.id, 2, Locked(1, 35))


def test_who_is_shown_its_own_seal_and_does_not_remember_signs_nothing():
    """Its store is an old copy: it says so once, and its seat is from then on what it was shown."""
    deal, home = DEAL, Home(0)
    ask = deal.lock(1, 35)
    answer = home.turns.answer(ask, home.store, Clock(0))
    assert isinstance(answer, Forgotten)
    assert answer.answer.code == Code.FORGOT
    home.store.seats[deal.id] = answer.seat
    assert isinstance(home.lock(1, 35), Committed)
    # Who has prepared it, or has gone further since, remembers.
    home = Home(0)
    home.propose(1, 35)
    assert isinstance(home.lock(1, 35), Committed)
    late = Home(0)
    late.ask(2)
    assert late.lock(1, 35) == Code.OLD_TURN
    # Nor does another value of that turn pass for its own.
    other = Home(0)
    other.propose(1, 20)
    assert isinstance(other.turns.answer(ask, other.store, Clock(0)), Forgotten)


@pytest.mark.parametrize("turn_seen", [2, 4])
def test_a_seat_that_has_promised_less_than_its_own_reports_is_old(turn_seen):
    reports = DEAL.reports(turn_seen, None, None, None)
    home = Home(0)
    ask = DEAL.propose(turn_seen, 0, reports)
    answer = home.turns.answer(ask, home.store, DEAL.clock(turn_seen))
    assert isinstance(answer, Forgotten)
    home.ask(turn_seen)
    assert isinstance(home.propose(turn_seen, 0, reports), Prepared)
    # A stranger to all seals cannot have forgotten any.
    assert isinstance(Home(3).propose(turn_seen, 0, reports), Prepared)
