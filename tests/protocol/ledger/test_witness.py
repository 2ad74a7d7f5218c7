"""The witness rule: the vectors V1 to V4 of the model check, and each refusal."""

from dataclasses import replace

import pytest

from protocol.envelope import Signed
from protocol.errors import Code, RemoteError
from protocol.identity import Identity, Seed
from protocol.ledger.account import Account
from protocol.ledger.certificate import Certified, Seal, vote_signed
from protocol.ledger.entry import Claim, Source
from protocol.ledger.proof import breach_checked, contradiction_checked
from protocol.ledger.sync import Refusal
from protocol.ledger.witness import (
    Applied,
    Follower,
    Forgot,
    Halted,
    Known,
    Missing,
    Witness,
)
from protocol.limits import VOTE_BURST_ENTRIES
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    CLARA,
    WITNESSES,
    Chain,
    Store,
    claim,
    entry_after,
    follow_all,
    moved,
    pay,
    sealed,
    signed_entry,
    start,
    with_seals,
)


class Home:
    """A witness, its store, and the shell's part: store, then answer."""

    def __init__(self, number: int = 0) -> None:
        self.identity = WITNESSES[number]
        self.store = Store()
        self.witness = Witness(CHARTER, self.identity.node)

    def ask(self, signed, *proofs, now_ms: int = 0):
        """The signed vote, or the refusal."""
        decision = self.witness.on_request(signed, proofs, self.store, now_ms)
        if isinstance(decision.answer, Refusal):
            return decision.answer
        if decision.answer.fresh:
            self.store.vote(decision.answer.entry, decision.answer.opened.value)
        return vote_signed(self.identity, decision.answer.opened.id, CHARTER.network)

    def take(self, certified):
        outcome = self.witness.on_certificate(certified, self.store)
        match outcome:
            case Applied():
                self.store.apply(outcome)
            case Halted(stop) | Forgot(stop):
                self.store.stop = stop
        return outcome


@pytest.fixture
def home():
    return Home()


def first(identity, body, **changed):
    return signed_entry(identity, entry_after(start(identity), body, **changed))


def second(identity, before, body, **changed):
    """The entry after the one in `before`, a signed pay of 30 from Anna's 100."""
    return signed_entry(
        identity, entry_after(Account(identity.node, 1, before.id, 70), body, **changed)
    )


def test_v1_one_vote_for_a_place(home):
    one, rival = first(ANNA, pay(BRUNO, 30)), first(ANNA, pay(BRUNO, 31))
    vote = home.ask(one)
    assert vote == home.ask(one)
    refused = home.ask(rival)
    assert (refused.code, refused.shown) == (Code.VOTED_OTHER, one)
    after = home.ask(second(ANNA, one, pay(BRUNO, 1)))
    assert (after.code, after.missing_seq) == (Code.MISSING, 1)


def test_v2_nobody_spends_more_than_there_is(home):
    one = first(ANNA, pay(BRUNO, 30))
    home.take(sealed(one, (1, 2, 3)))
    refused = home.ask(second(ANNA, one, pay(BRUNO, 71)))
    assert refused.code == Code.OVERDRAWN
    assert home.store.account(ANNA.node).balance == 70
    assert home.ask(second(ANNA, one, pay(BRUNO, 70))).signer == home.identity.node


def test_v3_the_certificate_wins_over_the_own_vote(home):
    one, rival = first(ANNA, pay(BRUNO, 30)), first(ANNA, pay(BRUNO, 31))
    home.ask(one)
    outcome = home.take(sealed(rival, (1, 2, 3)))
    assert isinstance(outcome, Applied)
    assert contradiction_checked(outcome.contradiction, CHARTER) == ANNA.node
    assert home.store.account(ANNA.node) == Account(ANNA.node, 1, rival.id, 69)
    assert home.ask(second(ANNA, one, pay(BRUNO, 1))).code == Code.LINK_BROKEN
    right = entry_after(home.store.account(ANNA.node), pay(BRUNO, 1))
    assert home.ask(signed_entry(ANNA, right)).signer == home.identity.node


def test_v4_a_claim_shows_the_certificate_of_its_source(home):
    chain = Chain(ANNA)
    paid = chain.add(pay(CLARA, 30))
    proof = chain.certified[0]
    asked = first(CLARA, claim(paid))
    need = home.ask(asked)
    assert (need.code, need.needs) == (Code.NEED, (paid.id,))
    for wrong, code in (
        (claim(paid, paid), Code.ALREADY_CLAIMED),
        (claim(paid, amounts=[29]), Code.AMOUNT_WRONG),
        (claim(paid, amounts=[31]), Code.AMOUNT_WRONG),
    ):
        assert home.ask(first(CLARA, wrong), proof).code == code
    assert home.ask(first(BRUNO, claim(paid)), proof).code == Code.NOT_PAYEE
    assert home.ask(asked, proof).signer == home.identity.node
    assert home.ask(asked).signer == home.identity.node  # Again, now without the proof.


def test_what_was_refused_is_not_held_against_a_right_entry(home):
    assert home.ask(first(ANNA, pay(BRUNO, 101))).code == Code.OVERDRAWN
    assert home.ask(first(ANNA, pay(BRUNO, 100))).signer == home.identity.node


def test_a_claim_without_a_quorum_or_with_a_forged_seal_is_refused(home):
    paid = first(ANNA, pay(CLARA, 30))
    asked = first(CLARA, Claim((Source("pay", paid.id, 30),)))
    assert home.ask(asked, sealed(paid, (0, 1))).code == Code.BAD_CERTIFICATE
    whole = sealed(paid)
    forged = with_seals(whole, [whole.certificate.seals[0]] * 3)
    assert home.ask(asked, forged).code == Code.BAD_CERTIFICATE
    assert home.ask(asked, sealed(first(BRUNO, pay(CLARA, 30)))).code == Code.NEED


def test_a_certified_place_is_past_and_shown(home):
    one, rival = first(ANNA, pay(BRUNO, 30)), first(ANNA, pay(BRUNO, 31))
    certified = sealed(one, (1, 2, 3))
    home.take(certified)
    refused = home.witness.on_request(rival, (), home.store, 0)
    assert (refused.answer.code, refused.answer.shown) == (Code.PAST, certified)
    assert contradiction_checked(refused.contradiction, CHARTER) == ANNA.node
    again = home.witness.on_request(one, (), home.store, 0)
    assert (again.answer.code, again.contradiction) == (Code.PAST, None)


def test_a_second_entry_with_a_mistake_is_no_contradiction(home):
    one = first(ANNA, pay(BRUNO, 30))
    home.ask(one)
    for wrong in (
        first(ANNA, pay(BRUNO, 31), balance=70),
        first(ANNA, pay(BRUNO, 31), prev=bytes(32)),
        first(ANNA, pay(ANNA, 31)),
    ):
        decision = home.witness.on_request(wrong, (), home.store, 0)
        assert (decision.answer.code, decision.contradiction) == (Code.VOTED_OTHER, None)


def test_certificates_come_in_any_order_and_twice(home):
    chain = Chain(ANNA)
    for amount in (1, 2, 3):
        chain.add(pay(BRUNO, amount), (1, 2, 3))
    one, two, three = chain.certified
    assert home.take(three) == Missing(ANNA.node, 1)
    assert isinstance(home.take(one), Applied)
    assert home.take(one) == Known()
    assert home.take(three) == Missing(ANNA.node, 2)
    assert isinstance(home.take(two), Applied)
    assert isinstance(home.take(three), Applied)
    assert home.store.account(ANNA.node) == chain.state


def test_a_repeat_changes_nothing_and_a_bad_seal_is_refused(home):
    certified = sealed(first(ANNA, pay(BRUNO, 1)), (1, 2, 3))
    bare = with_seals(certified, certified.certificate.seals[:2])
    with pytest.raises(RemoteError, match="BAD_CERTIFICATE"):
        home.take(bare)
    home.take(certified)
    assert home.take(bare) == Known()
    assert home.store.certified(ANNA.node, 1) == certified


def test_two_certificates_for_one_place_halt_all(home):
    one, rival = first(ANNA, pay(BRUNO, 30)), first(ANNA, pay(BRUNO, 31))
    home.take(sealed(one, (1, 2, 3)))
    outcome = home.take(sealed(rival, (1, 2, 3)))
    assert isinstance(outcome, Halted)
    assert breach_checked(outcome.breach, CHARTER) == ANNA.node
    refused = home.ask(first(BRUNO, pay(ANNA, 1)))
    assert (refused.code, refused.shown) == (Code.HALTED, outcome.breach)
    with pytest.raises(RemoteError, match="HALTED"):
        home.take(sealed(one))


def breaches():
    """Certified entries that follow from nothing, each after the chain it comes to."""
    yield "wrong first balance", [], sealed(first(ANNA, pay(BRUNO, 1), balance=100), (1, 2, 3))
    yield "wrong first link", [], sealed(first(ANNA, pay(BRUNO, 1), prev=bytes(32)), (1, 2, 3))
    chain, others = Chain(ANNA), (1, 2, 3)
    one = chain.add(pay(BRUNO, 30), others)
    for name, wrong in (
        ("wrong balance", {"balance": 70}),
        ("wrong link", {"prev": bytes(32)}),
        ("a pay to oneself", {"body": pay(ANNA, 1)}),
    ):
        entry = entry_after(chain.state, **({"body": pay(BRUNO, 1)} | wrong))
        yield name, chain.certified, sealed(signed_entry(ANNA, entry), others)
    payee = Chain(BRUNO)
    for _ in range(2):
        payee.add(claim(one), others)
    yield "claimed twice", payee.certified[:1], payee.certified[1]
    payee = Chain(BRUNO)
    payee.add(claim(one), others)
    payee.add(pay(ANNA, 1), others)
    payee.add(claim(one), others)
    yield "claimed twice, not in a row", payee.certified[:2], payee.certified[2]


@pytest.mark.parametrize(
    ("before", "wrong"),
    [pytest.param(*each[1:], id=each[0]) for each in breaches()],
)
def test_what_no_honest_quorum_certifies_halts_with_a_proof(home, before, wrong):
    follow_all(home.witness, home.store, before)
    outcome = home.take(wrong)
    assert isinstance(outcome, Halted)
    breach_checked(outcome.breach, CHARTER)
    assert home.store.stop is not None


def test_a_later_kind_of_claim_is_refused_by_name_and_breaks_nothing(home):
    later = first(CLARA, Claim((Source("grant", bytes(32), 5),)))
    assert home.ask(later).code == Code.KIND_NOT_SERVED
    with pytest.raises(RemoteError, match="KIND_NOT_SERVED"):
        home.take(sealed(later, (1, 2, 3)))


def test_a_witness_with_an_old_store_meets_its_own_seal_and_votes_no_more(home):
    old = first(ANNA, pay(BRUNO, 30))
    certified = sealed(old, (0, 1, 2))
    assert home.take(certified) == Forgot(certified)
    refused = home.ask(first(BRUNO, pay(ANNA, 1)))
    assert (refused.code, refused.shown) == (Code.FORGOT, certified)
    assert isinstance(home.take(certified), Applied)  # It follows on all the same.
    home.store.stop = None  # Its owner has read why.
    assert home.ask(first(BRUNO, pay(ANNA, 1))).signer == home.identity.node


def test_an_own_seal_far_ahead_or_over_a_rival_is_forgotten_too(home):
    chain = Chain(ANNA)
    for _ in range(2):
        chain.add(pay(BRUNO, 1))
    assert isinstance(home.witness.on_certificate(chain.certified[1], home.store), Forgot)
    home.ask(first(ANNA, pay(BRUNO, 7)))
    assert isinstance(home.witness.on_certificate(chain.certified[0], home.store), Forgot)


def test_a_remembered_vote_is_no_surprise(home):
    one = first(ANNA, pay(BRUNO, 30))
    home.ask(one)
    assert isinstance(home.take(sealed(one)), Applied)


def test_who_is_no_witness_says_so_and_follows():
    node = Identity(Seed(bytes([9]) * 32)).node
    decision = Witness(CHARTER, node).on_request(first(ANNA, pay(BRUNO, 1)), (), Store(), 0)
    assert decision.answer.code == Code.NOT_WITNESS
    store = Store()
    follow_all(Follower(CHARTER, node), store, [sealed(first(ANNA, pay(BRUNO, 1)))])
    assert store.account(ANNA.node).balance == 99


def test_a_flood_of_entries_waits(home):
    state = start(ANNA)
    for number in range(VOTE_BURST_ENTRIES):
        entry = entry_after(state, pay(BRUNO, 1))
        signed = signed_entry(ANNA, entry)
        assert home.ask(signed, now_ms=1_000).signer == home.identity.node, number
        home.take(sealed(signed))
        state = moved(state, signed, entry)
    following = signed_entry(ANNA, entry_after(state, pay(BRUNO, 1)))
    busy = home.ask(following, now_ms=1_250)
    assert (busy.code, busy.retry_ms) == (Code.BUSY, 750)
    assert home.ask(first(BRUNO, pay(ANNA, 1)), now_ms=1_250).signer == home.identity.node
    assert home.ask(following, now_ms=2_000).signer == home.identity.node
    assert home.ask(following, now_ms=2_000).signer == home.identity.node  # Again is free.


def test_what_is_not_signed_by_its_account_is_refused(home):
    entry = entry_after(start(ANNA), pay(BRUNO, 1))
    assert home.ask(signed_entry(BRUNO, entry)).code == Code.WRONG_SIGNER
    signed = signed_entry(ANNA, entry)
    torn = replace_signature(signed, bytes(64))
    assert home.ask(torn).code == Code.BAD_SIGNATURE
    other = replace(CHARTER, network=bytes(32))
    assert home.ask(signed_entry(ANNA, entry, other)).code == Code.BAD_SIGNATURE
    assert home.store.votes == {}


def replace_signature(signed, signature):
    return type(signed)(signed.signer, signed.body, signature)


def test_a_vote_spares_no_check_of_other_bytes(home):
    """What was voted for need not have its author's signature checked again; all else must."""
    signed = signed_entry(ANNA, entry_after(start(ANNA), pay(BRUNO, 60)))
    home.ask(signed)
    certified = sealed(signed)
    resigned = Signed(signed.signer, signed.body, bytes(64))
    with pytest.raises(RemoteError) as refused:
        home.take(Certified(resigned, certified.certificate))
    assert refused.value.code is Code.BAD_SIGNATURE
    forged = with_seals(certified, [*certified.certificate.seals[:2], Seal(3, bytes(64))])
    other = sealed(signed_entry(ANNA, entry_after(start(ANNA), pay(BRUNO, 61)))).certificate
    for wrong in (forged, Certified(signed, other)):
        with pytest.raises(RemoteError) as refused:
            home.take(wrong)
        assert refused.value.code is Code.BAD_CERTIFICATE
    assert isinstance(home.take(certified), Applied)
