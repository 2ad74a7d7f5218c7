"""Each money rule: what it lets through, and by which code it refuses."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Code, RemoteError
from protocol.ledger.account import Account, Shown, SourcesNeeded, check, opening
from protocol.ledger.charter import charter, quorum
from protocol.ledger.entry import Claim, Source, change
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    CLARA,
    GENESIS,
    Chain,
    Remembered,
    claim,
    entry_after,
    genesis_of,
    opened_entry,
    pay,
    replace_fields,
    start,
)

PAID = Chain(ANNA).add(pay(CLARA, 30))
OTHER = Chain(BRUNO).add(pay(CLARA, 5))
SHOWN = {PAID.id: PAID.value, OTHER.id: OTHER.value}


def checked(identity, entry, *, before=None, claimed=(), sources=SHOWN, rules=CHARTER):
    opened = opened_entry(identity, entry)
    state = before or opening(rules, identity.node)
    return check(state, Remembered(dict(claimed)), opened, Shown(sources), charter=rules)


def refused(*arguments, **named) -> Code:
    with pytest.raises(RemoteError) as caught:
        checked(*arguments, **named)
    return caught.value.code


def test_an_account_begins_with_what_the_genesis_gives():
    assert start(ANNA) == Account(ANNA.node, 0, CHARTER.network, 100)
    assert start(CLARA) == Account(CLARA.node, 0, CHARTER.network, 0)


def test_a_pay_and_a_claim_move_the_balance():
    entry = entry_after(start(ANNA), pay(BRUNO, 100))
    after = checked(ANNA, entry)
    assert after == Account(ANNA.node, 1, opened_entry(ANNA, entry).id, 0)
    gathered = entry_after(start(CLARA), claim(PAID, OTHER))
    assert checked(CLARA, gathered).balance == 35


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"seq": 2}, Code.MISSING),
        ({"prev": bytes(32)}, Code.LINK_BROKEN),
        ({"balance": 71}, Code.BALANCE_WRONG),
        ({"balance": 69}, Code.BALANCE_WRONG),
        ({"body": pay(BRUNO, 101)}, Code.OVERDRAWN),
        ({"body": pay(BRUNO, 100), "fee": 1}, Code.OVERDRAWN),
        ({"body": pay(ANNA, 1)}, Code.BAD_MESSAGE),
        ({"body": claim(PAID)}, Code.NOT_PAYEE),
        ({"body": claim(PAID, PAID)}, Code.ALREADY_CLAIMED),
        ({"body": Claim((Source("grant", PAID.id, 1),))}, Code.KIND_NOT_SERVED),
    ],
)
def test_what_does_not_follow_is_refused(changed, code):
    entry = entry_after(start(ANNA), **({"body": pay(BRUNO, 30)} | changed))
    assert refused(ANNA, entry) is code


def test_the_past_stays():
    entry = entry_after(start(ANNA), pay(BRUNO, 30))
    assert refused(ANNA, entry, before=checked(ANNA, entry)) is Code.PAST


def test_a_source_is_claimed_once_and_as_it_is():
    entry = entry_after(start(CLARA), claim(PAID))
    assert refused(CLARA, entry, claimed={("pay", PAID.id): 3}) is Code.ALREADY_CLAIMED
    for amount in (29, 31):
        wrong = entry_after(start(CLARA), claim(PAID, amounts=[amount]))
        assert refused(CLARA, wrong) is Code.AMOUNT_WRONG
    of_claim = opened_entry(CLARA, entry)
    again = entry_after(start(CLARA), claim(of_claim, amounts=[30]))
    assert refused(CLARA, again, sources={of_claim.id: entry}) is Code.NOT_PAYEE


def test_a_claim_says_what_it_needs():
    entry = entry_after(start(CLARA), claim(PAID, OTHER))
    with pytest.raises(SourcesNeeded, match="NEED") as caught:
        checked(CLARA, entry, sources={OTHER.id: OTHER.value})
    assert caught.value.needs == (PAID.id,)


def test_fees_and_minima_are_the_genesis_s():
    rules = charter(replace_fields(GENESIS, entry_fee=3, pay_min=10))
    before = opening(rules, ANNA.node)
    right = entry_after(before, pay(BRUNO, 10), rules, fee=3)
    assert checked(ANNA, right, rules=rules).balance == 87
    more = entry_after(before, pay(BRUNO, 10), rules, fee=4)
    assert checked(ANNA, more, rules=rules).balance == 86
    for body, fee in ((pay(BRUNO, 10), 2), (pay(BRUNO, 9), 3)):
        entry = entry_after(before, body, rules, fee=fee)
        assert refused(ANNA, entry, rules=rules) is Code.AMOUNT_WRONG


@given(st.integers(1, 200), st.integers(0, 200), st.integers(0, 300), st.integers(0, 200))
def test_a_pay_is_taken_if_and_only_if_it_adds_up(amount, fee, balance, had):
    before = Account(ANNA.node, 4, bytes(32), had)
    entry = entry_after(before, pay(BRUNO, amount), fee=fee, balance=balance)
    if had - amount - fee == balance:
        assert checked(ANNA, entry, before=before).balance == balance == had + change(entry)
    else:
        assert refused(ANNA, entry, before=before) in (Code.OVERDRAWN, Code.BALANCE_WRONG)


def test_quorums():
    table = {1: 0, 2: 0, 3: 0, 4: 1, 5: 1, 6: 1, 7: 2, 8: 2, 9: 2, 10: 3, 13: 4}
    needed = {1: 1, 2: 2, 3: 3, 4: 3, 5: 4, 6: 5, 7: 5, 8: 6, 9: 7, 10: 7, 13: 9}
    for witnesses, faulty in table.items():
        assert quorum(witnesses) == (faulty, needed[witnesses])
    for witnesses in range(1, 65):
        faulty, seals = quorum(witnesses)
        assert faulty == (witnesses - 1) // 3
        assert seals == witnesses - faulty
        assert 2 * seals - witnesses >= faulty + 1
    assert quorum(0) == (0, 1)


def test_a_charter_reads_a_genesis_that_keeps_its_rules():
    assert charter(genesis_of(7)).quorum == 5
    assert charter(genesis_of(7)).number(ANNA.node) is None
    assert CHARTER.number(CHARTER.witnesses[2]) == 2
    with pytest.raises(RemoteError, match="BAD_MESSAGE"):
        charter(replace_fields(GENESIS, supply=1))
    assert replace(CHARTER, quorum=2) != CHARTER
