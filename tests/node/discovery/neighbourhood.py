"""Nodes for the tests of discovery: adverts on demand, and whole nodes in one memory world."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import trio

from node.discovery.admission import Member
from node.discovery.clock import Clock, steady_ms, system_clock
from node.discovery.own import OwnState
from node.discovery.service import Discovery, Settings, Surroundings
from node.network.base import Network
from node.network.libp2p import open_network
from node.network.memory import MemoryWorld
from node.network.quota import Quotas
from node.storage.database import open_database
from node.storage.peers import PeerStore
from protocol.capacity import Advert, Device, ModelOffer
from protocol.envelope import Opened, Signed, seal
from protocol.identity import Identity, Seed
from protocol.ids import ModelId, NetworkId

NETWORK = NetworkId(b"n" * 32)
OTHER_NETWORK = NetworkId(b"o" * 32)
WALL_MS = 1_800_000_000_000
DEVICE = Device("cpu", "Andean Processor 8", 16 << 30, 8)


def identity(number: int) -> Identity:
    return Identity(Seed(number.to_bytes(32, "big")))


def offer(number: int = 1, slots_free: int = 2) -> ModelOffer:
    model = ModelId(number.to_bytes(32, "big"))
    return ModelOffer(
        *(model, f"model-{number}", "generate", "cpu-f32/gguf", 2048, 5, 9, 100_000, 20_000, 2),
        slots_free,
    )


def advert(sequence: int, life_ms: int = 120_000, name: str = "maize") -> Advert:
    return Advert(
        1, sequence, WALL_MS, life_ms, name, "ayni/0.1.0", (), (DEVICE,), (), "on", "unknown", ""
    )


def opened(
    number: int, value: Advert, network: NetworkId = NETWORK
) -> tuple[Opened[Advert], Signed]:
    signed = seal(identity(number), network, value)
    return Opened(value, signed.id, signed.signer), signed


def trio_clock(skew_ms: int = 0) -> Clock:
    return Clock(lambda: WALL_MS + skew_ms + steady_ms(), steady_ms)


class Owner:
    """Somebody whose node says what they like."""

    def __init__(self, name: str) -> None:
        self.state = OwnState(name, "ayni/0.1.0", (DEVICE,), (), "on")

    def offers(self, *offers: ModelOffer) -> None:
        self.state = replace(self.state, offers=offers)


@dataclass(frozen=True, slots=True)
class Home:
    """One node of the world."""

    network: Network
    discovery: Discovery
    owner: Owner
    store: PeerStore

    @property
    def sees(self) -> set[str]:
        return {value.name for value in self.discovery.adverts().values()}


class Village:
    """A memory world and its folder on disk."""

    def __init__(self, folder: Path) -> None:
        self.world, self._folder = MemoryWorld(), folder

    def lose_disk(self, number: int) -> None:
        """Node NUMBER, which must not run, forgets all."""
        for file in self._folder.glob(f"{number}.db*"):
            file.unlink()

    @asynccontextmanager
    async def home(
        self,
        number: int,
        *,
        bootstrap: Sequence[Home] = (),
        life_ms: int = 20_000,
        skew_ms: int = 0,
        neighbours: int = 8,
        running: bool = True,
    ) -> AsyncIterator[Home]:
        """A node named `node-NUMBER` that lives inside the context."""
        settings = Settings(
            [address for home in bootstrap for address in home.network.addresses],
            life_ms=life_ms,
            neighbours=neighbours,
        )
        quotas = Quotas()
        async with (
            open_database(self._folder / f"{number}.db", inline=True) as database,
            self.world.open_network(identity(number).node, quotas) as network,
            trio.open_nursery() as nursery,
        ):
            around = Surroundings(quotas, trio_clock(skew_ms), Random(number))
            home = settle(number, network, PeerStore(database), around, settings)
            if running:
                await nursery.start(home.discovery.run)
            yield home
            nursery.cancel_scope.cancel()


def settle(
    number: int,
    network: Network,
    store: PeerStore,
    around: Surroundings,
    settings: Settings,
) -> Home:
    """Node NUMBER on this network, not yet running."""
    owner, member = Owner(f"node-{number}"), Member(identity(number), NETWORK)
    discovery = Discovery(network, member, store, lambda: owner.state, around, settings=settings)
    return Home(network, discovery, owner, store)


@asynccontextmanager
async def real_home(folder: Path, number: int, bootstrap: Sequence[str]) -> AsyncIterator[Home]:
    """A node over libp2p on loopback, by the clocks of this machine."""
    quotas, seed = Quotas(), Seed(number.to_bytes(32, "big"))
    async with (
        open_database(folder / f"{number}.db") as database,
        open_network(seed, ["/ip4/127.0.0.1/tcp/0"], quotas) as network,
        trio.open_nursery() as nursery,
    ):
        around = Surroundings(quotas, system_clock(), Random(number))
        home = settle(number, network, PeerStore(database), around, Settings(bootstrap))
        await nursery.start(home.discovery.run)
        yield home
        nursery.cancel_scope.cancel()


async def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether it comes to hold within so many seconds of trio's clock."""
    with trio.move_on_after(seconds):
        while not holds():  # noqa: ASYNC110
            await trio.sleep(0.05)
        return True
    return False
