"""The rules that SPEC.md numbers are the code's: the same codes, checked in the same order.

Each case breaks a rule and, as far as they can be broken together, all that come after it; the
code of the refusal must be the one that the specification names for the first of them.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import protocol.limits
from protocol.envelope import Signed
from protocol.errors import Code, RemoteError
from protocol.identity import Identity, Seed
from protocol.ids import MessageId, NetworkId
from protocol.ledger.account import Account, Shown, check
from protocol.ledger.entry import Body, Claim, Entry, Open, Pay, Source, TopUp, change, entry_opened
from protocol.ledger.quota import VoteQuota
from protocol.ledger.sync import Refusal
from protocol.ledger.witness import Cast, Follower, Halted, Known, Witness
from protocol.limits import ENTRY_BYTES_MAX, VOTE_BURST_ENTRIES
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    CLARA,
    WITNESSES,
    Chain,
    Remembered,
    Store,
    entry_after,
    pay,
    sealed,
    signed_entry,
    start,
    with_seals,
)

TEXT = (Path(protocol.limits.__file__).parent / "SPEC.md").read_text(encoding="utf-8")
RULES = replace(CHARTER, entry_fee=2, pay_min=5)
STATE = Account(BRUNO.node, 3, bytes([9]) * 32, 50)
TAKEN, GOOD, ELSEWHERE, SHORT, UNSHOWN = (MessageId(bytes([n]) * 32) for n in range(5))
SHOWN = {
    MessageId(one): Entry(RULES.network, ANNA.node, 1, RULES.network, body, 2, 0)
    for one, body in {
        TAKEN: Pay(BRUNO.node, 30, bytes(32)),
        GOOD: Pay(BRUNO.node, 30, bytes(32)),
        ELSEWHERE: Pay(CLARA.node, 30, bytes(32)),
        SHORT: Pay(BRUNO.node, 29, bytes(32)),
    }.items()
}
OWN, CLOSED = (MessageId(bytes([n]) * 32) for n in (20, 21))
PAST = Remembered({("pay", TAKEN): 2, ("rest", CLOSED): 3}, {OWN: 40, CLOSED: 40})
FOR_ALL = {3, 4, 5, 6, 7, 8, 9, 15, 20}
FOR_ONE = {
    Pay: {10, 11},
    Open: {10},
    TopUp: {16, 17},
    Claim: {12, 13, 14, 18, 19, 21, 22, 23},
}


def told() -> dict[int, set[str]]:
    """The rules as they are numbered, with the codes that each names."""
    found = re.search(r"^### The rules of an account\n(.*?)^#", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None
    numbered = re.findall(r"^(\d+)\. (.*)$", found.group(1), re.MULTILINE)
    codes = {code.value for code in Code}
    return {
        int(number): {word for word in re.findall(r"`(\w+)`", rule) if word in codes}
        for number, rule in numbered
    }


def body_breaking(broken: set[int], kind: type[Body]) -> Body:
    amount = 4 if 11 in broken else 1_000 if 15 in broken else 10
    if kind is Pay:
        return Pay((BRUNO if 10 in broken else CLARA).node, amount, bytes(32))
    if kind is Open:
        return Open((BRUNO if 10 in broken else CLARA).node, amount, 0)
    if kind is TopUp:
        return TopUp(UNSHOWN if 16 in broken else CLOSED if 17 in broken else OWN, amount)
    wrong = {
        23: Source("pay", SHORT, 30),
        22: Source("pay", ELSEWHERE, 30),
        21: Source("pay", UNSHOWN, 30),
        19: Source("rest", OWN, 41),
        18: Source("pay", TAKEN, 30),
        14: Source("pay", GOOD, 30),
        13: Source("fee", GOOD, 2),  # Bruno is no witness.
        12: Source("grant", GOOD, 30),
    }
    sources = [Source("pay", GOOD, 30)]
    for rule in sorted(broken & set(wrong), reverse=True):
        sources.insert(0 if rule == 22 else len(sources), wrong[rule])
    return Claim(tuple(sources))


def breaking(broken: set[int], kind: type[Body]) -> Signed:
    """An entry after STATE that breaks these rules, where one does not hide another."""
    body = body_breaking(broken, kind)
    fee = 1 if 9 in broken else 10_000 if 15 in broken else 2
    entry = Entry(
        network=NetworkId(bytes(32)) if 3 in broken else RULES.network,
        account=(CLARA if 4 in broken else BRUNO).node,
        seq=3 if 6 in broken else 9 if 7 in broken else 4,
        prev=bytes(32) if 8 in broken else STATE.head,
        body=body,
        fee=fee,
        balance=0,
    )
    right = max(0, STATE.balance + change(entry))
    values = {name: getattr(entry, name) for name in entry.__struct_fields__}
    entry = Entry(**values | {"balance": right + 1 if 20 in broken else right})
    signed = signed_entry(BRUNO, entry)
    return Signed(BRUNO.node, signed.body, bytes(64)) if 5 in broken else signed


def judged(signed: Signed) -> Code | None:
    """What becomes of an entry after STATE; None where it is valid."""
    try:
        opened = entry_opened(signed, RULES.network)
        check(STATE, PAST, opened, Shown(SHOWN), charter=RULES)
    except RemoteError as error:
        return error.code
    return None


@pytest.mark.parametrize("kind", FOR_ONE)
def test_an_entry_that_keeps_all_rules_is_valid(kind):
    assert judged(breaking(set(), kind)) is None


@pytest.mark.parametrize(
    ("kind", "first"),
    [(kind, rule) for kind, own in FOR_ONE.items() for rule in sorted(FOR_ALL | own)],
)
def test_the_first_rule_that_is_broken_names_the_refusal(kind, first):
    rules = FOR_ALL | FOR_ONE[kind]
    for broken in ({first}, {rule for rule in rules if rule >= first}):
        assert judged(breaking(broken, kind)) in told()[first], (first, broken)


def test_bytes_come_before_all_rules_and_later_kinds_are_named():
    whole = breaking({3, 4, 5}, Pay).body
    codes = {
        judged(Signed(BRUNO.node, data, bytes(64)))
        for data in (bytes(ENTRY_BYTES_MAX + 1), whole + b"\x00", b"\xc0")
    }
    assert codes == told()[1]
    later = whole.replace(b"\x94\xa3pay", b"\x94\xa6ballot")
    assert {judged(Signed(BRUNO.node, later, bytes(64)))} == told()[2]


def test_no_rule_is_without_a_test_and_certificates_of_sources_are_checked():
    assert set(told()) == {1, 2}.union(FOR_ALL, *FOR_ONE.values())
    assert "BAD_CERTIFICATE" in told()[21]
    chain = Chain(ANNA)
    paid = chain.add(pay(BRUNO, 30))
    proof = with_seals(chain.certified[0], chain.certified[0].certificate.seals[:2])
    body = Claim((Source("pay", paid.id, 30),))
    signed = signed_entry(BRUNO, entry_after(start(BRUNO), body))
    witness = Witness(CHARTER, WITNESSES[0].node)
    answer = witness.on_request(signed, [proof], Store(), 0).answer
    assert isinstance(answer, Refusal)
    assert answer.code == Code.BAD_CERTIFICATE


# The witness, by its pseudo-code.


def pseudo_code(heading: str) -> str:
    found = re.search(rf"^### {heading}\n.*?```text\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found.group(1)


def order_told(heading: str) -> list[str]:
    """The refusals of a pseudo-code from the top."""
    return re.findall(r"refuse ([A-Z_]+)", pseudo_code(heading))


class Moment(Store):
    """A witness's store in which Anna's first two entries are certified or voted for."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = Chain(ANNA)
        follower = Follower(CHARTER, CLARA.node)
        for _ in range(2):
            self.chain.add(pay(BRUNO, 1))
            self.apply(follower.on_certificate(self.chain.certified[-1], self))


def breach_and_seal():
    """Two reasons to have stopped."""
    store, follower = Store(), Follower(CHARTER, CLARA.node)
    one, rival = (signed_entry(ANNA, entry_after(start(ANNA), pay(BRUNO, n))) for n in (1, 2))
    store.apply(follower.on_certificate(sealed(one), store))
    halted = follower.on_certificate(sealed(rival), store)
    assert isinstance(halted, Halted)
    return halted.breach, sealed(one)


def asked(broken: set[str], first: str) -> Refusal | Cast:
    """The answer to a request for which these refusals are due, as far as they go together."""
    store = Moment()
    number = 5 if "NOT_WITNESS" in broken else 0  # Of seven keys the first four are witnesses.
    witness = Witness(CHARTER, WITNESSES[number].node)
    seq = {"PAST": 2, "MISSING": 5}.get(first, 3)
    wrong = {"prev": bytes(32)} if "rules" in broken else {}
    signed = signed_entry(ANNA, entry_after(store.chain.state, pay(CLARA, 1), seq=seq, **wrong))
    rival = entry_after(store.chain.state, pay(CLARA, 2), seq=seq)
    if "VOTED_OTHER" in broken:
        store.vote(signed_entry(ANNA, rival), rival)
    if "BUSY" in broken:
        for _ in range(VOTE_BURST_ENTRIES):
            witness.quota.spend(ANNA.node, 0)
    breach, forgotten = breach_and_seal()
    if "HALTED" in broken:
        store.stop = breach
    elif "FORGOT" in broken:
        store.stop = forgotten
    return witness.on_request(signed, (), store, 0).answer


ON_REQUEST = ["HALTED", "FORGOT", "NOT_WITNESS", "PAST", "MISSING", "VOTED_OTHER", "BUSY"]


def test_the_refusals_of_a_witness_are_told_in_their_order():
    assert order_told("On a request for a vote") == ON_REQUEST
    assert isinstance(asked(set(), ""), Cast)
    for place, first in enumerate(ON_REQUEST):
        answer = asked({*ON_REQUEST[place:], "rules"}, first)
        assert isinstance(answer, Refusal)
        assert answer.code == first


def test_a_vote_that_was_given_is_given_again_whatever_has_come_since():
    store, witness = Moment(), Witness(CHARTER, WITNESSES[0].node)
    first = store.chain.certified[0].entry
    store.vote(first, entry_opened(first, CHARTER.network).value)
    for _ in range(VOTE_BURST_ENTRIES):
        witness.quota.spend(ANNA.node, 0)
    answer = witness.on_request(first, (), store, 0).answer
    assert isinstance(answer, Cast)
    assert (answer.entry, answer.fresh) == (first, False)


def test_a_certified_entry_that_is_here_is_known_before_anything_is_verified():
    lines = [line.strip() for line in pseudo_code("On a certified entry").splitlines()]
    known, held = (
        next(place for place, line in enumerate(lines) if line.startswith(words))
        for words in ("if this entry stands at that seq here: known", "it must hold")
    )
    assert known < held
    store = Moment()
    bare = with_seals(store.chain.certified[0], ())
    assert Follower(CHARTER, CLARA.node).on_certificate(bare, store) == Known()


def test_the_quota_is_told_with_its_numbers():
    found = re.search(r"Each account may have (\d+) votes at once, and one more each second", TEXT)
    assert found is not None
    burst, quota = int(found.group(1)), VoteQuota()
    stranger = Identity(Seed(bytes([77]) * 32)).node
    for _ in range(burst):
        assert quota.wait_ms(stranger, 5) == 0
        quota.spend(stranger, 5)
    assert quota.wait_ms(stranger, 5) == 1_000
    assert quota.wait_ms(stranger, 1_005) == 0
