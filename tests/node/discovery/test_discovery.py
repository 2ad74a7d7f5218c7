"""Whole nodes in one memory world: they find each other, and strangers cannot stop them."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from node.discovery.addresses import AddressBook
from node.discovery.directory import Directory
from node.network.base import NetworkError
from node.network.rpc import answering, ask
from protocol import codec
from protocol.capacity import AdvertsPage, capacity_topic
from protocol.envelope import seal
from protocol.errors import Code, LocalError
from protocol.ids import NodeId, node_text
from protocol.limits import FAILED_CHECKS_MAX
from protocol.messages import ADVERTS_ASKED, ADVERTS_PROTOCOL, adverts_page
from tests.node.discovery.neighbourhood import (
    NETWORK,
    OTHER_NETWORK,
    WALL_MS,
    Home,
    Village,
    advert,
    identity,
    offer,
    opened,
    real_home,
    until,
)

A_NODE = node_text(identity(2).node)
TOPIC = capacity_topic(NETWORK)


@pytest.fixture
def village(tmp_path: Path) -> Village:
    return Village(tmp_path)


def names(*numbers: int) -> set[str]:
    return {f"node-{number}" for number in numbers}


def is_connected(home: Home, *others: Home) -> bool:
    return {other.network.node for other in others} <= set(home.network.peers)


async def test_four_nodes_with_one_bootstrap_see_and_reach_each_other(
    autojump_clock: MockClock, village: Village
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(village.home(1))
        homes = [first]
        for number in (2, 3, 4):
            homes.append(await stack.enter_async_context(village.home(number, bootstrap=[first])))
        for number, home in enumerate(homes, 1):
            others = [other for other in homes if other is not home]
            want = names(1, 2, 3, 4) - names(number)
            assert await until(lambda home=home, want=want: home.sees == want, 5)
            assert await until(lambda home=home, them=others: is_connected(home, *them), 5)
            assert all(listing.connected for listing in home.discovery.listings())


async def test_a_late_joiner_is_full_at_once_and_all_hear_of_it(
    autojump_clock: MockClock, village: Village
) -> None:
    async with village.home(1) as one, village.home(2, bootstrap=[one]) as two:
        await trio.sleep(100)
        async with village.home(3, bootstrap=[two]) as late:
            assert await until(lambda: late.sees == names(1, 2), 0.5)
            assert await until(lambda: "node-3" in one.sees and "node-3" in two.sees, 3)
            ages = [listing.age_ms for listing in late.discovery.listings()]
            assert all(0 <= age_ms <= 10_000 for age_ms in ages)


async def test_a_change_reaches_everybody_by_gossip(
    autojump_clock: MockClock, village: Village
) -> None:
    async with village.home(1) as one, village.home(2, bootstrap=[one]) as two:
        await trio.sleep(15)
        one.owner.offers(offer(slots_free=1))
        one.discovery.changed()

        def told() -> bool:
            value = two.discovery.adverts().get(one.network.node)
            return value is not None and [model.slots_free for model in value.models] == [1]

        assert await until(told, 10.5)


async def test_a_killed_node_is_not_offered_at_once_and_not_shown_after_its_life(
    autojump_clock: MockClock, village: Village
) -> None:
    async with (
        village.home(1) as one,
        village.home(2, bootstrap=[one]) as two,
        village.home(3, bootstrap=[one]) as three,
    ):
        assert await until(lambda: one.sees == names(2, 3) and two.sees == names(1, 3), 5)
        village.world.networks[three.network.node].kill()
        for home in (one, two):
            assert await until(lambda home=home: "node-3" not in home.sees, 1)
            (listing,) = (
                listing
                for listing in home.discovery.listings()
                if listing.node == three.network.node
            )
            assert listing.unreachable
            assert not listing.connected
            with pytest.raises(NetworkError, match=node_text(three.network.node)):
                await home.discovery.connect_to(three.network.node)
        await trio.sleep(20)
        for home in (one, two):
            shown = {listing.node for listing in home.discovery.listings()}
            assert three.network.node not in shown


async def test_a_node_that_comes_back_is_found_again_with_a_higher_number(
    autojump_clock: MockClock, village: Village
) -> None:
    async with village.home(1) as one:
        async with village.home(2, bootstrap=[one]):
            assert await until(lambda: one.sees == names(2), 5)
        (before,) = one.discovery.listings()
        await trio.sleep(1)
        assert one.sees == set()
        # Started anew without a bootstrap address: it remembers where the other was.
        async with village.home(2) as two:
            assert await until(lambda: one.sees == names(2) and two.sees == names(1), 5)
            (after,) = one.discovery.listings()
            assert after.advert.sequence > before.advert.sequence


async def test_it_remembers_where_others_were_over_a_restart(
    autojump_clock: MockClock, village: Village
) -> None:
    async with village.home(1) as one, village.home(2, bootstrap=[one]) as two:
        assert await until(lambda: one.sees == names(2) and two.sees == names(1), 5)
    village.lose_disk(1)  # So that only the second node can know where the other one is.
    async with village.home(1) as one, village.home(2) as two:
        assert await until(lambda: one.sees == names(2) and two.sees == names(1), 5)


async def test_a_lost_connection_is_redialled_though_no_neighbour_is_wanted(
    autojump_clock: MockClock, village: Village
) -> None:
    async with (
        village.home(1, neighbours=0) as one,
        village.home(2, bootstrap=[one], neighbours=0) as two,
    ):
        await trio.sleep(5)
        assert not two.network.peers
        await two.discovery.connect_to(one.network.node)
        await trio.sleep(5)
        await one.network.disconnect(two.network.node)
        assert await until(lambda: is_connected(one, two), 0.5)
        assert two.sees == names(1)


async def test_a_lost_connection_is_redialled_at_once(
    autojump_clock: MockClock, village: Village
) -> None:
    async with village.home(1) as one, village.home(2, bootstrap=[one]) as two:
        assert await until(lambda: one.sees == names(2), 5)
        await one.network.disconnect(two.network.node)
        assert await until(lambda: is_connected(one, two) and is_connected(two, one), 0.5)
        assert one.sees == names(2)


async def test_the_bootstrap_node_may_come_last(
    autojump_clock: MockClock, village: Village
) -> None:
    async with AsyncExitStack() as stack:
        async with village.home(1) as gone:
            pass
        two = await stack.enter_async_context(village.home(2, bootstrap=[gone]))
        three = await stack.enter_async_context(village.home(3, bootstrap=[gone, two]))
        assert await until(lambda: two.sees == names(3) and three.sees == names(2), 5)
        await trio.sleep(60)
        one = await stack.enter_async_context(village.home(1))
        assert await until(lambda: one.sees == names(2, 3), 180)


async def test_in_a_larger_network_a_few_neighbours_are_enough_to_hear_all(
    autojump_clock: MockClock, village: Village
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(village.home(1, neighbours=3))
        homes = [first]
        for number in range(2, 13):
            home = village.home(number, bootstrap=[first], neighbours=3)
            homes.append(await stack.enter_async_context(home))
        assert await until(lambda: all(len(home.sees) == 11 for home in homes), 30)
        village.world.networks[
            first.network.node
        ].kill()  # Nobody depends on the bootstrap node once it knows others.
        await trio.sleep(60)
        assert all(len(home.sees) == 10 for home in homes[1:])


async def test_connect_to_dials_on_demand_once_for_all_who_wait(
    autojump_clock: MockClock, village: Village
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(village.home(1, neighbours=1))
        others = [
            await stack.enter_async_context(village.home(n, bootstrap=[first], neighbours=1))
            for n in range(2, 6)
        ]
        assert await until(lambda: all(len(home.sees) == 4 for home in others), 30)
        one, far = next(
            (home, other)
            for home in others
            for other in others
            if home is not other and not is_connected(home, other)
        )
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one.discovery.connect_to, far.network.node)
        assert is_connected(one, far)
        await one.discovery.connect_to(far.network.node)
        for nobody in (one.network.node, NodeId(b"?" * 32)):
            with pytest.raises(NetworkError):
                await one.discovery.connect_to(nobody)


@pytest.mark.parametrize(
    "address",
    ["/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/1/p2p/xyz", "", "/memory/é/p2p/" + A_NODE],
)
def test_a_bootstrap_address_that_names_nobody_is_the_owners_mistake(address: str) -> None:
    with pytest.raises(LocalError) as caught:
        AddressBook(identity(1).node, [address], Directory(lambda: 0))
    assert caught.value.code is Code.BAD_CONFIG


async def test_a_clock_far_from_the_others_is_suspect_here_and_harmless_there(
    autojump_clock: MockClock, village: Village
) -> None:
    async with (
        village.home(1) as one,
        village.home(2, bootstrap=[one]) as two,
        village.home(3, bootstrap=[one], skew_ms=600_000) as wrong,
    ):
        await trio.sleep(30)
        assert wrong.discovery.clock_suspect
        assert wrong.discovery.adverts_refused[Code.EXPIRED] > 0
        assert not one.discovery.clock_suspect or not two.discovery.clock_suspect
        assert one.sees == names(2)
        assert two.sees == names(1)
        assert is_connected(one, wrong), "nobody is cut for a wrong clock"


async def test_a_neighbour_that_gossips_garbage_is_cut_and_the_rest_goes_on(
    autojump_clock: MockClock, village: Village
) -> None:
    forgeries = {
        "garbage": lambda n: bytes([n % 256]) * 40,
        "another network": lambda n: codec.encode(opened(50, advert(n), OTHER_NETWORK)[1]),
        "forged": lambda n: codec.encode(replace(opened(50, advert(n))[1], signature=bytes(64))),
        "wrong type": lambda n: codec.encode(seal(identity(50), NETWORK, AdvertsPage(()))),
    }
    async with village.home(1) as one, village.home(2, bootstrap=[one]) as two:
        assert await until(lambda: one.sees == names(2), 5)
        for number, make in enumerate(forgeries.values(), 60):
            async with village.world.open_network(identity(number).node) as stranger:
                await stranger.connect(one.network.addresses[0])
                for n in range(1, FAILED_CHECKS_MAX + 3):
                    await stranger.publish(TOPIC, make(n))
                assert await until(lambda it=stranger: not it.peers, 1)
                with pytest.raises(NetworkError):
                    await stranger.connect(one.network.addresses[0])
            assert one.sees == names(2)
        assert is_connected(one, two)
        assert is_connected(two, one), "it is only ever handed what holds"


async def test_an_old_advert_replayed_is_heard_by_nobody(
    autojump_clock: MockClock, village: Village
) -> None:
    async with (
        village.home(1) as one,
        village.home(2, bootstrap=[one]) as two,
        village.world.open_network(identity(60).node) as stranger,
    ):
        assert await until(lambda: one.sees == names(2), 5)
        old = advert(WALL_MS - 1_000, name="old")
        await stranger.connect(one.network.addresses[0])
        for _ in range(30):
            await stranger.publish(TOPIC, codec.encode(seal(identity(2), NETWORK, old)))
        await trio.sleep(5)
        assert one.sees == names(2)
        assert two.discovery.listings()
        assert stranger.peers, "whoever passes on an old one may just not know the new one"


async def test_five_thousand_origins_are_bounded_and_the_node_lives(
    autojump_clock: MockClock, village: Village
) -> None:
    async with (
        village.home(1) as one,
        village.home(2, bootstrap=[one]) as two,
        village.world.open_network(identity(60).node) as stranger,
    ):
        assert await until(lambda: one.sees == names(2), 5)
        await stranger.connect(one.network.addresses[0])
        for number in range(1_000, 6_000):
            value = advert(1, life_ms=120_000, name="sybil")
            signed = seal(identity(number), NETWORK, replace(value, issued_at=WALL_MS))
            await stranger.publish(TOPIC, codec.encode(signed))
            if number % 200 == 0:
                await trio.sleep(1)
        assert 500 < len(one.discovery.listings()) <= 4096
        assert is_connected(one, two)
        await trio.sleep(125)
        assert one.sees == names(2)
        assert two.sees == names(1)


async def test_a_peer_may_ask_for_a_few_pages_and_only_so(
    autojump_clock: MockClock, village: Village
) -> None:
    async with (
        village.home(1) as one,
        village.home(2, bootstrap=[one]),
        village.world.open_network(identity(60).node) as stranger,
    ):
        assert await until(lambda: one.sees == names(2), 5)
        await stranger.connect(one.network.addresses[0])
        with pytest.raises(NetworkError):
            await ask(stranger, one.network.node, ADVERTS_PROTOCOL, b"adverts/2")
        for _ in range(6):
            data = await ask(stranger, one.network.node, ADVERTS_PROTOCOL, ADVERTS_ASKED)
            signers = [signed.signer for _, signed in adverts_page(data).adverts]
            assert signers == [one.network.node, identity(2).node]
        with pytest.raises(NetworkError):
            await ask(stranger, one.network.node, ADVERTS_PROTOCOL, ADVERTS_ASKED)


async def test_a_peer_that_answers_nonsense_or_nothing_is_lived_with(
    autojump_clock: MockClock, village: Village
) -> None:
    async def nonsense(peer: NodeId, request: bytes) -> bytes:
        return b"\xc1" * 100

    async def never(peer: NodeId, request: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async with village.home(1) as one, village.home(2, bootstrap=[one]):
        for number, answer in enumerate((nonsense, never), 60):
            async with village.world.open_network(identity(number).node) as stranger:
                stranger.serve(ADVERTS_PROTOCOL, answering(answer))
                await stranger.connect(one.network.addresses[0])
                await trio.sleep(60)
                assert one.sees == names(2)
        assert one.discovery.adverts_refused == {Code.BAD_ENCODING: 1}


async def test_a_peer_with_odd_addresses_is_neither_dialled_nor_remembered(
    autojump_clock: MockClock, village: Village
) -> None:
    long = (
        "/dns/" + "é" * 190 + "/p2p/" + node_text(identity(60).node)
    )  # More bytes than characters.
    odd = (long, "é" * 256, "/memory/x/p2p/" + node_text(identity(2).node), "\x1b[2J", "")
    value = replace(advert(1, name="odd"), addresses=odd)
    async with (
        village.home(1) as one,
        village.home(2, bootstrap=[one]),
        village.world.open_network(identity(60).node) as stranger,
    ):
        await stranger.connect(one.network.addresses[0])
        await stranger.publish(TOPIC, codec.encode(seal(identity(60), NETWORK, value)))
        assert await until(lambda: "odd" in one.sees, 1)
        await stranger.disconnect(one.network.node)
        await trio.sleep(10)
        assert not stranger.peers
        await stranger.connect(one.network.addresses[0])
        await trio.sleep(10)
        assert [peer.node for peer in await one.store.best(10)] == [identity(2).node]


async def test_it_can_be_run_again_after_a_failure(
    autojump_clock: MockClock, village: Village
) -> None:
    async with village.home(1, running=False) as one:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                await nursery.start(one.discovery.run)
                async with village.home(2, bootstrap=[one]) as two:
                    assert await until(lambda: two.sees == names(1), 5)
                    assert await until(lambda: one.sees == names(2), 5)
                nursery.cancel_scope.cancel()


async def test_three_nodes_find_each_other_over_libp2p(tmp_path: Path) -> None:
    async with (
        real_home(tmp_path, 1, ()) as one,
        real_home(tmp_path, 2, one.network.addresses) as two,
        real_home(tmp_path, 3, one.network.addresses) as three,
    ):
        # It takes under a second; a loaded machine may need more.
        assert await until(lambda: one.sees == names(2, 3) and two.sees == names(1, 3), 60)
        assert await until(lambda: three.sees == names(1, 2), 60)
        assert await until(lambda: is_connected(three, one, two) and is_connected(one, two), 60)
        two.owner.offers(offer(slots_free=1))
        two.discovery.changed()
        provider = two.network.node
        assert await until(lambda: bool(three.discovery.adverts()[provider].models), 60)
        assert not three.discovery.adverts_refused
