"""When our advert is told: at the start, on change, before it is over, and not too often."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.discovery.admission import Member
from node.discovery.advertise import Advertiser
from node.discovery.clock import Clock, steady_ms
from node.network.memory import MemoryNetwork, MemoryWorld
from node.storage.database import open_database
from node.storage.peers import PeerStore
from protocol import codec
from protocol.capacity import Advert, advert_checked, capacity_topic
from protocol.envelope import Signed
from tests.node.discovery.neighbourhood import (
    NETWORK,
    WALL_MS,
    Owner,
    identity,
    offer,
    trio_clock,
)


@dataclass
class Heard:
    """What one neighbour has heard, each with the second when it came."""

    adverts: list[tuple[float, Advert]] = field(default_factory=list)

    def take(self, data: bytes) -> None:
        signed = codec.decode(data, Signed)
        opened = advert_checked(signed, NETWORK, WALL_MS + steady_ms())
        self.adverts.append((trio.current_time() - self.began, opened.value))

    @property
    def seconds(self) -> list[int]:
        return [round(at) for at, _ in self.adverts]

    began: float = 0


@dataclass(frozen=True)
class Stage:
    advertiser: Advertiser
    owner: Owner
    heard: Heard
    network: MemoryNetwork
    neighbour: MemoryNetwork

    async def connect(self) -> None:
        await self.network.connect(self.neighbour.addresses[0])
        self.advertiser.connected()


@asynccontextmanager
async def stage(
    folder: Path, *, connected: bool = True, clock: Clock | None = None, life_ms: int = 120_000
) -> AsyncIterator[Stage]:
    world, owner, heard = MemoryWorld(), Owner("maize"), Heard()
    async with (
        open_database(folder / "a.db", inline=True) as database,
        world.open_network(identity(1).node) as network,
        world.open_network(identity(2).node) as neighbour,
        trio.open_nursery() as nursery,
    ):
        await neighbour.subscribe(capacity_topic(NETWORK), lambda _peer, _data: True, heard.take)
        advertiser = Advertiser(
            network,
            Member(identity(1), NETWORK),
            PeerStore(database),
            lambda: owner.state,
            clock or trio_clock(),
            life_ms=life_ms,
        )
        standing = Stage(advertiser, owner, heard, network, neighbour)
        if connected:
            await network.connect(neighbour.addresses[0])
        heard.began = trio.current_time()
        nursery.start_soon(advertiser.run)
        await wait_all_tasks_blocked()
        yield standing
        nursery.cancel_scope.cancel()


async def test_at_the_start_and_every_half_life(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with stage(tmp_path) as at:
        await trio.sleep(190)
        assert at.heard.seconds == [0, 60, 120, 180]
        sequences = [value.sequence for _, value in at.heard.adverts]
        assert sequences == sorted(set(sequences))
    async with stage(tmp_path, life_ms=20_000) as at:
        await trio.sleep(35)
        assert at.heard.seconds == [0, 10, 20, 30]


async def test_a_change_is_told_at_once_and_many_in_one(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with stage(tmp_path) as at:
        await trio.sleep(30)
        for free in (2, 1, 0):
            at.owner.offers(offer(slots_free=free))
            at.advertiser.changed()
            await trio.sleep(1)
        assert at.heard.seconds == [0, 30]
        await trio.sleep(20)
        assert at.heard.seconds == [0, 30, 40]
        frees = [value.models[0].slots_free for _, value in at.heard.adverts[1:]]
        assert frees == [2, 0]
        await trio.sleep(60)
        assert at.heard.seconds == [0, 30, 40, 100]


async def test_however_often_it_changes_one_in_ten_seconds_is_told(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with stage(tmp_path) as at:
        for _ in range(400):
            at.advertiser.changed()
            await trio.sleep(0.25)
        gaps = [after - before for before, after in pairwise(at.heard.seconds)]
        assert set(gaps) == {10}
        assert len(gaps) >= 8


async def test_an_owners_word_goes_out_within_two_seconds(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with stage(tmp_path) as at:
        await trio.sleep(0.5)
        at.advertiser.changed()
        await trio.sleep(0.5)
        at.advertiser.changed(urgent=True)
        await trio.sleep(5)
        assert at.heard.seconds == [0, 2]
        at.advertiser.changed(urgent=True)
        await trio.sleep(0.5)
        assert at.heard.seconds == [0, 2, 6]
        at.advertiser.changed()
        await trio.sleep(20)
        assert at.heard.seconds == [0, 2, 6, 16]


async def test_alone_it_waits_and_tells_the_first_to_come_when_gossip_has_settled(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with stage(tmp_path, connected=False) as at:
        await trio.sleep(7)
        at.advertiser.changed()
        await trio.sleep(7)
        assert at.heard.seconds == []
        assert at.advertiser.current()
        await at.connect()
        await trio.sleep(5)
        assert at.heard.seconds == [15]


async def test_a_connection_that_comes_and_goes_does_not_make_it_talk_faster(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with stage(tmp_path) as at:
        for _ in range(50):
            await at.network.disconnect(at.neighbour.node)
            await at.connect()
            await trio.sleep(2)
        gaps = [after - before for before, after in pairwise(at.heard.seconds)]
        assert min(gaps) >= 10
        assert len(gaps) >= 8


async def test_its_number_grows_over_a_restart_with_a_clock_that_went_back(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with stage(tmp_path) as at:
        first = at.advertiser.sequence
        assert first >= WALL_MS
    async with stage(tmp_path, clock=trio_clock(skew_ms=-100_000)) as at:
        assert at.advertiser.sequence == first + 1


async def test_it_outruns_an_advert_of_its_own_that_others_hold(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(tmp_path) as at:
        ahead = at.advertiser.sequence + 1_000_000
        await trio.sleep(20)
        for _ in range(3):
            at.advertiser.outrun(ahead)
        await trio.sleep(1)
        assert at.advertiser.sequence == ahead + 1
        assert at.heard.seconds == [0, 20]
        at.advertiser.outrun(ahead)
        await trio.sleep(15)
        assert at.heard.seconds == [0, 20]
    assert [record.message for record in caplog.records] == ["advert.outrun"]


async def test_what_it_hands_out_is_its_last_one_with_its_age(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with stage(tmp_path) as at:
        await trio.sleep(25)
        ((age_ms, signed),) = at.advertiser.current()
        assert 24_900 <= age_ms <= 25_100
        assert advert_checked(signed, NETWORK, WALL_MS).value.sequence == at.advertiser.sequence


async def test_a_network_that_is_gone_is_no_reason_to_stop(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with stage(tmp_path) as at:
        at.neighbour.kill()
        await trio.sleep(200)
        assert at.heard.seconds == [0]
        assert at.advertiser.current()


def test_a_life_that_others_could_not_follow_is_our_mistake(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        Advertiser(*[None] * 5, life_ms=5_000)  # type: ignore[arg-type]
