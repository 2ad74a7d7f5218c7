"""Votes and certificates: whose, over what, and how many."""

import pytest

from protocol.envelope import Signed
from protocol.errors import Code, RemoteError
from protocol.ledger.certificate import (
    Certificate,
    Certified,
    Seal,
    Vote,
    certificate_checked,
    certificate_made,
    certified_checked,
    certified_decoded,
    seal_of,
    vote_signed,
)
from protocol.ledger.charter import charter
from protocol.ledger.decoder import packed
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    WITNESSES,
    Chain,
    entry_after,
    genesis_of,
    pay,
    sealed,
    signed_entry,
    start,
    with_seals,
)

SIGNED = signed_entry(ANNA, entry_after(start(ANNA), pay(BRUNO, 30)))
WHOLE = sealed(SIGNED, (0, 1, 2, 3))
SEALS = WHOLE.certificate.seals


def vote(number: int) -> Signed:
    return vote_signed(WITNESSES[number], SIGNED.id, CHARTER.network)


def refused(function, *arguments) -> Code:
    with pytest.raises(RemoteError) as caught:
        function(*arguments)
    return caught.value.code


def test_a_vote_is_the_same_bytes_each_time_and_makes_a_seal():
    assert vote(1) == vote(1)
    assert seal_of(vote(1), SIGNED.id, CHARTER) == Seal(1, vote(1).signature)


def test_a_vote_of_another_for_another_or_of_nobody_is_refused():
    stranger = vote_signed(BRUNO, SIGNED.id, CHARTER.network)
    assert refused(seal_of, stranger, SIGNED.id, CHARTER) is Code.NOT_WITNESS
    assert refused(seal_of, vote(1), bytes(32), CHARTER) is Code.UNEXPECTED
    epoch = Signed(WITNESSES[1].node, packed(Vote(1, SIGNED.id)), vote(1).signature)
    assert refused(seal_of, epoch, SIGNED.id, CHARTER) is Code.UNEXPECTED
    swapped = Signed(WITNESSES[1].node, vote(1).body, vote(2).signature)
    assert refused(seal_of, swapped, SIGNED.id, CHARTER) is Code.BAD_SIGNATURE
    elsewhere = vote_signed(WITNESSES[1], SIGNED.id, bytes(32))
    assert refused(seal_of, elsewhere, SIGNED.id, CHARTER) is Code.BAD_SIGNATURE


def test_a_certificate_takes_a_quorum_of_different_witnesses():
    seals = [seal_of(vote(number), SIGNED.id, CHARTER) for number in (3, 0, 2)]
    assert certificate_made(SIGNED.id, seals[:2], CHARTER) is None
    assert certificate_made(SIGNED.id, [seals[0]] * 3, CHARTER) is None
    made = certificate_made(SIGNED.id, [*seals, seals[0]], CHARTER)
    assert [seal.witness for seal in made.seals] == [0, 2, 3]
    certificate_checked(made, CHARTER)
    assert certified_checked(Certified(SIGNED, made), CHARTER).id == SIGNED.id


@pytest.mark.parametrize(
    "seals",
    [
        SEALS[:2],
        (),
        (SEALS[0], SEALS[1], SEALS[1]),
        (SEALS[0], SEALS[2], SEALS[1]),
        (SEALS[0], SEALS[1], Seal(2, SEALS[3].signature)),
        (SEALS[0], SEALS[1], Seal(4, SEALS[2].signature)),
        (*SEALS[:3], Seal(3, bytes(64))),
    ],
)
def test_seals_too_few_twice_unordered_or_forged(seals):
    assert refused(certified_checked, with_seals(WHOLE, seals), CHARTER) is Code.BAD_CERTIFICATE


def test_a_certificate_is_for_its_entry_epoch_and_network():
    other = signed_entry(ANNA, entry_after(start(ANNA), pay(BRUNO, 31)))
    moved = Certified(other, WHOLE.certificate)
    assert refused(certified_checked, moved, CHARTER) is Code.BAD_CERTIFICATE
    renamed = Certified(other, Certificate(other.id, 0, SEALS))
    assert refused(certified_checked, renamed, CHARTER) is Code.BAD_CERTIFICATE
    later = Certified(SIGNED, Certificate(SIGNED.id, 1, SEALS))
    assert refused(certified_checked, later, CHARTER) is Code.BAD_CERTIFICATE
    seven = charter(genesis_of(7))
    assert refused(certificate_checked, WHOLE.certificate, seven) is Code.BAD_CERTIFICATE


def test_the_author_s_signature_counts_beside_the_seals():
    torn = Certified(Signed(SIGNED.signer, SIGNED.body, bytes(64)), WHOLE.certificate)
    assert refused(certified_checked, torn, CHARTER) is Code.BAD_SIGNATURE


@pytest.mark.parametrize("witnesses", [1, 2, 3, 4, 7])
def test_every_size_of_network_certifies_with_its_quorum_only(witnesses):
    rules = charter(genesis_of(witnesses))
    chain = Chain(ANNA, rules)
    chain.add(pay(BRUNO, 1), range(rules.quorum))
    chain.add(pay(BRUNO, 1), range(witnesses))
    chain.add(pay(BRUNO, 1), range(rules.quorum - 1))
    one, two, three = chain.certified
    certified_checked(one, rules)
    certified_checked(two, rules)
    assert refused(certified_checked, three, rules) is Code.BAD_CERTIFICATE
    assert certified_decoded(packed(two)) == two
