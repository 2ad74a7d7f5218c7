"""A ledger that has halted, and one without witnesses: jobs in open channels go on."""

import trio

from node.ledger.lines import Lines
from node.simulator.determinism import run
from protocol.ids import NodeId, node_text
from protocol.ledger.account import opening
from protocol.ledger.certificate import Certified, certificate_made, seal_of, vote_signed
from protocol.ledger.charter import Charter
from protocol.ledger.entry import Pay
from protocol.ledger.sync import Announce
from tests.protocol.ledger.chains import entry_after, signed_entry
from tests.recovery.job_life import Jobs, open_jobs
from tests.recovery.mortal_world import OUTSIDER, WITNESSES, Home, World, until


def rival(charter: Charter, amount: int) -> Certified:
    """The outsider's first entry, and a certificate that more than f witnesses give any such."""
    before = opening(charter, OUTSIDER.node)
    body = Pay(WITNESSES[0].node, amount, bytes(32))
    signed = signed_entry(OUTSIDER, entry_after(before, body, charter), charter)
    votes = [vote_signed(one, signed.id, charter.network) for one in WITNESSES[1:]]
    certificate = certificate_made(
        signed.id, [seal_of(vote, signed.id, charter) for vote in votes], charter
    )
    assert certificate is not None
    return Certified(signed, certificate)


async def told(world: World, certified: Certified) -> None:
    """Each node hears of it from another one."""
    homes = list(world.homes.values())
    for speaker, hearer in zip(homes, [*homes[1:], homes[0]], strict=True):
        await Lines(speaker.network, dialled(speaker)).ask(hearer.node, Announce(certified))


def dialled(home: Home):
    async def connect(node: NodeId) -> None:
        await home.network.connect(f"/memory/x/p2p/{node_text(node)}")

    return connect


async def halted(jobs: Jobs) -> None:
    """Everywhere, with channels open."""
    world = jobs.world
    await told(world, rival(world.charter, 1))
    await trio.sleep(30)
    await told(world, rival(world.charter, 2))
    homes = world.homes.values()
    await until(lambda: all("halted" in home.ledger.trouble for home in homes), "all halt")


async def resumed(jobs: Jobs) -> None:
    """The owners have read the proof, and what it made their witnesses find out."""
    homes = list(jobs.world.homes.values())
    for home in homes:
        await home.ledger.resume()
    end = trio.current_time() + 3_600
    while not all(home.ledger.ready and not home.ledger.trouble for home in homes):
        assert trio.current_time() < end, [home.ledger.trouble for home in homes]
        await trio.sleep(60)
        for home in homes:
            if "does not remember" in home.ledger.trouble:
                await home.ledger.resume()


async def through_a_halt() -> None:
    async with open_jobs() as jobs:
        await halted(jobs)
        balances = [home.ledger.standing().balance for home in jobs.world.homes.values()]
        before = len(jobs.wire.orders)
        await jobs.lived({})
        # Whoever restarts takes its highest voucher back, and counts on, all the same.
        for home in (jobs.world.payer, jobs.world.payee):
            await home.comes_back()
            assert "halted" in home.ledger.trouble
            await jobs.lived({})
        assert len(jobs.wire.orders) == before + 6
        assert len({order.channel for order in jobs.wire.orders.values()}) == 1
        after = [home.ledger.standing().balance for home in jobs.world.homes.values()]
        assert after == balances, "a ledger that has halted moves nothing"
        await resumed(jobs)
        await jobs.settled()


def test_jobs_go_on_in_open_channels_while_the_ledger_has_halted() -> None:
    run(through_a_halt, b"halt")


async def without_witnesses() -> None:
    async with open_jobs() as jobs:
        for witness in jobs.world.witnesses:
            witness.die()
            await witness.gone()
        before = len(jobs.wire.orders)
        for home in (None, jobs.world.payer, jobs.world.payee):
            if home is not None:
                await home.comes_back()
            end = await jobs.ask()
            assert end is not None
            assert end.reason == "stop"
        assert not jobs.wire.wrongs
        assert len(jobs.wire.orders) == before + 3
        await jobs.world.up()
        await jobs.whole()
        await jobs.settled()


def test_both_sides_may_restart_in_open_channels_with_no_witness_there() -> None:
    run(without_witnesses, b"away")
