"""A second daemon with one key is told from a restart, and no single witness can invent it."""

from collections import defaultdict

import pytest
import trio
import trio.testing

from node.ledger.twin import ASK_SECONDS, FORGET_ROUNDS, Twin
from node.network.base import NetworkError
from protocol.errors import Code
from protocol.ids import NodeId
from protocol.ledger.sync import Answer, Ask, AskOwn, OwnState, Refusal
from tests.node.ledger.village import ANNA, WITNESSES, rules

Clock = trio.testing.MockClock
CHARTER = rules()


class Row:
    """Witnesses that remember who asked, as `node.ledger.witness.Desk` does."""

    def __init__(self) -> None:
        self.asked: dict[NodeId, dict[bytes, float]] = defaultdict(dict)
        self.silent: set[NodeId] = set()
        self.liars: set[NodeId] = set()

    async def ask(self, witness: NodeId, ask: Ask) -> Answer:
        assert isinstance(ask, AskOwn)
        await trio.sleep(0.05)
        if witness in self.silent:
            raise NetworkError("away")
        now, seen = trio.current_time(), self.asked[witness]
        others = [at for instance, at in seen.items() if instance != ask.instance]
        seen[ask.instance] = now
        await trio.sleep(0.05)
        if witness in self.liars:
            return OwnState(None, None, 0)
        return OwnState(None, None, round(1000 * (now - max(others))) if others else None)

    def twin(self, instance: bytes, node: NodeId = ANNA.node) -> Twin:
        return Twin(node, CHARTER, instance, self.ask)


async def test_one_daemon_sees_nobody(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    one = Row().twin(b"one")
    nursery.start_soon(one.run)
    await trio.sleep(10 * ASK_SECONDS)
    assert one.seen is None


async def test_a_restart_is_no_second_daemon(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    row = Row()
    with trio.move_on_after(3 * ASK_SECONDS + 0.3):
        await row.twin(b"before").run()
    after = row.twin(b"after")
    nursery.start_soon(after.run)
    await trio.sleep(10 * ASK_SECONDS)
    assert after.seen is None


async def test_both_see_each_other_until_one_stops(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    row = Row()
    one, other = row.twin(b"one"), row.twin(b"other")
    nursery.start_soon(one.run)
    await trio.sleep(1.5 * ASK_SECONDS)
    life = trio.CancelScope()
    nursery.start_soon(lives, other, life)
    await trio.sleep(3 * ASK_SECONDS)
    for twin in (one, other):
        assert twin.seen is not None
        assert twin.seen.witnesses == len(WITNESSES)
        assert twin.seen.seconds_ago <= 2 * ASK_SECONDS
    life.cancel()
    await trio.sleep((FORGET_ROUNDS + 2) * ASK_SECONDS)
    assert one.seen is None


async def lives(twin: Twin, life: trio.CancelScope) -> None:
    with life:
        await twin.run()


@pytest.mark.parametrize(("liars", "is_seen"), [(1, False), (2, True)])
async def test_it_takes_more_than_the_liars_that_there_may_be(
    autojump_clock: Clock, nursery: trio.Nursery, liars: int, is_seen: bool
) -> None:
    row = Row()
    row.liars = {witness.node for witness in WITNESSES[:liars]}
    row.silent = {WITNESSES[3].node}
    one = row.twin(b"one")
    nursery.start_soon(one.run)
    await trio.sleep(3 * ASK_SECONDS)
    assert (one.seen is not None) == is_seen


async def test_a_refusal_is_no_sighting(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    async def ask(_witness: NodeId, _ask: Ask) -> Answer:
        await trio.lowlevel.checkpoint()
        return Refusal(Code.FORGOT, "It lost its votes.")

    one = Twin(ANNA.node, CHARTER, b"one", ask)
    nursery.start_soon(one.run)
    await trio.sleep(3 * ASK_SECONDS)
    assert one.seen is None
