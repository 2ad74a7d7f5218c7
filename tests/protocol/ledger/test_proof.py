"""Proofs: what they show, that their form is one, and that nobody can make one of nothing."""

import pytest

from protocol.errors import Code, RemoteError
from protocol.ledger.decoder import packed
from protocol.ledger.entry import Claim, Source
from protocol.ledger.proof import (
    Breach,
    Contradiction,
    breach_checked,
    breach_decoded,
    breach_made,
    contradiction_checked,
    contradiction_decoded,
    contradiction_made,
)
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    CLARA,
    Chain,
    claim,
    entry_after,
    pay,
    sealed,
    signed_entry,
    start,
    with_seals,
)


def first(identity, body, **changed):
    return signed_entry(identity, entry_after(start(identity), body, **changed))


ONE, OTHER = first(ANNA, pay(BRUNO, 30)), first(ANNA, pay(BRUNO, 31))


def test_two_entries_for_one_place_contradict_each_other_in_one_form():
    proof = contradiction_made(ONE, OTHER, CHARTER)
    assert proof == contradiction_made(OTHER, ONE, CHARTER)
    assert contradiction_decoded(packed(proof)) == proof
    assert contradiction_checked(proof, CHARTER) == ANNA.node
    turned = Contradiction(proof.second, proof.first)
    with pytest.raises(RemoteError, match="BAD_PROOF"):
        contradiction_checked(turned, CHARTER)


@pytest.mark.parametrize(
    "other",
    [
        ONE,
        first(BRUNO, pay(ANNA, 30)),
        first(ANNA, pay(BRUNO, 31), prev=bytes(32)),
        first(ANNA, pay(BRUNO, 31), balance=70),
        first(ANNA, pay(BRUNO, 31), seq=2),
        first(ANNA, pay(ANNA, 31)),
        first(ANNA, Claim((Source("grant", bytes(32), 1),))),
        type(ONE)(OTHER.signer, OTHER.body, bytes(64)),
    ],
    ids=["same", "account", "prev", "balance", "seq", "self", "kind", "unsigned"],
)
def test_what_an_honest_witness_refuses_contradicts_nothing(other):
    assert contradiction_made(ONE, other, CHARTER) is None
    assert contradiction_made(other, ONE, CHARTER) is None


def test_two_certificates_for_one_place_are_a_breach():
    breach = breach_made((sealed(OTHER), sealed(ONE)), CHARTER)
    assert breach == breach_made((sealed(ONE), sealed(OTHER)), CHARTER)
    assert breach_decoded(packed(breach)) == breach
    assert breach_checked(breach, CHARTER) == ANNA.node
    with pytest.raises(RemoteError, match="BAD_PROOF"):
        breach_checked(Breach(breach.certified[::-1]), CHARTER)


def right_chain():
    chain, payee = Chain(ANNA), Chain(CLARA)
    paid = [chain.add(pay(CLARA, amount)) for amount in (1, 2)]
    payee.add(claim(paid[0]))
    payee.add(claim(paid[1]))
    return [*chain.certified, *payee.certified]


def test_what_honest_witnesses_certify_is_no_breach():
    right = right_chain()
    for one in right:
        assert breach_made((one,), CHARTER) is None
        for other in right:
            assert breach_made((one, other), CHARTER) is None
    later = sealed(first(CLARA, Claim((Source("grant", bytes(32), 1),))))
    assert breach_made((later,), CHARTER) is None


def test_a_breach_needs_whole_certificates():
    few = with_seals(sealed(OTHER), sealed(OTHER).certificate.seals[:2])
    assert breach_made((sealed(ONE), few), CHARTER) is None
    with pytest.raises(RemoteError) as caught:
        breach_checked(Breach((sealed(ONE), few)), CHARTER)
    assert caught.value.code is Code.BAD_CERTIFICATE
