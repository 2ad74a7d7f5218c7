"""The dialer: one dial of a node at a time, in turn over its addresses, on demand or lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from node.discovery.addresses import AddressBook
from node.discovery.dial_plan import DialPlan
from node.discovery.dialer import Dialer
from node.discovery.directory import Directory
from node.network.base import NetworkError
from node.network.memory import MemoryNetwork, MemoryWorld
from protocol.ids import NodeId, node_text
from tests.node.discovery.neighbourhood import advert, identity, opened, trio_clock

THEIRS = identity(2).node


@dataclass
class Bench:
    """A dialer of node 1 that knows the adverts it is given."""

    world: MemoryWorld
    network: MemoryNetwork
    directory: Directory
    dialer: Dialer
    failures: list[NodeId] = field(default_factory=list)

    def knows(self, number: int, *addresses: str, sequence: int = 1) -> None:
        value = replace(advert(sequence), addresses=addresses)
        self.directory.heard(*opened(number, value), 0)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    world, failures = MemoryWorld(), list[NodeId]()
    clock = trio_clock()
    directory = Directory(clock.steady_ms)

    async def failed(node: NodeId) -> None:
        failures.append(node)

    async with world.open_network(identity(1).node) as network:
        book = AddressBook(network.node, (), directory)
        plan = DialPlan(Random(1))
        dialer = Dialer(network, book, directory, plan, clock, on_failure=failed)
        yield Bench(world, network, directory, dialer, failures)


def address(node: NodeId, host: str = "x") -> str:
    return f"/memory/{host}/p2p/{node_text(node)}"


async def test_the_addresses_are_tried_in_turn_and_only_those_of_the_node() -> None:
    async with bench() as at, at.world.open_network(THEIRS):
        elsewhere = address(identity(3).node)
        at.knows(2, elsewhere, f"/nonsense/p2p/{node_text(THEIRS)}", address(THEIRS))
        async with at.world.open_network(identity(3).node):
            await at.dialer.connect_to(THEIRS)
            assert at.network.peers == (THEIRS,)
        assert at.failures == []


async def test_who_does_not_answer_is_not_offered_until_heard_again() -> None:
    async with bench() as at:
        at.knows(2, address(THEIRS))
        with pytest.raises(NetworkError):
            await at.dialer.connect_to(THEIRS)
        assert at.failures == [THEIRS]
        assert THEIRS not in at.directory.adverts()
        at.knows(2, address(THEIRS), sequence=2)
        assert THEIRS in at.directory.adverts()


async def test_all_who_wait_for_one_dial_share_its_failure() -> None:
    async with bench() as at:
        at.knows(2, address(THEIRS))
        told = 0

        async def want() -> None:
            nonlocal told
            with pytest.raises(NetworkError):
                await at.dialer.connect_to(THEIRS)
            told += 1

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(want)
        assert told == 5
        assert at.failures == [THEIRS]


async def hurried(dialer: Dialer) -> None:
    """Want the node, and no longer want it at the first await."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await dialer.connect_to(THEIRS)


async def test_a_dial_that_is_cancelled_is_taken_up_by_who_waits_for_it() -> None:
    for _ in range(20):  # Trio decides which of the two dials; both orders come up.
        async with bench() as at, at.world.open_network(THEIRS):
            at.knows(2, address(THEIRS))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hurried, at.dialer)
                nursery.start_soon(at.dialer.connect_to, THEIRS)
            assert at.network.peers == (THEIRS,)
            assert at.failures == []


async def test_a_peer_that_comes_and_goes_is_redialled_twice_and_then_left(
    autojump_clock: MockClock,
) -> None:
    async with bench() as at, at.world.open_network(THEIRS):
        at.knows(2, address(THEIRS))
        for _ in range(2):
            await at.dialer.redial(THEIRS)
            assert at.network.peers == (THEIRS,)
            await at.network.disconnect(THEIRS)
        await at.dialer.redial(THEIRS)
        assert at.network.peers == ()
        assert THEIRS not in at.directory.adverts()
        await trio.sleep(60)
        await at.dialer.redial(THEIRS)
        assert at.network.peers == (THEIRS,)
        assert THEIRS in at.directory.adverts()


async def test_the_dead_are_tried_ever_more_seldom_and_found_when_they_rise(
    autojump_clock: MockClock,
) -> None:
    async with bench() as at, trio.open_nursery() as nursery:
        at.knows(2, address(THEIRS))
        nursery.start_soon(at.dialer.run)
        await trio.sleep(100)
        assert 4 <= len(at.failures) <= 9
        at.knows(2, address(THEIRS), sequence=2)
        async with at.world.open_network(THEIRS):
            await trio.sleep(110)
            assert at.network.peers == (THEIRS,)
            assert THEIRS in at.directory.adverts()
        nursery.cancel_scope.cancel()
