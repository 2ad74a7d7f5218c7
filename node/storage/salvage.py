"""What can still be read from a damaged database, and needs no trust in it: vouchers.

A voucher carries its payer's signature, so it is as good from a broken file as from a whole one.
Nothing else is taken from there: what was signed and certified the witnesses know better.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from node.storage.channels import SIGNED_BYTES_MAX, Counted
from node.storage.voucher_copy import Record, genuine
from protocol import codec
from protocol.envelope import Signed
from protocol.errors import RemoteError
from protocol.ids import NetworkId

_HEAD_BYTES: Final = 100  # SQLite's header: at 16 the size of a page, at 28 how many there are.
_BYTES_MAX: Final = 1 << 36  # A damaged header may say anything.


def vouchers_salvaged(file: Path, network: NetworkId) -> list[Counted]:
    """The vouchers of a database that was set aside, as far as its pages can be read, from either
    end of the table; for a thread. It works on a copy; where there is no room, it finds none."""
    found: list[Record] = []
    try:
        with TemporaryDirectory(dir=file.parent, ignore_cleanup_errors=True) as folder:
            copy = _copied(file, Path(folder))
            for order in ("ASC", "DESC"):
                found += _readable(copy, order)
    except OSError:
        pass
    return genuine(found, network)


def _copied(file: Path, folder: Path) -> Path:
    """A copy that SQLite opens, also where the end was cut off: what is missing is zeros there."""
    copy = folder / file.name
    shutil.copyfile(file, copy)
    log = file.with_name(file.name + "-wal")
    if log.exists():
        shutil.copyfile(log, folder / log.name)
    with copy.open("r+b") as opened:
        head = opened.read(_HEAD_BYTES)
        page_bytes, pages = int.from_bytes(head[16:18], "big"), int.from_bytes(head[28:32], "big")
        wanted = (65_536 if page_bytes == 1 else page_bytes) * pages
        if copy.stat().st_size < wanted <= _BYTES_MAX:
            opened.truncate(wanted)
    return copy


def _readable(file: Path, order: str) -> Iterator[Record]:
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error:
        return
    try:
        rows = connection.execute(
            f"SELECT voucher, counted_at_ms FROM channel_vouchers ORDER BY channel {order}"
        )
        for data, at_ms in rows:
            if isinstance(data, bytes) and isinstance(at_ms, int) and at_ms >= 0:
                try:
                    yield Record(codec.decode(data, Signed, SIGNED_BYTES_MAX), at_ms)
                except RemoteError:
                    continue
    except sqlite3.Error:
        return  # From here on it cannot be read.
    finally:
        connection.close()
