"""Remembered peers, and a sequence that only grows."""

import itertools
import tempfile
from pathlib import Path

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from node.storage.database import open_database
from node.storage.peers import PeerStore, RememberedPeer
from protocol.ids import NodeId


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


async def test_a_peer_comes_back_as_it_was(tmp_path: Path) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as store:
        peers = PeerStore(store)
        await peers.remember(node(1), ["/ip4/10.0.0.1/tcp/1", "/dns/maize/tcp/2"], b"advert", 5)
        await peers.remember(node(2), [], b"", 6)
        assert await peers.best(10) == [
            RememberedPeer(node(2), (), b"", 6, 0),
            RememberedPeer(node(1), ("/ip4/10.0.0.1/tcp/1", "/dns/maize/tcp/2"), b"advert", 5, 0),
        ]


async def test_failures_count_and_are_forgiven(tmp_path: Path) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as store:
        peers = PeerStore(store)
        await peers.remember(node(1), [], b"", 1)
        await peers.remember(node(2), [], b"", 2)
        await peers.failed(node(2))
        await peers.failed(node(2))
        await peers.failed(node(9))
        assert [(peer.node, peer.failures) for peer in await peers.best(10)] == [
            (node(1), 0),
            (node(2), 2),
        ]
        await peers.remember(node(2), [], b"", 3)
        assert [peer.node for peer in await peers.best(1)] == [node(2)]
        await peers.forget(node(2))
        assert [peer.node for peer in await peers.best(10)] == [node(1)]


async def test_whoever_was_seen_longest_ago_is_forgotten(tmp_path: Path) -> None:
    async with open_database(tmp_path / "ayni.db", inline=True) as store:
        peers = PeerStore(store, remembered_max=3)
        for number in range(6):
            await peers.remember(node(number), [], b"", number)
        await peers.remember(node(4), [], b"new", 9)
        assert [peer.node for peer in await peers.best(10)] == [node(4), node(5), node(3)]


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 1 << 50), st.booleans()), min_size=1, max_size=8))
def test_the_sequence_only_grows_whatever_the_clock_says(
    steps: list[tuple[int, bool]],
) -> None:
    async def run(file: Path) -> list[int]:
        given_out: list[int] = []
        for now_ms, twice in steps:  # Each step is a run of the node.
            async with open_database(file, inline=True) as store:
                peers = PeerStore(store)
                for _ in range(1 + twice):
                    given_out.append(await peers.next_sequence(now_ms))
                    assert given_out[-1] >= now_ms
        return given_out

    with tempfile.TemporaryDirectory() as folder:
        numbers = trio.run(run, Path(folder) / "ayni.db")
    assert all(a < b for a, b in itertools.pairwise(numbers))
