"""Nodes whose disk is gone: what the witnesses and a second copy give back, and what is lost."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from node.simulator.determinism import run
from node.storage.voucher_copy import VoucherCopy
from protocol.errors import Code, LocalError
from tests.recovery.mortal_disk import MortalDisk
from tests.recovery.mortal_life import (
    DEPOSIT,
    GIFT,
    TOP_UP,
    Life,
    check_chains,
    check_quiet,
    settled_down,
)
from tests.recovery.mortal_world import START, World, open_world, until


def in_world(part: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with open_world() as world:
            await settled_down(world)
            await part(world)

    run(main, b"rebuilt")


def blank() -> MortalDisk:
    disk = MortalDisk()
    disk.mark_restored()
    return disk


async def worked(world: World) -> Life:
    """A life as far as counted vouchers: 80 of 1,500 are earned."""
    life = Life(world, 1)
    for deed in (life.pay, life.open, life.top_up, life.show, life.work):
        await deed()
    await settled_down(world)
    assert life.counted == life.signed > 0
    return life


async def ended(world: World, life: Life) -> None:
    await life.settle()
    await life.over()
    await settled_down(world)


def test_a_payer_gets_balance_and_channel_back() -> None:
    async def part(world: World) -> None:
        life = await worked(world)
        before = world.payer.ledger.standing()
        await world.payer.comes_back(blank())
        assert world.payer.ledger.journal.restored
        assert world.payer.ledger.standing().balance == START
        await until(lambda: world.payer.ledger.ready, "all witnesses have answered")
        after = world.payer.ledger.standing()
        assert (after.balance, after.seq, after.head) == (before.balance, before.seq, before.head)
        [facts] = world.payer.ledger.channels()
        assert (facts.id, facts.funding) == (life.channel, DEPOSIT + TOP_UP)
        # What it had signed it takes back from the payee, and goes on from there.
        await life.work()
        assert life.counted == life.signed
        await ended(world, life)
        await check_quiet(world, [life])
        await check_chains(world)

    in_world(part)


def test_it_signs_nothing_while_one_witness_is_away() -> None:
    async def part(world: World) -> None:
        await worked(world)
        away = world.witnesses[3]
        away.die()
        await away.gone()
        await world.payer.comes_back(blank())
        await trio.sleep(300)
        assert not world.payer.ledger.ready
        assert "3 of 4 have" in world.payer.ledger.trouble
        await world.payer.ledger.pay(world.payee.node, GIFT, b"2" * 32)
        await trio.sleep(60)
        assert world.payer.ledger.waiting()[0].seq == 0, "it waits, unsigned"
        await away.up()
        await until(lambda: world.payer.ledger.ready, "the last one answers")
        await until(lambda: not world.payer.ledger.waiting(), "it is paid")
        assert world.payer.ledger.standing().balance == START - DEPOSIT - TOP_UP - 2 * GIFT

    in_world(part)


def test_a_payee_with_a_second_copy_loses_nothing(tmp_path: Path) -> None:
    async def part(world: World) -> None:
        world.payee.copy = VoucherCopy(tmp_path / "copy", world.charter.network, inline=True)
        await world.payee.comes_back()
        life = await worked(world)
        await world.payee.comes_back(blank())
        await until(lambda: world.payee.ledger.ready, "all witnesses have answered")
        await until(lambda: bool(world.payee.ledger.channels()), "the channel comes back")
        [book] = world.payee.channels.payee.books
        assert book.held == life.counted
        await ended(world, life)
        await check_quiet(world, [life])
        await check_chains(world)

    in_world(part)


def test_without_one_it_names_what_is_lost_and_works_on_no_channel_of_before() -> None:
    async def part(world: World) -> None:
        life = await worked(world)
        await world.payee.comes_back(blank())
        payee = world.payee
        await until(lambda: payee.ledger.ready, "all witnesses have answered")
        await until(lambda: bool(payee.ledger.channels()), "the channel comes back")
        with pytest.raises(LocalError, match="before this node lost its disk") as refused:
            async with payee.channels.payee.earn(world.payer.node, life.channel):
                pass
        assert refused.value.code is Code.CHANNEL_CLOSED
        await payee.comes_back()  # It stays so.
        with pytest.raises(LocalError, match="before this node lost its disk"):
            async with payee.channels.payee.earn(world.payer.node, life.channel):
                pass
        life.counted, life.signed = 0, 0  # What nobody holds is worth nothing.
        await ended(world, life)
        await check_quiet(world, [life])
        # On the next one it works as ever.
        another = Life(world, 2)
        for deed in (another.pay, another.open, another.top_up, another.show, another.work):
            await deed()
        assert another.counted > 0
        await ended(world, another)
        await check_quiet(world, [life, another])

    in_world(part)


def test_an_old_backup_of_a_payee_loses_what_came_after_it_and_no_more() -> None:
    async def part(world: World) -> None:
        life = await worked(world)
        backup = world.payee.disk.copy()
        held = life.counted
        await life.work()
        gift = Life(world, 2)
        await gift.pay()
        await settled_down(world)
        assert life.counted > held
        await world.payee.comes_back(backup)
        await until(lambda: world.payee.ledger.ready, "all witnesses have answered")
        life.counted = held
        await ended(world, life)
        facts = life.facts(world.payee)
        assert facts is not None
        assert facts.settled == held
        assert world.payee.ledger.standing().balance == START + held + 2 * GIFT
        for home in world.homes.values():
            assert not await home.ledger.views.proofs()

    in_world(part)


def test_a_witness_that_lost_its_votes_casts_none_until_its_owner_says_so() -> None:
    async def part(world: World) -> None:
        life = await worked(world)
        lost = world.witnesses[0]
        await lost.comes_back(blank())
        await until(lambda: lost.ledger.ready, "all witnesses have answered")
        away = world.witnesses[3]
        away.die()
        await away.gone()
        assert "casts no votes" in lost.ledger.trouble
        # Two of four are no quorum.
        await world.payer.ledger.pay(world.payee.node, GIFT, b"2" * 32)
        await trio.sleep(120)
        [waiting] = world.payer.ledger.waiting()
        assert waiting.seals == 2
        assert lost.node in waiting.silent
        await lost.ledger.resume()
        await until(lambda: not world.payer.ledger.waiting(), "three of four are one")
        await away.up()
        await settled_down(world)
        await ended(world, life)
        assert lost.ledger.trouble == ""

    in_world(part)


def test_a_node_that_is_no_witness_has_no_votes_to_lose() -> None:
    async def part(world: World) -> None:
        await world.payer.comes_back(blank())
        await until(lambda: world.payer.ledger.ready, "all witnesses have answered")
        assert world.payer.ledger.trouble == ""

    in_world(part)


@pytest.mark.parametrize("name", ["payer", "payee"])
def test_all_of_it_with_a_crash_at_the_start(name: str) -> None:
    """A node that dies while it comes back from nothing is no worse off."""

    async def part(world: World) -> None:
        life = await worked(world)
        home = world.named(name)
        await home.comes_back(blank())
        for _ in range(3):
            await trio.sleep(0.2)
            await home.comes_back()
        await until(lambda: home.ledger.ready, "all witnesses have answered")
        await until(lambda: bool(home.ledger.channels()), "the channel comes back")
        if name == "payee":
            life.counted, life.signed = 0, 0
        await ended(world, life)
        await check_quiet(world, [life])

    in_world(part)
