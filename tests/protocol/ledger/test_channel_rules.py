"""The rules of channels on a chain: open, top-up, and what settled channels and fees give."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Code, RemoteError
from protocol.ledger.account import Account, Shown, SourcesNeeded, check, follow
from protocol.ledger.charter import charter
from protocol.ledger.decoder import packed
from protocol.ledger.entry import Claim, Source, TopUp, entry_opened
from protocol.ledger.genesis import genesis_made
from protocol.ledger.proof import Breach, breach_checked, breach_decoded
from protocol.ledger.witness import (
    Applied,
    Cast,
    Final,
    Follower,
    Halted,
    Known,
    Refusal,
    Witness,
)
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    CLARA,
    WITNESSES,
    Remembered,
    Store,
    entry_after,
    follow_all,
    opened_entry,
    pay,
    replace_fields,
    sealed,
    signed_entry,
    start,
)
from tests.protocol.ledger.channels import (
    Deal,
    claim_of,
    earned,
    fee,
    open_to,
    rest,
    settled,
)

DEAL = Deal()
OPENED = opened_entry(ANNA, entry_after(start(ANNA), open_to(BRUNO, 40))).value
PAID = settled(DEAL.id, 35)
ALL = Shown({DEAL.id: OPENED}, {DEAL.id: PAID})
FUNDED = Remembered({}, {DEAL.id: 50})


def judged(identity, body, *, past=FUNDED, shown=ALL, had=None, rules=CHARTER) -> Code | int:
    """The balance after an entry with this body, or why it is refused."""
    before = Account(identity.node, 4, bytes(32), 50 if had is None else had)
    entry = entry_after(before, body, rules, fee=rules.entry_fee)
    try:
        return check(before, past, opened_entry(identity, entry), shown, charter=rules).balance
    except RemoteError as error:
        return error.code


def test_an_open_moves_its_deposit_whatever_the_hour():
    assert judged(ANNA, open_to(BRUNO, 40)) == 10
    assert judged(ANNA, open_to(BRUNO, 50, expiry_ms=0)) == 0  # Long past: V5.
    assert judged(ANNA, open_to(BRUNO, 51)) is Code.OVERDRAWN
    assert judged(ANNA, open_to(ANNA, 1)) is Code.BAD_MESSAGE


def test_a_top_up_is_of_an_own_channel_whose_rest_is_there():
    assert judged(ANNA, TopUp(DEAL.id, 10)) == 40
    assert judged(ANNA, TopUp(DEAL.id, 51)) is Code.OVERDRAWN
    assert judged(ANNA, TopUp(bytes(32), 10)) is Code.NO_CHANNEL
    assert judged(ANNA, TopUp(DEAL.id, 10), past=Remembered()) is Code.NO_CHANNEL
    taken = replace(FUNDED, claimed={("rest", DEAL.id): 3})
    assert judged(ANNA, TopUp(DEAL.id, 10), past=taken) is Code.CHANNEL_CLOSED
    paid = replace(FUNDED, claimed={("pay", DEAL.id): 3, ("fee", DEAL.id): 3})
    assert judged(ANNA, TopUp(DEAL.id, 10), past=paid) == 40


def test_v6_to_v8_a_channel_on_its_payer_s_chain():
    store, follower = Store(), Follower(CHARTER, CLARA.node)
    follow_all(follower, store, DEAL.anna.certified)
    assert (store.account(ANNA.node).balance, store.funding(ANNA.node, DEAL.id)) == (50, 50)
    for amount, code in ((5, Code.AMOUNT_WRONG), (16, Code.AMOUNT_WRONG), (15, 65)):
        assert judged(ANNA, claim_of(rest(DEAL.id, amount))) == code
    taken = replace(FUNDED, claimed={("rest", DEAL.id): 3})
    assert judged(ANNA, claim_of(rest(DEAL.id, 15)), past=taken) is Code.ALREADY_CLAIMED
    assert judged(ANNA, claim_of(rest(DEAL.id, 15), rest(DEAL.id, 15))) is Code.ALREADY_CLAIMED


def test_a_rest_is_of_an_own_channel_and_what_was_settled_leaves():
    assert judged(BRUNO, claim_of(rest(DEAL.id, 15)), past=Remembered()) is Code.NO_CHANNEL
    assert judged(ANNA, claim_of(rest(DEAL.id, 51))) is Code.AMOUNT_WRONG
    bare = Shown({}, {DEAL.id: PAID})  # The chain itself has the open.
    assert judged(ANNA, claim_of(rest(DEAL.id, 15)), shown=bare) == 65
    whole = Shown({}, {DEAL.id: settled(DEAL.id, 0)})
    assert judged(ANNA, claim_of(rest(DEAL.id, 50)), shown=whole) == 100


def test_what_was_earned_is_the_payee_s():
    assert judged(BRUNO, claim_of(earned(DEAL.id, 35)), past=Remembered()) == 85
    for amount in (34, 36, 50):
        assert judged(BRUNO, claim_of(earned(DEAL.id, amount))) is Code.AMOUNT_WRONG
    for other in (ANNA, CLARA):
        assert judged(other, claim_of(earned(DEAL.id, 35))) is Code.NOT_PAYEE
    no_open = Shown(
        {DEAL.id: opened_entry(ANNA, entry_after(start(ANNA), pay(BRUNO, 35))).value},
        {DEAL.id: PAID},
    )
    assert judged(BRUNO, claim_of(earned(DEAL.id, 35)), shown=no_open) is Code.NOT_PAYEE


def test_a_claim_needs_both_open_and_settlement():
    entry = entry_after(start(BRUNO), claim_of(earned(DEAL.id, 35)))
    for shown in (Shown(), replace(ALL, entries={}), replace(ALL, settlements={})):
        with pytest.raises(SourcesNeeded) as caught:
            check(start(BRUNO), Remembered(), opened_entry(BRUNO, entry), shown, charter=CHARTER)
        assert caught.value.needs == (DEAL.id,)
    assert judged(ANNA, claim_of(rest(DEAL.id, 15)), shown=Shown()) is Code.NEED


def test_a_fee_belongs_to_the_witness_of_its_number():
    allocations = dict.fromkeys([ANNA.node, *(one.node for one in WITNESSES[:4])], 100)
    nodes = {one.node for one in WITNESSES[:4]}
    rules = charter(genesis_made("fees", bytes(16), allocations, nodes, entry_fee=3))
    entry = entry_after(start(ANNA, rules), pay(BRUNO, 10), rules, fee=7)
    source = opened_entry(ANNA, entry).id
    number = int.from_bytes(source, "big") % 4
    shown = Shown({source: entry})
    for at, witness in enumerate(WITNESSES[:4]):
        right = at == number
        for amount in (3, 7, 10):
            expected = 50 + amount - 3 if right and amount == 7 else None
            found = judged(witness, claim_of(fee(source, amount)), shown=shown, rules=rules)
            assert found == (expected or (Code.AMOUNT_WRONG if right else Code.NOT_PAYEE))
    assert rules.fee_owner(source) == WITNESSES[number].node


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["pay", "earned", "rest", "fee", "grant"]),
            st.sampled_from([DEAL.id, bytes(32)]),
            st.integers(1, 60),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 60),
    st.booleans(),
)
def test_a_claim_of_channels_never_gives_more_than_was_put_in(sources, value, is_payer):
    """Whatever the list: what passes is the share of one side, once."""
    shown = Shown({DEAL.id: OPENED}, {DEAL.id: settled_at(value)})
    identity, past = (ANNA, FUNDED) if is_payer else (BRUNO, Remembered())
    body = Claim(tuple(Source(*source) for source in sources))
    found = judged(identity, body, shown=shown, past=past)
    share = ("rest", DEAL.id, 50 - value) if is_payer else ("earned", DEAL.id, value)
    if sources == [share]:
        assert found == 50 + share[2]
    else:
        assert isinstance(found, Code)


_SETTLED = {}


def settled_at(value):
    if value not in _SETTLED:
        _SETTLED[value] = settled(DEAL.id, value)
    return _SETTLED[value]


# What a witness does with them.


def asked(store, identity, body, proofs=(), settlements=()):
    signed = signed_entry(identity, entry_after(store.account(identity.node), body))
    witness = Witness(CHARTER, WITNESSES[0].node)
    decision = witness.on_request(signed, proofs, store, 0, settlements=settlements)
    return decision.answer


def test_a_witness_votes_for_shares_that_are_shown():
    store = Store()
    follow_all(Follower(CHARTER, CLARA.node), store, DEAL.anna.certified)
    body = claim_of(earned(DEAL.id, 35))
    needed = asked(store, BRUNO, body)
    assert isinstance(needed, Refusal)
    assert (needed.code, needed.needs) == (Code.NEED, (DEAL.id,))
    assert isinstance(asked(store, BRUNO, body, [DEAL.open], [PAID]), Cast)
    assert isinstance(asked(store, ANNA, claim_of(rest(DEAL.id, 15)), [], [PAID]), Cast)
    few = replace_fields(PAID, seals=PAID.seals[:2])
    refused = asked(store, BRUNO, body, [DEAL.open], [few])
    assert isinstance(refused, Refusal)
    assert refused.code == Code.BAD_CERTIFICATE


def test_a_top_up_after_the_rest_is_a_breach():
    chain = Deal().anna
    chain.add(claim_of(rest(DEAL.id, 15)))
    chain.add(TopUp(DEAL.id, 1))
    store, follower = Store(), Follower(CHARTER, CLARA.node)
    follow_all(follower, store, chain.certified[:-1])
    halted = follower.on_certificate(chain.certified[-1], store)
    assert isinstance(halted, Halted)
    assert breach_checked(halted.breach, CHARTER) == ANNA.node


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (TopUp(bytes(32), 1), Code.NO_CHANNEL),
        (claim_of(rest(DEAL.id, 51)), Code.AMOUNT_WRONG),
        (claim_of(rest(bytes(32), 1)), Code.NO_CHANNEL),
    ],
)
def test_what_only_the_whole_chain_refutes_is_refused_and_stops_that_chain(body, code):
    chain = Deal().anna
    chain.add(body)
    store, follower = Store(), Follower(CHARTER, CLARA.node)
    follow_all(follower, store, chain.certified[:-1])
    with pytest.raises(RemoteError, match=code):
        follower.on_certificate(chain.certified[-1], store)
    assert store.account(ANNA.node).seq == 2
    with pytest.raises(RemoteError, match=code):
        follow(store.account(ANNA.node), FUNDED, opened_last(chain), CHARTER)


def opened_last(chain):
    return entry_opened(chain.certified[-1].entry, CHARTER.network)


# Settlements at whoever keeps chains.


def test_a_settlement_is_stored_once_and_two_values_halt():
    store, follower = Store(), Follower(CHARTER, CLARA.node)
    final = follower.on_settlement(PAID, DEAL.open, store)
    assert final == Final(PAID, DEAL.channel)
    store.settlements[DEAL.id] = PAID
    assert follower.on_settlement(PAID, DEAL.open, store) == Known()
    assert follower.on_settlement(settled(DEAL.id, 35, turn=4), DEAL.open, store) == Known()
    halted = follower.on_settlement(settled(DEAL.id, 20, turn=3), DEAL.open, store)
    assert isinstance(halted, Halted)
    assert breach_checked(halted.breach, CHARTER) == ANNA.node
    assert breach_decoded(packed(halted.breach)) == halted.breach
    store.stop = halted.breach
    with pytest.raises(RemoteError, match="HALTED"):
        follower.on_settlement(PAID, DEAL.open, store)


def test_a_settlement_is_checked_with_its_open():
    store, follower = Store(), Follower(CHARTER, CLARA.node)
    few = replace_fields(PAID, seals=PAID.seals[:2])
    for settlement, shown, code in (
        (few, DEAL.open, Code.BAD_CERTIFICATE),
        (PAID, DEAL.topup, Code.UNEXPECTED),
        (settled(DEAL.topup.entry.id, 35), DEAL.topup, Code.NO_CHANNEL),
    ):
        with pytest.raises(RemoteError, match=code):
            follower.on_settlement(settlement, shown, store)


@pytest.mark.parametrize(
    "breach",
    [
        Breach((DEAL.open,), (PAID,)),
        Breach((DEAL.open,), (PAID, PAID)),
        Breach((DEAL.open,), (PAID, settled(DEAL.id, 20))),
        Breach((DEAL.open, DEAL.topup), (settled(DEAL.id, 20), PAID)),
        Breach((DEAL.open,), (settled(bytes(32), 20), settled(bytes(32), 35))),
        Breach((DEAL.topup,), (settled(DEAL.topup.entry.id, 20), settled(DEAL.topup.entry.id, 35))),
        Breach((DEAL.open,), (replace_fields(PAID, value=20), PAID)),
    ],
    ids=["one", "twice", "order", "two entries", "another channel", "no open", "no certificate"],
)
def test_what_is_no_split_proves_nothing(breach):
    with pytest.raises(RemoteError):
        breach_checked(breach, CHARTER)


def test_one_place_of_two_opens_is_a_breach():
    rival = sealed(signed_entry(ANNA, entry_after(start(ANNA), open_to(CLARA, 40))))
    store, follower = Store(), Follower(CHARTER, CLARA.node)
    outcome = follower.on_certificate(DEAL.open, store)
    assert isinstance(outcome, Applied)
    store.apply(outcome)
    assert isinstance(follower.on_certificate(rival, store), Halted)
