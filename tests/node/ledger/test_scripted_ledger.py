"""The scripted ledger keeps the promises of `node.ledger.base`, so that tests with it mean much."""

import pytest

from node.ledger.scripted import ScriptedLedger, ScriptedLedgers
from protocol.errors import Code, LocalError
from protocol.ids import NodeId

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
    assert (await quinoa.proven(MAIZE)).balance == 35
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
