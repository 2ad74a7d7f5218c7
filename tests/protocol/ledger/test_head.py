"""What a node does before its first signature, with every backup and every set of answers."""

from itertools import combinations, product

import pytest

from protocol.errors import RemoteError
from protocol.ledger.account import Account
from protocol.ledger.head import Adopt, GoOn, Journal, Resubmit, Stop, Wait, next_step, view_checked
from protocol.ledger.sync import OwnState
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    Chain,
    Remembered,
    entry_after,
    pay,
    sealed,
    signed_entry,
    start,
    with_seals,
)

CHAIN = Chain(ANNA)
STATES = [CHAIN.state]
for amount in (5, 6, 7):
    CHAIN.add(pay(BRUNO, amount))
    STATES.append(CHAIN.state)


def next_signed(state: Account, amount: int):
    return signed_entry(ANNA, entry_after(state, pay(BRUNO, amount)))


def journal(seq: int, pending=None, *, restored: bool = False) -> Journal:
    return Journal(STATES[seq], Remembered(), pending, restored)


def view(seq: int, voted=None):
    head = CHAIN.certified[seq - 1] if seq else None
    return view_checked(OwnState(head, voted, None), ANNA.node, CHARTER)


def step(own: Journal, *views, override: bool = False):
    return next_step(own, dict(enumerate(views)), CHARTER, override=override)


def test_a_journal_that_knows_all_goes_on_after_a_quorum():
    assert step(journal(2), view(2), view(2)) == Wait(3, False)
    assert step(journal(2), view(2), view(1), view(0)) == GoOn()
    assert step(journal(0), view(0), view(0), view(0)) == GoOn()


def test_an_own_pending_entry_is_sent_again():
    pending = next_signed(STATES[2], 9)
    assert step(journal(2, pending), view(2), view(2), view(2)) == Resubmit(pending)
    assert step(journal(2, pending), view(2, pending), view(2), view(2)) == Resubmit(pending)
    final = sealed(pending)
    known = view_checked(OwnState(final, None, None), ANNA.node, CHARTER)
    assert step(journal(2, pending), known, view(2), view(2)) == Adopt(final, 3)


def test_an_old_journal_waits_for_all_and_then_catches_up():
    newer = (view(3), view(1), view(0))
    assert step(journal(1), *newer) == Wait(4, True)
    assert step(journal(1), *newer, view(0)) == Adopt(CHAIN.certified[2], 2)
    assert step(journal(1), *newer, override=True) == Adopt(CHAIN.certified[2], 2)
    # It is remembered over a restart, also when the chain was adopted and nothing looks newer.
    assert step(journal(3, restored=True), *newer) == Wait(4, True)
    assert step(journal(3, restored=True), *newer, view(3)) == GoOn()


def test_an_entry_that_was_only_voted_for_is_adopted_too():
    lost, rival = next_signed(STATES[1], 20), next_signed(STATES[1], 21)
    some = (view(1, lost), view(1), view(1))
    assert step(journal(1), *some) == Wait(4, True)
    assert step(journal(1), *some, view(1)) == Resubmit(lost)
    assert step(journal(1), *some, override=True) == Resubmit(lost)
    assert step(journal(1), view(1, lost), view(1, rival), view(1, rival), view(1)) == (
        Resubmit(rival)
    )


def test_an_entry_that_honest_witnesses_refuse_may_be_replaced():
    wrong = signed_entry(ANNA, entry_after(STATES[1], pay(BRUNO, 1), balance=99))
    assert step(journal(1), view(1, wrong), view(1), view(1), view(1)) == GoOn()


def test_another_daemon_with_this_key_is_a_reason_to_stop():
    ours, other = next_signed(STATES[1], 20), next_signed(STATES[1], 21)
    answers = (view(1, other), view(1), view(1))
    assert step(journal(1, ours), *answers) == Stop(ours, other)
    assert step(journal(1, ours), *answers, override=True) == Resubmit(other)
    certified = view_checked(OwnState(sealed(other), None, None), ANNA.node, CHARTER)
    assert step(journal(1, ours), certified, view(1), view(1)) == Stop(ours, other)
    assert step(journal(1, ours), certified, view(1), view(1), override=True) == (
        Adopt(sealed(other), 2)
    )


def test_another_head_at_the_same_seq_is_followed_to_its_breach():
    other = Chain(ANNA)
    other.add(pay(BRUNO, 50))
    breach = view_checked(OwnState(other.certified[0], None, None), ANNA.node, CHARTER)
    found = step(journal(1), view(1), breach, view(1), view(1))
    assert isinstance(found, Adopt)
    assert found.first_seq == 1


def test_an_answer_counts_only_if_all_in_it_holds():
    certified = CHAIN.certified[0]
    stranger = signed_entry(BRUNO, entry_after(start(BRUNO), pay(ANNA, 1)))
    for answer in (
        OwnState(with_seals(certified, certified.certificate.seals[:2]), None, None),
        OwnState(None, stranger, None),
        OwnState(sealed(stranger), None, None),
        OwnState(None, type(stranger)(ANNA.node, stranger.body, stranger.signature), None),
    ):
        with pytest.raises(RemoteError):
            view_checked(answer, ANNA.node, CHARTER)


def test_no_quorum_misses_what_is_certified_and_all_miss_no_vote():
    """Section 2.2's table for n = 4, by the rule itself: one witness is dishonest and hides."""
    lost = next_signed(STATES[1], 20)
    certified = sealed(lost)
    for voters in product([False, True], repeat=3):  # The honest ones that voted for it.
        for answering in (3, 4):
            for chosen in combinations(range(4), answering):
                views = {
                    number: view(1, lost if number < 3 and voters[number] else None)
                    for number in chosen
                }
                found = next_step(journal(1, restored=answering < 4), views, CHARTER)
                if answering == 4:
                    assert found == (Resubmit(lost) if any(voters) else GoOn())
                else:
                    assert found == Wait(4, True)
                # With the dishonest one's vote it may be certified: then a quorum shows it.
                if sum(voters) >= 2:
                    assert next_step(journal(1), views, CHARTER) != GoOn()
    assert certified.entry == lost
