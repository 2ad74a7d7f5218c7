"""Jobs paid on the real ledger, with four witnesses in one memory world."""

from contextlib import AsyncExitStack

import trio

from node.ledger import journal
from node.ledger.service import NodeLedger, Settings, Surroundings, open_ledger
from protocol.ids import node_text
from protocol.ledger.charter import charter
from protocol.ledger.genesis import genesis_made
from tests.node.jobs.homes import BALANCE, WORDS, World, asked, identity, introduce, job, open_home
from tests.node.jobs.paying import COST

NAMES = ("maize", "potato", "quinoa", "oca")
SETTINGS = Settings(journal=journal.Settings(claim_sources=2, claim_seconds=5))


class WitnessedWorld(World):
    """All four homes are witnesses and have the same balance."""

    def __init__(self) -> None:
        super().__init__()
        nodes = [identity(name).node for name in NAMES]
        genesis = genesis_made("ayllu", bytes(16), dict.fromkeys(nodes, BALANCE), set(nodes))
        self.charter = charter(genesis)

    async def open_ledger(self, me, life, disk, network, quotas) -> NodeLedger:
        async def connect(node) -> None:
            await network.connect(f"/memory/x/p2p/{node_text(node)}")

        around = Surroundings(network, quotas, disk, connect, lambda size: me.node[:size])
        return await open_ledger(self.charter, me, around, SETTINGS)

    def running(self, ledger):
        return (ledger.run,)


async def test_jobs_are_paid_certified_claimed_and_the_debts_are_gone(autojump_clock, tmp_path):
    world = WitnessedWorld()
    async with AsyncExitStack() as stack:
        homes = {}
        for name in NAMES:
            script = (lambda task: WORDS) if name == "maize" else None
            homes[name] = await stack.enter_async_context(open_home(world, name, tmp_path, script))
        maize, quinoa = homes["maize"], homes["quinoa"]
        introduce(quinoa, maize)
        await trio.sleep(10)  # The journals agree with their witnesses.
        assert quinoa.ledger.ready
        for _ in range(2):
            end = (await asked(quinoa, job(quinoa)))[-1]
            assert (end.reason, end.cost) == ("stop", COST)
        await trio.sleep(60)
        paid, earned = quinoa.ledger.standing(), maize.ledger.standing()
        assert (paid.balance, paid.pending, paid.reserved) == (BALANCE - 2 * COST, 0, 0)
        assert (earned.balance, earned.claimable) == (BALANCE + 2 * COST, 0)
        assert (list(quinoa.billing.dues()), list(maize.billing.owed())) == ([], [])


async def test_without_a_quorum_answers_stream_and_their_payment_waits(autojump_clock, tmp_path):
    world = WitnessedWorld()
    async with AsyncExitStack() as stack:
        maize = await stack.enter_async_context(
            open_home(world, "maize", tmp_path, lambda task: WORDS)
        )
        quinoa = await stack.enter_async_context(open_home(world, "quinoa", tmp_path))
        introduce(quinoa, maize)
        assert (await asked(quinoa, job(quinoa)))[-1].reason == "stop"
        await trio.sleep(60)
        (due,) = quinoa.billing.dues()
        assert (due.amount, due.handed) == (COST, True)
        assert [debt.amount for debt in maize.billing.owed()] == [COST]
        await stack.enter_async_context(open_home(world, "oca", tmp_path))
        await trio.sleep(300)
        assert (list(quinoa.billing.dues()), list(maize.billing.owed())) == ([], [])
