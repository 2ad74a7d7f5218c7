"""Channels between real ledgers with four witnesses: what a job waits for, and what it moves."""

import trio

from protocol.job.requester_actions import Finished
from protocol.ledger.sync import LEDGER_PROTOCOL
from tests.node.channels.whole import RICH, asked, job, open_world
from tests.node.ledger.village import until


def end_of(told) -> Finished:
    assert isinstance(told[-1], Finished)
    return told[-1]


async def test_a_second_job_has_no_witness_round_trip_in_its_way(tmp_path, autojump_clock) -> None:
    async with open_world(tmp_path) as (world, anna, bruno):
        await until(lambda: anna.ledger.ready)
        before = trio.current_time()
        first = end_of(await asked(anna, job(anna)))
        first_seconds = trio.current_time() - before
        await trio.sleep(30)  # Certified entries have spread.
        count = len(world.said)
        before = trio.current_time()
        second = end_of(await asked(anna, job(anna)))
        second_seconds = trio.current_time() - before
        assert first.reason == second.reason == "stop"
        assert world.said[count:].count(LEDGER_PROTOCOL) == 0
        assert LEDGER_PROTOCOL in world.said[:count]
        assert second_seconds < first_seconds
        (line,) = anna.channels.lines()
        assert line.moved == first.cost + second.cost
        (line,) = bruno.channels.lines()
        assert (line.moved, line.lost) == (first.cost + second.cost, 0)


async def test_what_was_earned_is_settled_and_claimed_by_itself(tmp_path, autojump_clock) -> None:
    async with open_world(tmp_path) as (_, anna, bruno):
        await until(lambda: anna.ledger.ready)
        cost = sum([end_of(await asked(anna, job(anna))).cost for _ in range(3)])
        await until(lambda: bruno.balance == RICH + cost)
        await until(lambda: anna.balance == RICH - cost)
        assert list(anna.channels.lines()) == list(bruno.channels.lines()) == []


async def test_without_witnesses_jobs_in_open_channels_go_on_and_what_waits_is_shown(
    tmp_path, autojump_clock
) -> None:
    async with open_world(tmp_path) as (world, anna, bruno):
        await until(lambda: anna.ledger.ready)
        first = end_of(await asked(anna, job(anna)))
        for witness in world.homes[:4]:
            for other in world.homes:
                if other is not witness:
                    world.part(witness.node, other.node)
                    world.weather.parted.add(frozenset((witness.node, other.node)))
        second = end_of(await asked(anna, job(anna)))
        assert second.reason == "stop"
        (line,) = bruno.channels.lines()
        await bruno.channels.settle(line.id)
        await trio.sleep(5)
        (line,) = bruno.channels.lines()
        assert (line.state, line.moved) == ("settling", first.cost + second.cost)
        assert (line.step, line.waits_for) == ("get the witnesses to settle it", 3)
        world.weather.parted.clear()
        await until(lambda: bruno.balance == RICH + first.cost + second.cost)
