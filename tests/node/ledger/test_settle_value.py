"""Which turn of ours comes next, and what we propose in it: for all times and all vouchers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.ledger.base import ChannelFacts, Income
from node.ledger.keeper import News
from node.ledger.registry import DONE_KEPT_MAX, Registry
from node.ledger.settle_value import STARTS_AFTER, Due, next_due, proposal_made
from node.storage.ledger_channels import Proposed
from protocol.envelope import Signed, unseal
from protocol.errors import Code, LocalError
from protocol.identity import Identity
from protocol.ids import MessageId
from protocol.ledger.agreement import STATEMENT_BYTES_MAX, prepare_of
from protocol.ledger.certificate import EPOCH, statement_seal, statement_signed
from protocol.ledger.channel import channel_checked
from protocol.ledger.entry import Open, TopUp
from protocol.ledger.settlement import owner_is_payee, turn, turn_begins_ms, value_checked
from protocol.ledger.statement import Locked, PrepareCertificate, Proposal, Report, ReportShown
from protocol.ledger.sync import Propose
from protocol.ledger.voucher import Voucher, voucher_note, voucher_signed
from protocol.units import Microcredits
from tests.protocol.ledger.chains import ANNA, BRUNO, CHARTER, CLARA, WITNESSES, Chain

EXPIRY_MS = 10_000_000
CHANNEL = MessageId(b"c" * 32)


def facts(topups: int = 0, settled: int | None = None, number: int = 0, *, is_claimed=False):
    channel = MessageId(number.to_bytes(32, "big")) if number else CHANNEL
    funding = Microcredits(50 + topups)
    return ChannelFacts(
        channel, ANNA.node, BRUNO.node, funding, topups, EXPIRY_MS, settled, is_claimed
    )


def due(node: Identity, now_ms: int, proposed: int = 0, tried: int = 0) -> Due:
    chain = Chain(ANNA)
    chain.add(Open(BRUNO.node, 5, EXPIRY_MS))
    signed = chain.certified[0].entry
    ask = Propose(signed, chain.certified[0], (), None, ())
    before = Proposed(proposed, 0, ask) if proposed else None
    return next_due(facts(), node.node, before, tried, now_ms, CHARTER)


times = st.integers(EXPIRY_MS - CHARTER.window_ms, EXPIRY_MS + 20 * CHARTER.window_ms)


@given(times, st.booleans(), st.integers(0, 30), st.integers(0, 30))
def test_the_next_turn_is_ours_and_not_over(
    now_ms: int, is_payee: bool, proposed: int, tried: int
) -> None:
    node = BRUNO if is_payee else ANNA
    now = turn(EXPIRY_MS, now_ms, CHARTER)
    found = due(node, now_ms, proposed, tried)
    assert owner_is_payee(found.turn) == is_payee or found.turn == 1
    assert found.turn > tried
    assert found.end_ms > now_ms
    assert found.start_ms < found.end_ms
    if found.turn == 1:
        assert (proposed, tried) == (1, 0)
        assert now < 3
        return
    assert found.turn >= now
    begins_ms = turn_begins_ms(EXPIRY_MS, found.turn, CHARTER)
    assert found.end_ms - begins_ms == CHARTER.window_ms
    late_ms = 0 if proposed == found.turn else CHARTER.window_ms // STARTS_AFTER
    assert found.start_ms == begins_ms + late_ms
    # None of ours between now and then was passed over.
    ours = range(max(now, tried + 1, 2), found.turn)
    assert all(owner_is_payee(one) != is_payee for one in ours)


def test_the_first_turn_is_open_until_the_payee_has_another() -> None:
    assert due(BRUNO, 0, proposed=1) == Due(1, 0, turn_begins_ms(EXPIRY_MS, 3, CHARTER))
    assert due(BRUNO, 0, proposed=1, tried=1).turn == 3
    assert due(BRUNO, turn_begins_ms(EXPIRY_MS, 3, CHARTER), proposed=1).turn == 3
    assert due(BRUNO, 0).turn == 3
    assert due(ANNA, 0).turn == 2


def funded(*topups: int) -> Chain:
    chain = Chain(ANNA)
    channel = chain.add(Open(BRUNO.node, 10, EXPIRY_MS)).id
    for amount in topups:
        chain.add(TopUp(channel, amount))
    return chain


def voucher(channel: MessageId, amount: int, by: Identity = ANNA) -> Signed:
    value = Voucher(channel, amount, voucher_note(channel, 0), b"")
    return voucher_signed(by, value, CHARTER.network)


def reported(channel: MessageId, number: int, lock: PrepareCertificate | None, turn: int):
    locked = None if lock is None else Locked(lock.turn, lock.value)
    report = Report(EPOCH, channel, turn, locked)
    return ReportShown(statement_signed(WITNESSES[number], report, CHARTER.network), lock)


def locked(channel: MessageId, value: int) -> PrepareCertificate:
    prepare = prepare_of(Proposal(channel, 1, value))
    votes = [statement_signed(one, prepare, CHARTER.network) for one in WITNESSES[:3]]
    seals = tuple(statement_seal(vote, prepare, CHARTER) for vote in votes)
    return PrepareCertificate(EPOCH, channel, 1, value, seals)


@given(
    st.lists(st.integers(1, 9), max_size=4),
    st.integers(0, 40),
    st.integers(1, 4),
    st.none() | st.integers(0, 20),
)
def test_what_is_proposed_is_what_witnesses_take(
    topups: list[int], amount: int, turn: int, forced: int | None
) -> None:
    """By the witnesses' own function: the forced value, the best voucher with just the top-ups
    that cover it, or nothing."""
    chain = funded(*topups)
    shown = chain.certified[0]
    channel = channel_checked(shown, CHARTER)
    owner = BRUNO if owner_is_payee(turn) else ANNA
    lock = None if forced is None else locked(channel.id, forced)
    reports = tuple(reported(channel.id, number, lock, turn) for number in range(3))
    best = voucher(channel.id, amount) if amount else None
    made = (owner, turn, chain.certified, best, reports if turn > 1 else (), CHARTER)
    is_free = turn == 1 or forced is None
    if is_free and owner is BRUNO and amount > 10 + sum(topups):
        with pytest.raises(LocalError) as caught:
            proposal_made(*made)
        assert caught.value.code is Code.UNAVAILABLE
        return
    ask, value = proposal_made(*made)
    opened = unseal(ask.proposal, CHARTER.network, Proposal, STATEMENT_BYTES_MAX)
    assert (opened.value.turn, opened.value.value) == (turn, value)
    value_checked(ask, opened.value, channel, CHARTER)
    if not is_free:
        assert (value, ask.voucher, ask.topups) == (forced, None, ())
    elif owner is ANNA:
        assert (value, ask.voucher) == (0, None)
    else:
        assert (value, ask.voucher) == (amount, best)
        assert 10 + sum(topups[: len(ask.topups) - 1]) < amount or not ask.topups


@pytest.mark.parametrize("by", [BRUNO, CLARA])
def test_a_voucher_that_is_not_the_payers_is_not_proposed(by: Identity) -> None:
    chain = funded()
    channel = chain.certified[0].entry.id
    for held in (voucher(channel, 5, by), voucher(CHANNEL, 5)):
        with pytest.raises(LocalError, match="UNAVAILABLE"):
            proposal_made(BRUNO, 1, chain.certified, held, (), CHARTER)


def test_the_registry_tells_of_what_is_new_and_never_goes_back() -> None:
    registry, told = Registry([facts()]), []
    registry.watch(told.append)
    assert told == [facts()]
    for one in (facts(1), facts(1), facts(), facts(1, 7), facts(1), facts(2, 7)):
        registry.heard(News(channels=[one]))
    assert told == [facts(), facts(1), facts(1, 7), facts(2, 7)]
    assert [one.id for one in registry.open()] == []
    registry.heard(News(incomes=[Income(CHANNEL, ANNA.node, Microcredits(1), bytes(32))]))
    assert registry.find(CHANNEL) == facts(2, 7)
    with pytest.raises(LocalError, match="NOT_FOUND"):
        registry.find(MessageId(bytes(32)))


def test_the_registry_forgets_what_was_done_long_ago() -> None:
    done = [facts(number=number, settled=0, is_claimed=True) for number in range(1, 400)]
    registry = Registry([facts(), *done])
    kept = registry.all()
    assert len(kept) == 1 + DONE_KEPT_MAX
    assert facts() in kept
    assert done[-1] in kept
    assert done[0] not in kept
