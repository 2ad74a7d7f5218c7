"""The scripted ledger keeps the promises of `node.ledger.base`, so that tests with it mean much."""

import pytest

from node.ledger.scripted import ScriptedLedger, ScriptedLedgers
from protocol.envelope import Signed
from protocol.errors import Code, LocalError
from protocol.identity import Identity, Seed
from protocol.ids import NetworkId, NodeId
from protocol.ledger.voucher import Voucher, voucher_note, voucher_signed

QUINOA, MAIZE = NodeId(b"q" * 32), NodeId(b"m" * 32)
RECEIPT, OTHER, NOTHING = b"r" * 32, b"s" * 32, bytes(32)


@pytest.fixture
def world() -> ScriptedLedgers:
    return ScriptedLedgers({QUINOA: 100}, pay_min=2)


async def test_a_pay_moves_credits_and_a_repeat_of_its_reference_moves_none(world):
    quinoa, maize = ScriptedLedger(world, QUINOA), ScriptedLedger(world, MAIZE)
    told = []
    maize.watch_income(told.append)
    for _ in range(2):
        await quinoa.pay(MAIZE, 30, RECEIPT)
    await quinoa.pay(MAIZE, 5, OTHER)
    assert quinoa.standing().balance == 65
    assert [(one.payer, one.amount, one.reference) for one in told] == [
        (QUINOA, 30, RECEIPT),
        (QUINOA, 5, OTHER),
    ]
    assert (maize.standing().balance, maize.standing().claimable) == (0, 35)
    world.claim(MAIZE)
    assert (maize.standing().balance, maize.standing().claimable) == (35, 0)
    again = []
    ScriptedLedger(world, MAIZE).watch_income(again.append)
    assert again == told, "incomes of before are told at the call"


async def test_what_is_pending_or_reserved_cannot_be_spent(world):
    world.prompt = False
    quinoa = ScriptedLedger(world, QUINOA)
    await quinoa.pay(MAIZE, 30, RECEIPT)
    with quinoa.reserve(50):
        standing = quinoa.standing()
        assert (standing.balance, standing.pending, standing.reserved) == (100, 30, 50)
        assert standing.spendable == 20
        with pytest.raises(LocalError, match="OVERDRAWN"), quinoa.reserve(21):
            pass
        with pytest.raises(LocalError, match="OVERDRAWN"):
            await quinoa.pay(MAIZE, 21, NOTHING)
        await quinoa.pay(MAIZE, 21, OTHER)  # What is owed is owed.
    assert [one.reference for one in quinoa.waiting()] == [RECEIPT, OTHER]
    world.certify()
    assert (list(quinoa.waiting()), quinoa.standing().spendable) == ([], 49)


async def test_entries_stand_in_one_line_until_the_balance_covers_the_first(world):
    quinoa, maize = ScriptedLedger(world, QUINOA), ScriptedLedger(world, MAIZE)
    await maize.pay(QUINOA, 90, RECEIPT)
    await maize.pay(QUINOA, 2, OTHER)
    assert len(maize.waiting()) == 2
    await quinoa.pay(MAIZE, 80, RECEIPT)
    world.claim(MAIZE)
    assert len(maize.waiting()) == 2, "80 do not cover 90, and the pay of 2 stands behind it"
    await quinoa.pay(MAIZE, 10, OTHER)
    world.claim(MAIZE)
    assert [one.amount for one in maize.waiting()] == [2]


@pytest.mark.parametrize(("to", "amount"), [(MAIZE, 1), (QUINOA, 5)])
async def test_too_little_or_to_oneself_is_no_pay(world, to, amount):
    with pytest.raises(LocalError) as caught:
        await ScriptedLedger(world, QUINOA).pay(to, amount, RECEIPT)
    assert caught.value.code is Code.BAD_REQUEST
    assert world.payments == []


class Notes:
    """The vouchers of a payee."""

    def __init__(self, *held: Signed) -> None:
        self.held, self.asked = held, []

    def best(self, channel):
        return self.held[-1] if self.held else None

    def wanted(self, channel):
        self.asked.append(channel)


def voucher(channel, amount):
    identity = Identity(Seed(b"q" * 32))
    value = Voucher(channel, amount, voucher_note(channel, 0), b"")
    return voucher_signed(identity, value, NetworkId(bytes(32)))


async def test_a_channel_moves_credits_when_it_is_settled(world):
    quinoa, maize = ScriptedLedger(world, QUINOA), ScriptedLedger(world, MAIZE)
    told = []
    maize.watch_channels(told.append)
    await quinoa.open_channel(MAIZE, 40, 99)
    (channel,) = [facts.id for facts in quinoa.channels()]
    await quinoa.top_up(channel, 10)
    assert [(facts.funding, facts.topups) for facts in told] == [(40, 0), (50, 1)]
    assert quinoa.standing().balance == 50
    with pytest.raises(LocalError, match="UNAVAILABLE"):
        await quinoa.ask_voucher(channel)
    notes = Notes(voucher(channel, 30))
    maize.keep_vouchers(notes)
    assert await quinoa.ask_voucher(channel) == notes.held[0]
    await quinoa.want_settlement(channel)
    assert notes.asked == [channel]
    world.prompt = False
    await maize.settle(channel)
    assert [one.channel for one in maize.settling()] == [channel]
    world.certify()
    assert (quinoa.standing().balance, maize.standing().balance) == (70, 30)
    assert told[-1].settled == 30
    assert told[-1].is_claimed
    with pytest.raises(LocalError, match="CHANNEL_CLOSED"):
        await quinoa.top_up(channel, 1)


async def test_a_channel_that_expires_gives_all_back(world):
    quinoa, maize = ScriptedLedger(world, QUINOA), ScriptedLedger(world, MAIZE)
    await quinoa.open_channel(MAIZE, 40, 99)
    (facts,) = maize.channels()
    world.expire(facts.id)
    assert (quinoa.standing().balance, maize.standing().balance) == (100, 0)
    with pytest.raises(LocalError, match="OVERDRAWN"):
        await quinoa.open_channel(MAIZE, 101, 99)
    with pytest.raises(LocalError, match="NOT_FOUND"):
        await maize.top_up(facts.id, 1)
    with pytest.raises(LocalError, match="BAD_REQUEST"):
        await maize.open_channel(MAIZE, 1, 99)
