"""A node that dies, as by `kill -9`, before or after any one thing that it does outside itself:
a write to its disk, a payment, words on a stream."""

from collections.abc import Callable, Sequence

from node.ledger.scripted import ScriptedLedger
from node.network.base import Stream
from node.network.memory import MemoryNetwork
from node.storage.database import Database


class Crashed(BaseException):
    """Nothing that the node still tries happens."""


class Life:
    """Counts the doors that are passed, and ends at the one numbered `end`: even numbers are
    before an act, odd ones after it."""

    def __init__(self, end: int | None = None) -> None:
        self._end = end
        self.doors: list[str] = []
        self.over = False
        self.at_end: list[Callable[[], None]] = []

    def door(self, name: str) -> None:
        if self.over:
            raise Crashed
        number = len(self.doors)
        self.doors.append(name)
        if number == self._end:
            self.over = True
            for call in self.at_end:
                call()
            raise Crashed


class MortalDatabase:
    def __init__(self, database: Database, life: Life) -> None:
        self._database, self._life = database, life

    async def write(self, work):
        self._life.door("before a write")
        result = await self._database.write(work)
        self._life.door("after a write")
        return result

    async def read(self, work):
        return await self._database.read(work)


class MortalLedger(ScriptedLedger):
    def __init__(self, world, node, life: Life) -> None:
        super().__init__(world, node)
        self._life = life

    async def pay(self, to, amount, reference) -> None:
        self._life.door("before a pay")
        await super().pay(to, amount, reference)
        self._life.door("after a pay")


class MortalStream:
    def __init__(self, stream: Stream, life: Life) -> None:
        self._stream, self._life = stream, life

    @property
    def peer(self):
        return self._stream.peer

    async def send_all(self, data: bytes) -> None:
        self._life.door("before words")
        await self._stream.send_all(data)
        self._life.door("after words")

    async def receive_some(self, bytes_max: int) -> bytes:
        return await self._stream.receive_some(bytes_max)

    async def close(self) -> None:
        await self._stream.close()

    async def reset(self) -> None:
        await self._stream.reset()


class MortalNetwork:
    """What jobs need of a network, with mortal streams; its end is seen by all peers."""

    def __init__(self, network: MemoryNetwork, life: Life) -> None:
        self._network, self._life = network, life
        life.at_end.append(network.kill)

    @property
    def node(self):
        return self._network.node

    @property
    def addresses(self) -> Sequence[str]:
        return self._network.addresses

    async def connect(self, address: str):
        return await self._network.connect(address)

    async def disconnect(self, peer) -> None:
        await self._network.disconnect(peer)

    async def open(self, peer, protocol: str) -> Stream:
        return MortalStream(await self._network.open(peer, protocol), self._life)

    def serve(self, protocol: str, handler) -> None:
        async def serve(stream: Stream) -> None:
            await handler(MortalStream(stream, self._life))

        self._network.serve(protocol, serve)
