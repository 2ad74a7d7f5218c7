"""The highest voucher of each channel that pays this node, and what was lost on it, on disk.

Vouchers of all channels that come at the same time share one change of the database, and of one
channel only the highest among them is written: so their number costs no disk.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from node.storage.database import Database
from protocol import codec
from protocol.envelope import Signed
from protocol.errors import Code, LocalError
from protocol.ids import MessageId, NodeId
from protocol.ledger.decoder import packed
from protocol.limits import MICROCREDITS_MAX

OVER_KEPT_MAX: Final = 10_000  # Names of channels that are over: about a megabyte.
SIGNED_BYTES_MAX: Final = 384  # A voucher in its envelope has 240.


@dataclass(frozen=True, slots=True)
class Counted:
    """The highest voucher of a channel: microcredits in all, and when it came by the wall clock."""

    channel: MessageId
    payer: NodeId
    cumulative: int
    voucher: Signed
    counted_at_ms: int


@dataclass(frozen=True, slots=True)
class Loss:
    """What was delivered on a channel and has no voucher, of orders that are over."""

    channel: MessageId
    payer: NodeId
    amount: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Past:
    """What one payer's settled and claimed channels brought, in microcredits."""

    payer: NodeId
    paid: int
    lost: int


Copy = Callable[[Sequence[Counted]], Awaitable[None]]
"""Keeps a second copy of each group of vouchers, on another disk, before they are counted. It
tells its own faults to the owner and raises none: the first copy is what counts."""


async def no_copy(group: Sequence[Counted]) -> None:
    """Keep no second copy."""


@dataclass(eq=False, slots=True)
class _Group:
    """Vouchers that share a change; of each channel the highest."""

    vouchers: dict[MessageId, Counted] = field(default_factory=dict)
    done: trio.Event = field(default_factory=trio.Event)
    fault: LocalError | None = None


class VoucherStore:
    """All methods are called from the one trio thread."""

    def __init__(self, database: Database, copy: Copy = no_copy) -> None:
        self._database = database
        self._copy = copy
        self._group = _Group()
        self._turn = trio.Lock()
        self.groups = 0
        """How many changes all vouchers so far have taken."""

    @property
    def trouble(self) -> str:
        """Why nothing can be written now, in a sentence; "" while all is well."""
        return self._database.trouble

    async def put(self, counted: Counted) -> None:
        """Keep a voucher: on disk when this returns. One that is lower than what is there changes
        nothing. A caller that is cancelled leaves it to be written all the same.

        Raises LocalError UNAVAILABLE where the disk fails: then it is not there.
        """
        group, is_first = self._group, not self._group.vouchers
        there = group.vouchers.get(counted.channel)
        if there is None or counted.cumulative > there.cumulative:
            group.vouchers[counted.channel] = counted
        if is_first:  # Whoever opens a group writes it, when the one before it is written.
            await self._written(group)
        else:
            await group.done.wait()
        if group.fault is not None:
            raise LocalError(group.fault.code, group.fault.sentence, group.fault.retry_ms)

    async def _written(self, group: _Group) -> None:
        group.fault = LocalError(Code.UNAVAILABLE, "Vouchers could not be written: a fault of ours")
        # Others wait for this group, so that it is written even if its first caller is gone.
        try:
            with trio.CancelScope(shield=True):
                async with self._turn:
                    self._group = _Group()
                    await self._store(list(group.vouchers.values()))
            group.fault = None
        except LocalError as error:
            group.fault = error
        finally:
            group.done.set()

    async def _store(self, vouchers: Sequence[Counted]) -> None:
        await self._copy(vouchers)
        rows = [
            (one.channel, one.payer, one.cumulative, packed(one.voucher), one.counted_at_ms)
            for one in vouchers
        ]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(_PUT, rows)

        await self._database.write(work)
        self.groups += 1

    async def vouchers(self) -> list[Counted]:
        """The highest voucher of each channel that is not forgotten."""

        def work(connection: sqlite3.Connection) -> list[Counted]:
            rows = connection.execute(
                "SELECT channel, payer, cumulative, voucher, counted_at_ms FROM channel_vouchers "
                "WHERE NOT is_over ORDER BY channel"
            )
            return [
                Counted(
                    channel, payer, cumulative, codec.decode(data, Signed, SIGNED_BYTES_MAX), at_ms
                )
                for channel, payer, cumulative, data, at_ms in rows
            ]

        return await self._database.read(work)

    async def over(self, channels: Iterable[MessageId]) -> set[MessageId]:
        """Those whose share this node has claimed, so that their vouchers say nothing any more."""
        wanted = list(channels)

        def work(connection: sqlite3.Connection) -> set[MessageId]:
            done = "SELECT 1 FROM ledger_own_channels WHERE id = ? AND is_done"
            return {one for one in wanted if connection.execute(done, (one,)).fetchone()}

        return await self._database.read(work)

    async def lose(self, losses: Iterable[Loss]) -> None:
        """Keep what is lost on these channels now, in the place of what was; 0 for nothing."""
        rows = [(loss.channel, loss.payer, loss.amount, loss.chunks) for loss in losses]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM channel_losses WHERE channel = ?", [row[:1] for row in rows]
            )
            connection.executemany(
                "INSERT INTO channel_losses VALUES (?, ?, ?, ?)", [row for row in rows if row[2]]
            )

        await self._database.write(work)

    async def losses(self) -> list[Loss]:
        """What is lost on channels that are not forgotten."""

        def work(connection: sqlite3.Connection) -> list[Loss]:
            rows = connection.execute(
                "SELECT channel, payer, amount, chunks FROM channel_losses ORDER BY channel"
            )
            return [Loss(*row) for row in rows]

        return await self._database.read(work)

    async def forget(self, channel: MessageId, payer: NodeId, paid: int) -> Past:
        """A channel is settled with `paid` for us and that is claimed: what it brought goes into
        its payer's sum, once. The sum. Of the channel only its name stays for a while, so that a
        second copy of its voucher that comes back is known to be old."""

        def work(connection: sqlite3.Connection) -> Past:
            (lost,) = connection.execute(
                "SELECT coalesce(sum(amount), 0) FROM channel_losses WHERE channel = ?", (channel,)
            ).fetchone()
            # A payee that was away when its channel expired gets less than its vouchers say.
            (held,) = connection.execute(
                "SELECT coalesce(sum(cumulative), 0) FROM channel_vouchers "
                "WHERE channel = ? AND NOT is_over",
                (channel,),
            ).fetchone()
            lost += max(0, held - paid)
            gone = connection.execute(
                "UPDATE channel_vouchers SET is_over = 1, voucher = X'' "
                "WHERE channel = ? AND NOT is_over",
                (channel,),
            ).rowcount
            connection.execute(_TRIM, (OVER_KEPT_MAX,))
            gone += connection.execute(
                "DELETE FROM channel_losses WHERE channel = ?", (channel,)
            ).rowcount
            if gone:  # Else it was forgotten before.
                connection.execute(_ADD, (payer, paid, lost, MICROCREDITS_MAX, MICROCREDITS_MAX))
            row = connection.execute(
                "SELECT payer, paid, lost FROM channel_payers WHERE payer = ?", (payer,)
            ).fetchone()
            return Past(payer, 0, 0) if row is None else Past(*row)

        return await self._database.write(work)

    async def pasts(self) -> list[Past]:
        """What each payer's forgotten channels brought."""

        def work(connection: sqlite3.Connection) -> list[Past]:
            rows = connection.execute("SELECT payer, paid, lost FROM channel_payers ORDER BY payer")
            return [Past(*row) for row in rows]

        return await self._database.read(work)


_PUT: Final = """
    INSERT INTO channel_vouchers (channel, payer, cumulative, voucher, counted_at_ms)
    VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (channel) DO UPDATE SET cumulative = excluded.cumulative,
        voucher = excluded.voucher, counted_at_ms = excluded.counted_at_ms
    WHERE excluded.cumulative > channel_vouchers.cumulative
"""
_TRIM: Final = """
    DELETE FROM channel_vouchers WHERE channel IN (
        SELECT channel FROM channel_vouchers WHERE is_over
        ORDER BY counted_at_ms DESC LIMIT -1 OFFSET ?
    )
"""
_ADD: Final = """
    INSERT INTO channel_payers (payer, paid, lost) VALUES (?, ?, ?)
    ON CONFLICT (payer) DO UPDATE SET
        paid = min(?, paid + excluded.paid), lost = min(?, lost + excluded.lost)
"""
