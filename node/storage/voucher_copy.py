"""A second copy of the counted vouchers, as one compact file on another disk.

What a node has earned and not settled stands in its vouchers alone, and payers need not keep them:
whoever loses its disk loses those. Each group of vouchers is appended here, and fsynced, before it
is counted; when a database is rebuilt they come back. A copy that fails stops no earning: it says
so, and is written whole as soon as it can be.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeVar

import trio
from msgspec import Meta, Struct

from node.storage.channels import SIGNED_BYTES_MAX, Counted, VoucherStore
from node.storage.damage import names_to_disk
from node.telemetry.logs import Log
from protocol import codec
from protocol.envelope import Signed
from protocol.errors import RemoteError
from protocol.identity import digest
from protocol.ids import MessageId, NetworkId
from protocol.ledger.voucher import voucher_opened

HEADER: Final = b"ayni vouchers 1\n"
RECORD_BYTES_MAX: Final = SIGNED_BYTES_MAX + 16
FILE_BYTES_MAX: Final = 1 << 20  # Of 4,000 vouchers; then only the highest of each are kept.
_LENGTH_BYTES: Final = 2
_CHECK_BYTES: Final = 8

T = TypeVar("T")

_log = Log("vouchers")


class Record(Struct, frozen=True, array_like=True, tag="voucher-copy", forbid_unknown_fields=True):
    """One voucher in the file."""

    voucher: Signed
    counted_at_ms: Annotated[int, Meta(ge=0)]


class VoucherCopy:
    """Is a `node.storage.channels.Copy`. `live` gives the vouchers that are worth keeping, when
    the file is written anew; `inline` does without threads."""

    def __init__(
        self,
        path: Path,
        network: NetworkId,
        *,
        inline: bool = False,
        bytes_max: int = FILE_BYTES_MAX,
    ) -> None:
        """A file that is larger than `bytes_max` is written anew."""
        self.path, self._network, self._inline = path, network, inline
        self._bytes_max = bytes_max
        self._known: dict[MessageId, int] = {}
        """The highest sum of each channel that this process has seen, in the file or counted."""
        self.live: Callable[[], Awaitable[Sequence[Counted]]] | None = None
        self.trouble = ""
        """Why the copy is behind, in a sentence for people; "" while it has all."""
        self._is_whole = False  # Until it was written whole once, it may lack anything.

    async def __call__(self, group: Sequence[Counted]) -> None:
        """Append a group; it is on disk when this returns, unless `trouble` says why not."""
        data = b"".join(map(recorded, group))
        self._know(group)
        try:
            if self._is_whole and await self._run(lambda: self._appended(data)):
                return
            kept = [] if self.live is None else await self.live()
            await self._run(lambda: self._rewritten([*kept, *group]))
        except OSError as error:
            self._is_whole = False
            if not self.trouble:
                _log.error("voucher_copy.behind")
            self.trouble = f"{self.path} cannot be written: {error.strerror}."
            return
        if self.trouble:
            _log.info("voucher_copy.whole")
        self._is_whole, self.trouble = True, ""

    async def replay(self, store: VoucherStore) -> int:
        """Give a store what it lacks of this file; how many channels that was. Whatever is no
        voucher is passed over. Raises LocalError UNAVAILABLE where the store's disk fails."""
        try:
            found = await self._run(self._read)
        except OSError:
            found = []
        self._know(found)
        had = {one.channel: one.cumulative for one in await store.vouchers()}
        over = await store.over(one.channel for one in found)
        news = [
            one
            for one in found
            if one.channel not in over and one.cumulative > had.get(one.channel, 0)
        ]
        for one in news:
            await store.put(one)
        if news:
            _log.warning("voucher_copy.replayed", channels=len(news))
        await self(())
        return len(news)

    def is_on_disk_of(self, home: Path) -> bool:
        """Whether the copy lies on the very disk that it should outlive. Raises OSError."""
        return self.path.parent.stat().st_dev == home.stat().st_dev

    async def _run(self, work: Callable[[], T]) -> T:
        return work() if self._inline else await trio.to_thread.run_sync(work)

    def _know(self, vouchers: Iterable[Counted]) -> None:
        for one in vouchers:
            self._known[one.channel] = max(one.cumulative, self._known.get(one.channel, 0))

    def _read(self) -> list[Counted]:
        return genuine(records(self.path.read_bytes()), self._network)

    def _appended(self, data: bytes) -> bool:
        """False where the file has grown too large, or is not there any more."""
        try:
            if self.path.stat().st_size > self._bytes_max:
                return False
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:
            return False  # A disk that was taken out and is back, say.
        _write_out(descriptor, data)
        return True

    def _rewritten(self, vouchers: Iterable[Counted]) -> None:
        """In the place of the old file, whole or not at all. What the old one has and this process
        has never seen stays: its disk may have been away when the rest was read."""
        try:
            unseen = [
                one for one in self._read() if one.cumulative > self._known.get(one.channel, 0)
            ]
        except FileNotFoundError:
            unseen = []
        new = self.path.with_name(self.path.name + ".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        _write_out(descriptor, HEADER + b"".join(map(recorded, _highest([*vouchers, *unseen]))))
        os.replace(new, self.path)
        names_to_disk(self.path.parent)


def genuine(records: Iterable[Record], network: NetworkId) -> list[Counted]:
    """The highest voucher of each channel among records, if its signature holds. Whose channel it
    is only the ledger knows: who uses one compares the payer."""
    found = []
    for record in records:
        signed = record.voucher
        try:
            voucher = voucher_opened(signed, signed.signer, network).value
        except RemoteError:
            continue  # A turned bit, or another network's: worth nothing to anybody.
        found.append(
            Counted(
                voucher.channel, signed.signer, voucher.cumulative, signed, record.counted_at_ms
            )
        )
    return _highest(found)


def _highest(vouchers: Iterable[Counted]) -> list[Counted]:
    best: dict[MessageId, Counted] = {}
    for one in vouchers:
        if one.channel not in best or best[one.channel].cumulative < one.cumulative:
            best[one.channel] = one
    return list(best.values())


def recorded(one: Counted) -> bytes:
    data = codec.encode(Record(one.voucher, one.counted_at_ms))
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data + digest(data)[:_CHECK_BYTES]


def records(data: bytes) -> Iterator[Record]:
    """As far as the file is whole: a crash can cut its last group."""
    if not data.startswith(HEADER):
        return
    at = len(HEADER)
    while at + _LENGTH_BYTES <= len(data):
        size = int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        body = data[at + _LENGTH_BYTES : at + _LENGTH_BYTES + size]
        at += _LENGTH_BYTES + size
        if data[at : at + _CHECK_BYTES] != digest(body)[:_CHECK_BYTES]:
            return
        at += _CHECK_BYTES
        try:
            yield codec.decode(body, Record, RECORD_BYTES_MAX)
        except RemoteError:
            return


def _write_out(descriptor: int, data: bytes) -> None:
    """All of it, and on disk, and the file closed. Raises OSError."""
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
