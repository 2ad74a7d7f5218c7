"""What a requester gets that does not pay as it should: a code, and at most its window."""

from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from node.channels.base import PayTerms
from node.network.framing import FrameStream
from protocol import codec
from protocol.errors import Code
from protocol.identity import digest
from protocol.ids import JobId
from protocol.job.terms import Chunk, Delta, Refuse, Started
from protocol.ledger.voucher import Voucher, voucher_note, voucher_signed
from protocol.messages import JOB_PROTOCOL
from protocol.pricing import prompt_prepaid
from tests.node.jobs.homes import NETWORK, PRICE_IN, Home, World
from tests.node.jobs.test_paid_jobs import MAIZE, settled, two_homes
from tests.node.jobs.test_refusals import MALLORY, Raw, order, request


async def test_orders_of_a_stranger_whose_voucher_does_not_cover_the_prompt_run_no_model(
    autojump_clock, tmp_path
):
    """Raw, since our own requester pays what is asked."""
    world = World()
    async with two_homes(tmp_path, world) as (maize, _):
        opened = world.channels.opened(MALLORY.node, MAIZE, 1_000_000)
        ahead = prompt_prepaid(request(maize).prompt_bytes, PRICE_IN)
        for number, paid in enumerate([None, ahead - 1, ahead]):
            async with raw_stream(world, maize) as raw:
                await raw.say(request(maize, job=JobId(bytes([number]) * 16)))
                quote = await raw.hear()
                quote_id = digest(codec.encode(quote))
                voucher = None
                if paid:
                    first = Voucher(opened.id, paid, voucher_note(quote_id, 0), b"")
                    voucher = voucher_signed(MALLORY, first, NETWORK)
                await raw.say(order(quote_id, channel=opened.id, voucher=voucher))
                said = await raw.hear()
                assert maize.inference is not None
                if paid == ahead:
                    assert isinstance(said, Started)
                    assert len(maize.inference.tasks) == 1
                else:
                    assert isinstance(said, Refuse)
                    assert said.code == Code.BAD_VOUCHER
                    assert not maize.inference.tasks


async def test_who_never_signs_gets_its_window_and_the_channel_is_closed_to_it(
    autojump_clock, tmp_path
):
    """The provider holds back what comes after, waits, and books the window as lost. After that
    the channel serves nobody."""
    world = World()
    world.channels.terms = PayTerms(2, is_prompt_first=False)
    async with two_homes(tmp_path, world) as (maize, _):
        opened = world.channels.opened(MALLORY.node, MAIZE, 1_000_000)
        async with raw_stream(world, maize) as raw:
            await raw.say(request(maize, output_tokens_max=40))
            quote_id = digest(codec.encode(await raw.hear()))
            await raw.say(order(quote_id, channel=opened.id))
            said = []
            while not isinstance(said[-1] if said else None, Refuse):
                said.append(await raw.hear())
            chunks = [one for one in said if isinstance(one, Chunk)]
            ids = [token for one in said if isinstance(one, Delta) for token in one.ids]
            assert said[-1].code == Code.UNPAID
            assert len(chunks) == 2
            assert [token for chunk in chunks for token in chunk.ids] == ids, "nor any preview"
        await settled()
        assert sum(amount for amount, _ in opened.lost) == chunks[-1].cost
        assert sum(count for _, count in opened.lost) == 2
        (record,) = maize.records.records
        assert (record.code, record.cost_microcredits) == (Code.UNPAID, chunks[-1].cost)
        async with raw_stream(world, maize) as raw:
            await raw.say(request(maize, job=JobId(b"2" * 16)))
            quote_id = digest(codec.encode(await raw.hear()))
            await raw.say(order(quote_id, channel=opened.id))
            said = await raw.hear()
            assert isinstance(said, Refuse)
            assert said.code == Code.UNPAID


@pytest.mark.parametrize("forged", ["signature", "channel", "too much", "lock"])
async def test_a_voucher_that_does_not_hold_ends_the_job(autojump_clock, tmp_path, forged):
    world = World()
    world.channels.terms = PayTerms(2, is_prompt_first=False)
    async with two_homes(tmp_path, world) as (maize, _):
        opened = world.channels.opened(MALLORY.node, MAIZE, 1_000_000)
        async with raw_stream(world, maize) as raw:
            await raw.say(request(maize))
            quote_id = digest(codec.encode(await raw.hear()))
            await raw.say(order(quote_id, channel=opened.id))
            assert isinstance(await raw.hear(), Started)
            voucher = Voucher(opened.id, 9, bytes(32), b"")
            changes = {
                "signature": {},
                "channel": {"channel": bytes(32)},
                "too much": {"cumulative": opened.funding + 1},
                "lock": {"lock": bytes(32)},
            }[forged]
            signed = voucher_signed(MALLORY, replace(voucher, **changes), NETWORK)
            if forged == "signature":
                signed = replace(signed, signature=bytes(64))
            await raw.frames.send(codec.encode(signed))
            while not isinstance(said := await raw.hear(), Refuse):
                assert said is not None
            codes = {"signature": Code.BAD_SIGNATURE}
            assert said.code == codes.get(forged, Code.BAD_VOUCHER)
        await settled()
        assert (opened.held, opened.vouchers) == (0, [])
        assert maize.inference is not None
        assert maize.inference.slots_free(maize.inference.served[0].model) == 4


@asynccontextmanager
async def raw_stream(world: World, maize: Home):
    async with world.open_network(MALLORY.node) as network:
        await network.connect(maize.network.addresses[0])
        yield Raw(FrameStream(await network.open(MAIZE, JOB_PROTOCOL)))
