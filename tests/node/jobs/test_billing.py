"""Jobs between two shells and their payment: exact amounts, what is held, what is tried again."""

import msgspec
import pytest
import trio
import trio.testing

from node.jobs.dues import Due
from node.storage.bills import Bill, BillStore, Put
from node.storage.jobs import Role
from protocol import codec
from protocol.envelope import Signed, seal
from protocol.errors import Code, LocalError
from protocol.job.requester import Deliver, Finished
from protocol.job.terms import Receipt
from protocol.limits import FRAME_LENGTH_BYTES
from protocol.messages import JOB_PROTOCOL, FromProvider, job_body, job_frame
from protocol.pricing import cost
from protocol.units import credits_text
from tests.node.jobs.homes import (
    BALANCE,
    NETWORK,
    PRICE_IN,
    PRICE_OUT,
    WORDS,
    Home,
    World,
    asked,
    introduce,
    job,
    open_home,
)
from tests.node.jobs.paying import (
    COST,
    DEAR,
    MAIZE,
    PROMPT_TOKENS,
    QUINOA,
    end_of,
    receipt_id,
    settled,
    two_homes,
    vanish,
    worst_of,
)
from tests.node.jobs.test_refusals import MALLORY


# What is paid.
async def test_a_job_is_paid_to_the_microcredit_under_its_receipt(autojump_clock, tmp_path):
    world = World()
    async with two_homes(tmp_path, world) as (maize, quinoa):
        wanted = job(quinoa)
        held = []
        async with quinoa.requester.ask(wanted) as told:
            async for one in told:
                held.append(quinoa.ledger.standing().reserved)
                if isinstance(one, Finished):
                    end = one
        assert set(held[:-1]) == {worst_of(wanted)}, "held from the order to the end"
        await settled()
        assert end.cost == cost(end.input_tokens, 40, PRICE_IN, PRICE_OUT) < worst_of(wanted)
        (paid,) = world.ledgers.payments
        assert (paid.payer, paid.to) == (QUINOA, MAIZE)
        assert (paid.amount, paid.reference) == (end.cost, receipt_id(end))
        assert quinoa.ledger.standing().spendable == BALANCE - end.cost
        assert (list(maize.billing.owed()), list(quinoa.billing.dues())) == ([], [])
        order = end.receipt.order
        owing = await quinoa.billing.bill_of(Role.REQUESTER, order)
        owed = await maize.billing.bill_of(Role.PROVIDER, order)
        for bill in (owing, owed):
            assert (bill.amount, bill.open, bill.receipt_id) == (end.cost, 0, receipt_id(end))
            # Both signatures are there, and hold.
            for signer, signature in (
                (MAIZE, bill.provider_signature),
                (QUINOA, bill.requester_signature),
            ):
                signed = Signed(signer, bill.receipt, signature)
                assert job_body(signed, NETWORK, Receipt).value == end.receipt


async def test_jobs_at_once_are_each_paid_and_nothing_stays_held(autojump_clock, tmp_path):
    world = World()
    ends: list[Finished] = []
    async with two_homes(tmp_path, world) as (maize, quinoa):

        async def ask(tokens: int) -> None:
            ends.append(await end_of(quinoa, job(quinoa, tokens=tokens)))

        async with trio.open_nursery() as nursery:
            for tokens in (5, 10, 20, 40):
                nursery.start_soon(ask, tokens)
        await settled()
        paid = {one.reference: one.amount for one in world.ledgers.payments}
        assert paid == {receipt_id(end): end.cost for end in ends}
        assert len(set(paid.values())) == 4
        standing = quinoa.ledger.standing()
        assert (standing.reserved, standing.balance) == (0, BALANCE - sum(paid.values()))
        assert list(maize.billing.owed()) == []


async def test_what_costs_nothing_is_neither_held_nor_paid(autojump_clock, tmp_path):
    world = World()
    world.ledgers.allocations[QUINOA] = 0
    async with two_homes(tmp_path, world, prices=(0, 0)) as (maize, quinoa):
        told = await asked(quinoa, job(quinoa))
        assert told[0].quote.payment == "none"
        assert (told[-1].reason, told[-1].cost) == ("stop", 0)
        assert told[-1].receipt is not None
        assert maize.records.records
        assert await maize.billing.bill_of(Role.PROVIDER, told[-1].receipt.order) is None
    assert world.ledgers.payments == []


async def test_what_is_below_the_least_pay_is_not_owed(autojump_clock, tmp_path):
    world = World(pay_min=100_000)
    async with two_homes(tmp_path, world) as (maize, quinoa):
        end = await end_of(quinoa)
        await settled()
        assert 0 < end.cost < 100_000
        assert (list(maize.billing.owed()), list(quinoa.billing.dues())) == ([], [])
        assert quinoa.ledger.standing().reserved == 0
    assert world.ledgers.payments == []


async def test_a_provider_that_is_lost_is_paid_for_its_signed_chunks(autojump_clock, tmp_path):
    world = World()
    async with two_homes(tmp_path, world) as (maize, quinoa):
        words = 0
        async with quinoa.requester.ask(job(quinoa)) as told:
            while words < 13:
                words += isinstance(await anext(told), Deliver)
            await quinoa.network.disconnect(MAIZE)
            end = [one async for one in told][-1]
        await settled()
        assert (end.reason, end.receipt, end.failures[-1].code) == ("none", None, Code.LOST)
        assert end.output_tokens in (10, 11), "two chunks of a quarter of a second"
        assert end.cost == cost(PROMPT_TOKENS, end.output_tokens, PRICE_IN, PRICE_OUT)
        (paid,) = world.ledgers.payments
        (record,) = quinoa.records.records
        assert (paid.amount, paid.reference) == (end.cost, record.order_id)
        bill = await maize.billing.bill_of(Role.PROVIDER, record.order_id)
        assert (bill.amount, bill.open, bill.countersigned) == (end.cost, 0, False)
        assert list(maize.billing.owed()) == []
        assert quinoa.ledger.standing().reserved == 0


class Crooked:
    """A stream of maize's that asks one microcredit too much in the receipt."""

    def __init__(self, stream, home: Home) -> None:
        self._stream, self._home = stream, home

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    async def send_all(self, data: bytes) -> None:
        frame = job_frame(data[FRAME_LENGTH_BYTES:])
        if isinstance(frame, Signed):
            said = job_body(frame, NETWORK, FromProvider).value
            if isinstance(said, Receipt):
                dear = msgspec.structs.replace(said, cost=said.cost + 1)
                frame = codec.encode(seal(self._home.identity, NETWORK, dear))
                data = len(frame).to_bytes(FRAME_LENGTH_BYTES, "big") + frame
        await self._stream.send_all(data)


async def test_a_disputed_receipt_leaves_the_signed_chunks_paid_and_once(autojump_clock, tmp_path):
    world = World()
    async with two_homes(tmp_path, world) as (maize, quinoa):
        honest = maize.provider.serve
        maize.network.serve(JOB_PROTOCOL, lambda stream: honest(Crooked(stream, maize)))
        end = await end_of(quinoa)
        await settled()
        assert (end.reason, end.receipt) == ("stop", None)
        assert end.failures[-1].code is Code.RECEIPT_DISPUTED
        (paid,) = world.ledgers.payments
        order = quinoa.records.records[0].order_id
        assert (paid.amount, paid.reference) == (end.cost, order)
        assert maize.records.records[0].code is Code.RECEIPT_DISPUTED
        assert list(maize.billing.owed()) == []


async def test_who_never_signs_owes_without_proof_until_a_gift_pays_it(autojump_clock, tmp_path):
    world = World()
    async with two_homes(tmp_path, world) as (maize, _):
        bill = await vanish(world, maize, MALLORY)
        (debt,) = maize.billing.owed()
        assert (debt.account, debt.amount, debt.unproven) == (MALLORY.node, bill.cost, bill.cost)
        for amount, left in ((bill.cost - 1, [1]), (1, [])):
            world.ledgers.pay(MALLORY.node, MAIZE, amount, bytes(32))
            await settled()
            assert [one.amount for one in maize.billing.owed()] == left


# What cannot be paid.
async def test_a_job_that_cannot_be_paid_is_told_so_before_anybody_is_asked(
    autojump_clock, tmp_path
):
    world = World()
    async with two_homes(tmp_path, world) as (maize, quinoa):
        wanted = job(quinoa)
        worst = worst_of(wanted)
        world.ledgers.allocations[QUINOA] = worst - 1
        with pytest.raises(LocalError) as caught:
            await asked(quinoa, wanted)
        assert caught.value.code is Code.OVERDRAWN
        assert credits_text(worst) in caught.value.sentence
        assert credits_text(worst - 1) in caught.value.sentence
        assert maize.desk.tally.count == 0
        assert maize.identity.node not in quinoa.network.peers, "nobody was asked"
        world.ledgers.allocations[QUINOA] = worst
        assert (await end_of(quinoa, job(quinoa))).reason == "stop"


async def test_two_jobs_do_not_spend_the_same_credits(autojump_clock, tmp_path):
    world = World()
    ends: list[Finished] = []
    async with two_homes(tmp_path, world) as (maize, quinoa):
        world.ledgers.allocations[QUINOA] = worst_of(job(quinoa)) + 5

        async def ask() -> None:
            ends.append(await end_of(quinoa))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        poor, served = ends
        assert served.reason == "stop"
        assert [(one.candidate, one.code) for one in poor.failures] == [(None, Code.OVERDRAWN)]
        assert len(maize.inference.tasks) == 1
        await settled()
        assert quinoa.ledger.standing().reserved == 0
        with pytest.raises(LocalError, match="OVERDRAWN"):
            await asked(quinoa, job(quinoa))


async def test_who_is_too_dear_for_us_is_passed_over(autojump_clock, tmp_path):
    world = World()
    async with (
        two_homes(tmp_path, world, prices=DEAR) as (maize, quinoa),
        open_home(world, "potato", tmp_path, lambda task: WORDS) as potato,
    ):
        introduce(quinoa, maize, potato)
        wanted = job(quinoa)
        by_price = sorted(wanted.candidates, key=lambda one: -one.price_in)
        world.ledgers.allocations[QUINOA] = worst_of(wanted)
        end = await end_of(quinoa, job(quinoa, candidates=by_price))
        assert (end.reason, end.candidate.node) == ("stop", potato.identity.node)
        assert end.failures == ()


# What the ledger or the disk does not do at once.
async def test_a_due_that_the_ledger_does_not_take_is_held_and_tried_again(
    autojump_clock, tmp_path
):
    world = World()
    async with two_homes(tmp_path, world) as (maize, quinoa):
        quinoa.ledger.failing = LocalError(Code.UNAVAILABLE, "The disk is full.")
        end = await end_of(quinoa)
        await trio.sleep(30)
        assert list(quinoa.billing.dues()) == [Due(MAIZE, COST, receipt_id(end), handed=False)]
        assert quinoa.ledger.standing().reserved == COST, "what is owed cannot be spent"
        quinoa.ledger.failing = None
        await trio.sleep(61)
        assert [one.amount for one in world.ledgers.payments] == [COST]
        assert (list(quinoa.billing.dues()), list(maize.billing.owed())) == ([], [])
        assert quinoa.ledger.standing().reserved == 0


async def test_what_is_not_on_disk_is_not_signed(autojump_clock, tmp_path):
    world = World()
    world.bill_store = FullDisk
    async with two_homes(tmp_path, world) as (maize, quinoa):
        with pytest.raises(LocalError, match="UNAVAILABLE"):
            await asked(quinoa, job(quinoa))
        await settled()
        (record,) = maize.records.records
        assert (record.code, world.ledgers.payments) == (Code.LOST, [])
        assert quinoa.ledger.standing().reserved == 0


class FullDisk(BillStore):
    async def put(self, bill: Bill) -> Put:
        if bill.role is Role.REQUESTER:
            raise LocalError(Code.UNAVAILABLE, "The disk is full.")
        return await super().put(bill)
