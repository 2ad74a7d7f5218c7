"""Exports with channels, settlements and fees: what adds up, and what each mistake is called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Code
from protocol.ledger.audit import Depth, audit
from protocol.ledger.charter import Charter, charter
from protocol.ledger.entry import TopUp
from protocol.ledger.export import Shown, export_header, framed
from protocol.ledger.genesis import genesis_made
from protocol.ledger.statement import Settlement
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    CLARA,
    WITNESSES,
    Chain,
    pay,
    replace_fields,
)
from tests.protocol.ledger.channels import Deal, claim_of, earned, fee, open_to, rest, settled

DEPTHS = list(Depth)


def audited(chains, settlements=(), shown=(), depth=Depth.FULL, rules: Charter = CHARTER):
    ordered = sorted(chains, key=lambda chain: chain.identity.node)
    entries = [certified for chain in ordered for certified in chain.certified]
    header = export_header(
        rules, shown=len(shown), settlements=len(settlements), entries=len(entries)
    )
    data = header + b"".join(framed(one) for one in [*map(Shown, shown), *settlements, *entries])
    return audit(rules, lambda: [data], depth)


def codes(report):
    return {(fault.account, fault.seq, fault.code) for fault in report.faults}


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_channel_adds_up_at_every_step(depth):
    deal = Deal()
    final = (settled(deal.id, 35),)
    chains = (deal.anna, deal.bruno)

    def sums(settlements=final):
        report = audited(chains, settlements, depth=depth)
        assert report.faults == ()
        assert report.complete
        assert report.total == report.supply == 140
        return report.channels, report.pays_unclaimed, report.balances.get(ANNA.node)

    assert sums(()) == sums() == (50, 0, 50)  # Settled or not: neither has taken its share.
    deal.bruno.add(claim_of(earned(deal.id, 35)))
    assert sums() == (15, 0, 50)
    deal.anna.add(claim_of(rest(deal.id, 15)))
    assert sums() == (0, 0, 65)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("amount", [14, 16])
def test_a_rest_is_what_was_not_earned(depth, amount):
    deal = Deal()
    deal.anna.add(claim_of(rest(deal.id, amount)))
    report = audited((deal.anna,), (settled(deal.id, 35),), depth=depth)
    assert codes(report) == {(ANNA.node, 3, Code.AMOUNT_WRONG)}


@pytest.mark.parametrize("depth", DEPTHS)
def test_shares_need_their_settlement(depth):
    deal = Deal()
    deal.anna.add(claim_of(rest(deal.id, 15)))
    deal.bruno.add(claim_of(earned(deal.id, 35)))
    report = audited((deal.anna, deal.bruno), depth=depth)
    assert codes(report) == {(ANNA.node, 3, Code.NEED), (BRUNO.node, 1, Code.NEED)}


@pytest.mark.parametrize("depth", DEPTHS)
def test_what_was_earned_is_the_payee_s_and_is_that_value(depth):
    deal, clara = Deal(), Chain(CLARA)
    clara.add(claim_of(earned(deal.id, 35)))
    final = (settled(deal.id, 35),)
    report = audited((deal.anna, clara), final, depth=depth)
    assert codes(report) == {(CLARA.node, 1, Code.NOT_PAYEE)}
    deal.bruno.add(claim_of(earned(deal.id, 36)))
    report = audited((deal.anna, deal.bruno), final, depth=depth)
    assert codes(report) == {(BRUNO.node, 1, Code.AMOUNT_WRONG)}
    other = Deal()
    other.bruno.add(claim_of(earned(deal.id, 35)))
    other.bruno.add(pay(CLARA, 5))
    report = audited((other.anna, other.bruno, clara), final, depth=depth)
    assert not report.ok


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_payee_s_chain_alone_shows_the_open_and_what_covers_it(depth):
    deal = Deal()
    deal.bruno.add(claim_of(earned(deal.id, 45)))
    final = (settled(deal.id, 45),)
    both = [deal.open, deal.topup]
    report = audited((deal.bruno,), final, both, depth=depth)
    assert report.faults == ()
    assert not report.complete
    assert (report.channels, report.balances[BRUNO.node]) == (0, 85)
    # Without the top-up the channel had but 40.
    report = audited((deal.bruno,), final, both[:1], depth=depth)
    assert codes(report) == {(None, 0, Code.NEED)}
    report = audited((deal.bruno,), final, depth=depth)
    assert {code for _, _, code in codes(report)} == {Code.NEED, Code.UNEXPECTED}


@pytest.mark.parametrize("depth", DEPTHS)
def test_settlements_hold_and_stand_in_their_place(depth):
    deal = Deal()
    final = settled(deal.id, 35)
    few = replace_fields(final, seals=final.seals[:2])
    other = settled(deal.id, 36)
    forged = replace_fields(final, value=36)
    stranger = settled(bytes(32), 5)
    for settlements, code in (
        ((few,), Code.BAD_CERTIFICATE),
        ((forged,), Code.BAD_CERTIFICATE),
        ((final, other), Code.UNEXPECTED),
        ((final, final), Code.UNEXPECTED),
        ((final, stranger), Code.UNEXPECTED),
        ((stranger,), Code.UNEXPECTED),
    ):
        report = audited((deal.anna,), settlements, depth=depth)
        assert code in {fault.code for fault in report.faults}
    report = audited((deal.anna,), (final,), (deal.open,), depth=depth)
    assert codes(report) == {(None, 0, Code.UNEXPECTED)}  # It stands in its chain.


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_chain_keeps_the_rules_of_its_channels(depth):
    for body, code in (
        (TopUp(bytes(32), 1), Code.NO_CHANNEL),
        (claim_of(rest(bytes(32), 1)), Code.NO_CHANNEL),
    ):
        anna = Chain(ANNA)
        anna.add(body)
        assert codes(audited((anna,), depth=depth)) == {(ANNA.node, 1, code)}
    deal = Deal()
    deal.anna.add(claim_of(rest(deal.id, 15)))
    deal.anna.add(TopUp(deal.id, 1))
    report = audited((deal.anna,), (settled(deal.id, 35),), depth=depth)
    assert codes(report) == {(ANNA.node, 4, Code.CHANNEL_CLOSED)}


def network_with_fees() -> Charter:
    nodes = {one.node for one in WITNESSES[:4]}
    allocations = {ANNA.node: 100} | dict.fromkeys(nodes, 50)
    return charter(genesis_made("fees", bytes(16), allocations, nodes, entry_fee=3))


@pytest.mark.parametrize("depth", DEPTHS)
def test_fees_belong_to_witnesses_and_add_up(depth):
    rules = network_with_fees()
    anna = Chain(ANNA, rules)
    first = anna.add(pay(BRUNO, 10), fee=7)
    owner = next(one for one in WITNESSES[:4] if one.node == rules.fee_owner(first.id))
    report = audited((anna,), depth=depth, rules=rules)
    assert (report.faults, report.fees, report.pays_unclaimed) == ((), 7, 10)
    assert report.total == report.supply == 300
    witness = Chain(owner, rules)
    witness.add(claim_of(fee(first.id, 7)), fee=3)
    report = audited((anna, witness), depth=depth, rules=rules)
    assert (report.faults, report.fees, report.balances[owner.node]) == ((), 3, 54)
    assert report.total == 300
    wrong = Chain(owner, rules)
    wrong.add(claim_of(fee(first.id, 6)), fee=3)
    report = audited((anna, wrong), depth=depth, rules=rules)
    assert codes(report) == {(owner.node, 1, Code.AMOUNT_WRONG)}
    stranger = next(one for one in WITNESSES[:4] if one.node != owner.node)
    thief = Chain(stranger, rules)
    thief.add(claim_of(fee(first.id, 7)), fee=3)
    report = audited((anna, thief), depth=depth, rules=rules)
    assert codes(report) == {(stranger.node, 1, Code.NOT_PAYEE)}


VALUES: dict[tuple[bytes, int], Settlement] = {}


def settled_once(channel: bytes, value: int) -> Settlement:
    if (channel, value) not in VALUES:
        VALUES[channel, value] = settled(channel, value)
    return VALUES[channel, value]


@given(
    deposits=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    topups=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=4),
    shares=st.lists(st.tuples(st.integers(0, 25), st.booleans(), st.booleans()), max_size=4),
)
def test_whatever_is_opened_and_settled_nothing_is_made_or_lost(deposits, topups, shares):
    anna, bruno = Chain(ANNA), Chain(BRUNO)
    funding = {anna.add(open_to(BRUNO, amount)).id: amount for amount in deposits}
    channels = list(funding)
    for number, amount in topups:
        channel = channels[number % len(channels)]
        anna.add(TopUp(channel, amount))
        funding[channel] += amount
    final, left = [], sum(funding.values())
    for channel, (value, is_earned, is_returned) in zip(channels, shares, strict=False):
        value = min(value, funding[channel])
        final.append(settled_once(channel, value))
        if is_earned and value:
            bruno.add(claim_of(earned(channel, value)))
            left -= value
        if is_returned and funding[channel] > value:
            anna.add(claim_of(rest(channel, funding[channel] - value)))
            left -= funding[channel] - value
    final.sort(key=lambda settlement: settlement.channel)
    for depth in Depth:
        report = audited((anna, bruno), final, depth=depth)
        assert report.faults == ()
        assert (report.channels, report.total) == (left, 140)
